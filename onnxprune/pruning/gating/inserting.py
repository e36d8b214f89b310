"""The gated model: the masked original, with factors that are inputs where masks are constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.control_flow import scope_of
from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.model import Model
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.masking import GraphMasker
from onnxprune.pruning.plan import Replacement
from onnxprune.torch.gates.spec import GateVector


@dataclass(frozen=True)
class Gated:
    """A model with gates, and the inputs that they are."""

    model: Model
    vectors: tuple[GateVector, ...]


def gated(analysis: Analysis, per_class: Sequence[IntArray], regions: Sequence[tuple[Replacement, int]] = ()) -> Gated:
    """The model in which every consumer reads positions times their gates, as that of the certificate reads zeros.

    Args:
        analysis: of the model.
        per_class: for every class of axes, the gate of each position, or -1.
        regions: regions that give way to ``nothing`` or ``identity`` where their gate is closed.
    """
    return _GateInserter(analysis, per_class, regions).build()


def unmasked(analysis: Analysis) -> frozenset[int]:
    """The classes that some operator cannot read zeros of: it has to see fewer positions."""
    every = [np.arange(extent, dtype=np.int64) for extent in analysis.coupling.extents.tolist()]
    surveyor = _Surveyor(analysis, every)
    surveyor.run()
    return frozenset(surveyor.found)


class _Surveyor(GraphMasker):
    """Notes what is not masked by zeros, and masks nothing."""

    def __init__(self, analysis: Analysis, per_class: Sequence[IntArray]) -> None:
        super().__init__(analysis, per_class)
        self.found: set[int] = set()

    def zero(self, node: Node, index: int, dim: int) -> None:
        """Nothing."""

    def keep_only(self, node: Node, index: int, dim: int) -> None:
        """Note the class."""
        self._note(node.inputs[index], dim)

    def restore(self, node: Node, index: int, dim: int, like: tuple[str, int]) -> None:
        """Note the class."""
        self._note(*like)

    def _note(self, tensor: str, dim: int) -> None:
        owner = self._analysis.coupling.class_of.get(self._analysis.coupling.axes.id(tensor, dim))
        if owner is not None:
            self.found.add(owner)


class _GateInserter(GraphMasker):
    """Multiplies by gates what the masked original makes zero."""

    def __init__(
        self, analysis: Analysis, per_class: Sequence[IntArray], regions: Sequence[tuple[Replacement, int]]
    ) -> None:
        super().__init__(analysis, [np.flatnonzero(gates >= 0) for gates in per_class])
        self._gates = per_class
        self._regions = regions
        self._inputs: dict[int, str] = {}
        self._vectors: list[GateVector] = []
        self._done: dict[tuple[str, str, int], str] = {}

    def build(self) -> Gated:
        """The model with gates."""
        for replacement, gate in self._regions:
            self._region(replacement, gate)
        return Gated(self.run(), tuple(self._vectors))

    def zero(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node read positions of dimension ``dim`` times their gates."""
        tensor = node.inputs[index]
        owner = self._analysis.coupling.class_of.get(self._analysis.coupling.axes.id(tensor, dim))
        if owner is None or not len(self._removed[owner]):
            return
        proto = self._draft.graph.node[node.index]
        key = (scope_of(proto), proto.input[index], dim)
        if key in self._done:
            proto.input[index] = self._done[key]
            return
        if owner not in self._inputs:
            self._inputs[owner] = self._input("gates", self._gates[owner])
        rank = len(self._analysis.graph.shapes.extents[tensor])
        shape = [-1 if d == dim else 1 for d in range(rank)]
        factor = self._factor(self._inputs[owner], shape, tensor, self._before.setdefault(node.index, []))
        self._insert(node, index, "Mul", [key[1], factor], {})
        self._done[key] = proto.input[index]

    def keep_only(self, node: Node, index: int, dim: int) -> None:
        """Not by a factor: such classes have no gates."""
        assert self.removed(node.inputs[index], dim) is None, "what has to be seen by fewer positions has no gates"

    def _region(self, replacement: Replacement, gate: int) -> None:
        """A region times its gate, and for an identity its entry times the rest."""
        graph: Graph = self._analysis.graph
        entry, exit = replacement.entry, replacement.exit
        maker = graph.producer[exit]
        shape = [1] * len(graph.shapes.extents[exit])
        after = self._after.setdefault(maker, [])
        factor = self._factor(self._input("gate", np.array([gate], dtype=np.int64)), shape, exit, after)
        result = self._draft.unique_name(f"{exit}_gated")
        if replacement.kind == "nothing":
            after.append(helper.make_node("Mul", [exit, factor], [result]))
        else:
            kept, rest, passed = (self._draft.unique_name(f"{exit}_{word}") for word in ("kept", "rest", "passed"))
            one = self._constant("one", np.ones((), dtype=self._dtype(exit)))
            after += [
                helper.make_node("Mul", [exit, factor], [kept]),
                helper.make_node("Sub", [one, factor], [rest]),
                helper.make_node("Mul", [entry, rest], [passed]),
                helper.make_node("Add", [kept, passed], [result]),
            ]
        for index in graph.consumers.get(exit, []):
            proto = self._draft.graph.node[index]
            for place, name in enumerate(proto.input):
                if name == exit:
                    proto.input[place] = result

    def _input(self, base: str, gates: IntArray) -> str:
        name = self._draft.unique_name(base)
        self._draft.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [len(gates)]))
        self._vectors.append(GateVector(name, gates))
        return name

    def _factor(self, name: str, shape: Sequence[int], like: str, nodes: list[NodeProto]) -> str:
        """A vector of gates as a factor of this shape, in the type of a tensor."""
        target = self._constant("gate_shape", np.array(shape, dtype=np.int64))
        found = self._draft.unique_name(f"{name}_factor")
        nodes.append(helper.make_node("Reshape", [name, target], [found]))
        elem_type = self._analysis.graph.shapes.elem_types.get(like, TensorProto.FLOAT)
        if elem_type == TensorProto.FLOAT:
            return found
        cast = self._draft.unique_name(f"{name}_cast")
        nodes.append(helper.make_node("Cast", [found], [cast], to=elem_type))
        return cast
