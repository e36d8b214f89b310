"""Where faults can be: the weights of a pruned model, and what is known of them; and what one fault is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.control_flow import close_bodies, open_bodies
from onnxprune.ir.model import Model
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.plan import Plan

Array: TypeAlias = NDArray[Any]

_TOUCHED = 0.8
"""How often a fault hits what the plan has touched, where there is a choice."""


_NAMED = 8
"""So many positions are named in a description."""


class Kind(Enum):
    """What kind of fault it is."""

    SWAPPED_FILTERS = "swapped filters"
    SWAPPED_INPUTS = "swapped inputs"
    ZEROED_CHANNEL = "zeroed channel"
    DROPPED_BIAS = "dropped bias"
    SHIFTED_SLICE = "shifted slice"
    WRONG_GROUP = "wrong group"
    STALE_QUANTISER = "stale quantiser"
    STALE_NORMALISER = "stale normaliser"
    SHIFTED_EXTENT = "shifted extent"
    SHIFTED_INDEX = "shifted index"


@dataclass(frozen=True)
class Mutation:
    """One fault: what it does to which tensor at which positions of which dimension, and the node that reads it.

    ``attribute`` names the node's attribute where the numbers are there (of old opsets); ``tensor`` is a weight of the
    pruned model with its bodies opened else. ``dim`` is None where the fault is not along one dimension.
    """

    kind: Kind
    node: str
    tensor: str
    dim: int | None
    positions: tuple[int, ...]
    description: str
    attribute: str | None = None
    index: int = field(default=-1, compare=False, repr=False)
    edit: Callable[[Array], Array] = field(default=np.array, compare=False, repr=False)

    def apply(self, model: Model) -> Model:
        """The pruned model that the mutation was drawn for, with the fault in it."""
        draft = open_bodies(model).edit()
        if self.attribute is None:
            weight = draft.weights[self.tensor]
            draft.weights[self.tensor] = weight.with_array(self.edit(weight.array))
        else:
            _set_numbers(draft.graph.node[self.index], self.attribute, self.edit)
        return close_bodies(draft.finish())

    def __str__(self) -> str:
        return self.description


def _set_numbers(node: NodeProto, name: str, edit: Callable[[Array], Array]) -> None:
    numbers = next(attribute.ints for attribute in node.attribute if attribute.name == name)
    changed = edit(np.array(numbers, dtype=np.int64)).tolist()
    del numbers[:]
    numbers.extend(changed)


@dataclass(frozen=True)
class Use:
    """A weight as input ``place`` of a node, the first that reads it."""

    node: int
    place: int
    tensor: str


class Miss:
    """A draw that hit something which this kind cannot change; another may succeed."""


MISS = Miss()
Draw: TypeAlias = "Mutation | Miss | None"


class Specimen:
    """The pruned model, opened, with what is known about its weights from the original and the plan."""

    def __init__(self, pruned: Model, analysis: Analysis, plan: Plan) -> None:
        self.model = open_bodies(pruned)
        self.analysis = analysis
        self.plan = plan
        self.nodes: Sequence[NodeProto] = self.model.graph.node
        self.uses: list[Use] = []
        seen: set[str] = set()
        for index, node in enumerate(self.nodes):
            for place, name in enumerate(node.input):
                if name in self.model.weights and name not in seen:
                    seen.add(name)
                    self.uses.append(Use(index, place, name))
        producers = (analysis.coupling.axes.axis(p.axis) for p in analysis.coupling.relations.producers)
        self.producers = {(axis.tensor, axis.dim) for axis in producers}
        self.channels = [use for use in self.uses if self.holds_values(use) and self.dims(use)]
        self.filters = [use for use in self.channels if self._sides(use, producer=True)]
        self.inputs = [use for use in self.channels if self._sides(use, producer=False)]

    def node_name(self, use: Use) -> str:
        """What to call the node that reads the weight."""
        node = self.nodes[use.node]
        name = node.name or next((output for output in node.output if output), f"node {use.node}")
        return f"{node.op_type} '{name}'"

    def array(self, use: Use) -> Array:
        """The values in the pruned model."""
        return self.model.weights[use.tensor].array

    def holds_values(self, use: Use) -> bool:
        weight = self.model.weights[use.tensor]
        return helper.tensor_dtype_to_np_dtype(weight.elem_type).kind == "f" or self.quantised(use)

    def quantised(self, use: Use) -> bool:
        """Whether a node of a quantised model reads the weight."""
        op_type = self.nodes[use.node].op_type
        return any(part in op_type for part in ("uantize", "QLinear", "QGemm", "Integer", "QAttention"))

    def dims(self, use: Use) -> list[int]:
        """The dimensions along which channels lie: those that can lose positions, and all of a filter's first two."""
        coupling, name = self.analysis.coupling, use.tensor
        shape = self.model.weights[name].shape
        found = set(range(min(2, len(shape)))) if len(shape) > 1 else set()
        if name in coupling.axes and len(self._original_shape(name)) == len(shape):
            found |= {dim for dim in range(len(shape)) if coupling.axes.id(name, dim) in coupling.class_of}
        return sorted(dim for dim in found if shape[dim] > 1)

    def _original_shape(self, name: str) -> tuple[int, ...]:
        return self.analysis.graph.shapes.extents.get(name, ())

    def _sides(self, use: Use, *, producer: bool) -> list[int]:
        return [dim for dim in self.dims(use) if self.makes(use.tensor, dim) is producer]

    def makes(self, tensor: str, dim: int) -> bool:
        """Whether positions along this dimension are what the layer puts out: filters, entries of vectors."""
        return len(self.model.weights[tensor].shape) == 1 or (tensor, dim) in self.producers

    def choose(self, uses: Sequence[Use], rng: np.random.Generator) -> Use | None:
        """One of the uses, each node as likely as another; mostly one that the plan has touched."""
        touched = [use for use in uses if use.tensor in self.plan.removed]
        pool = touched if touched and (len(touched) == len(uses) or rng.random() < _TOUCHED) else uses
        return pool[int(rng.integers(len(pool)))] if pool else None

    def kept(self, tensor: str) -> dict[int, IntArray] | None:
        """Positions of the original that the pruned weight has, by dimension; None where slices are not all of it.

        (The filters of grouped convolutions may each have lost other inputs.)
        """
        before = self.analysis.graph.model.weights.get(tensor)
        removed = self.plan.removed.get(tensor)
        if before is None or not removed:
            return None
        found = {
            dim: np.setdiff1d(np.arange(before.shape[dim]), positions)
            for dim, positions in removed.items()
            if dim < len(before.shape) and positions
        }
        shape = tuple(len(found[dim]) if dim in found else extent for dim, extent in enumerate(before.shape))
        return found if found and shape == self.model.weights[tensor].shape else None

    def original(self, tensor: str) -> Array:
        """The values in the original."""
        return self.analysis.graph.model.weights[tensor].array

    def mutation(
        self,
        kind: Kind,
        use: Use,
        what: str,
        edit: Callable[[Array], Array],
        dim: int | None = None,
        positions: Sequence[int] = (),
    ) -> Draw:
        """The mutation, if it changes the weight."""
        before = self.array(use)
        after = edit(before)
        if after.shape == before.shape and after.tobytes() == before.tobytes():
            return MISS
        at = "" if dim is None else f"[{dim}]"
        shown = ", ".join(map(str, positions[:_NAMED])) + (", …" if len(positions) > _NAMED else "")
        where = f"{kind.value}: {use.tensor}{at} of {self.node_name(use)}"
        text = f"{where}, {what}" + (f" ({shown})" if shown else "")
        return Mutation(kind, self.node_name(use), use.tensor, dim, tuple(positions), text, edit=edit)
