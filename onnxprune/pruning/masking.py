"""The masked original: all channels are there, but the removed ones have no effect.

It is what pruned models are compared with, and is therefore built without the code that shrinks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.control_flow import close_bodies, insert_nodes
from onnxprune.ir.graph import Node
from onnxprune.ir.model import Draft, Model
from onnxprune.ops.relations import IntArray


def masked(analysis: Analysis, per_class: Sequence[IntArray], *, exact_norm: bool = False) -> Model:
    """The original with all channels, blind to the removed ones.

    With ``exact_norm``, normalisations that can be mended read removed channels as zero; else not at all.
    """
    masker = GraphMasker(analysis, per_class, exact_norm=exact_norm)
    return masker.run()


class GraphMasker:
    """Builds the masked original: what operators may do to it (see ``ops.base.Masker``)."""

    def __init__(self, analysis: Analysis, per_class: Sequence[IntArray], *, exact_norm: bool = False) -> None:
        self.exact_norm = exact_norm
        self._analysis = analysis
        self._removed = per_class
        self._draft: Draft = analysis.graph.model.edit()
        self._before: dict[int, list[NodeProto]] = {}
        self._after: dict[int, list[NodeProto]] = {}

    def run(self) -> Model:
        """Mask every node that reads a removed position."""
        coupling, graph = self._analysis.coupling, self._analysis.graph
        touched: set[int] = set()
        for members, positions in zip(coupling.members, self._removed, strict=True):
            for axis in members if len(positions) else ():
                touched.update(graph.consumers.get(coupling.axes.tensor(axis), ()))
        for index in sorted(touched):
            operator = self._analysis.registry.find(graph.nodes[index])
            if operator is not None:
                operator.mask(graph.nodes[index], self)
        insert_nodes(self._draft, self._before, self._after)
        return close_bodies(self._draft.finish())

    def removed(self, tensor: str, dim: int) -> IntArray | None:
        """The positions that go from an axis, or None if none does."""
        owner = self._analysis.coupling.class_of.get(self._analysis.coupling.axes.id(tensor, dim))
        return None if owner is None or not len(self._removed[owner]) else self._removed[owner]

    def zero(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node read zeros at the removed positions of dimension ``dim``."""
        gone = self.removed(node.inputs[index], dim)
        if gone is None:
            return
        proto = self._draft.graph.node[node.index]
        name = proto.input[index]
        weight = self._draft.weights.get(name)
        if weight is not None:
            array = weight.array.copy()
            array[(slice(None),) * dim + (gone,)] = 0
            proto.input[index] = self._draft.add_weight(self._draft.unique_name(f"{name}_masked"), array).name
            return
        shape = self._analysis.graph.shapes.extents[node.inputs[index]]
        mask = np.ones([n if d == dim else 1 for d, n in enumerate(shape)], dtype=self._dtype(node.inputs[index]))
        mask[(slice(None),) * dim + (gone,)] = 0
        self._insert(node, index, "Mul", [name, self._constant(f"{name}_mask", mask)], {})

    def keep_only(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node see only the kept positions of dimension ``dim``."""
        tensor = node.inputs[index]
        gone = self.removed(tensor, dim)
        if gone is not None:
            kept = np.delete(np.arange(self._analysis.graph.shapes.extents[tensor][dim], dtype=np.int64), gone)
            name = self._draft.graph.node[node.index].input[index]
            self._insert(node, index, "Gather", [name, self._constant(f"{tensor}_kept", kept)], {"axis": dim})

    def restore(self, node: Node, index: int, dim: int, like: tuple[str, int]) -> None:
        """Spread output ``index`` over its full extent again; what stands at removed positions does not matter."""
        gone = self.removed(*like)
        if gone is None:
            return
        extent = self._analysis.graph.shapes.extents[like[0]][like[1]]
        place = np.zeros(extent, dtype=np.int64)
        kept = np.delete(np.arange(extent), gone)
        place[kept] = np.arange(len(kept))
        proto = self._draft.graph.node[node.index]
        inner = self._draft.unique_name(f"{proto.output[index]}_kept")
        outer = proto.output[index]
        spread = helper.make_node("Gather", [inner, self._constant(f"{outer}_spread", place)], [outer], axis=dim)
        proto.output[index] = inner
        self._after.setdefault(node.index, []).insert(0, spread)

    def _insert(
        self, node: Node, index: int, op_type: str, inputs: Sequence[str], attributes: Mapping[str, Any]
    ) -> None:
        result = self._draft.unique_name(f"{inputs[0]}_masked")
        self._before.setdefault(node.index, []).append(helper.make_node(op_type, inputs, [result], **attributes))
        self._draft.graph.node[node.index].input[index] = result

    def _constant(self, base: str, value: NDArray[Any]) -> str:
        return self._draft.add_weight(self._draft.unique_name(base), value).name

    def _dtype(self, tensor: str) -> Any:
        return helper.tensor_dtype_to_np_dtype(self._analysis.graph.shapes.elem_types.get(tensor, TensorProto.FLOAT))
