"""The memory that activations take in onnxruntime: planned over the graph that it runs, by the rules of its planner.

That graph has fused nodes, and tensors in the blocked layout of its convolutions (channels filled up to whole blocks,
and copied on the way in and out), which a plan of the model as it is written does not know. Tensors are taken from the
system and given back (the runtime's own arena keeps more for later runs). Followed is onnxruntime's
``SequentialPlanner`` (core/framework/allocation_planner.cc): what has a use left is not written over; what has none is
taken by the next result of the same shape, and is held until then.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto

from onnxprune.analysis.analyzing import InputShapes
from onnxprune.analysis.arena import Arena
from onnxprune.analysis.binding import find_binding
from onnxprune.ir.elements import BITS
from onnxprune.ir.model import ModelLike, as_model
from onnxprune.ir.optimised import Optimised, optimised
from onnxprune.ops import elementwise, reshaping
from onnxprune.passes.normalize import normalize

#: Bytes of an element of what convolutions work in, and of what they take for a part of their features at a time.
_FLOAT, _PART = 4, 1 << 16
_SUM = 3
"""The input of a fused convolution that its result is added to, and written over."""


def taken(model: ModelLike, input_shapes: InputShapes | None = None) -> Arena:
    """Plan the memory of a model's activations as onnxruntime does on this processor, without the inputs of the graph.

    Both figures are the most that is alive at one time: tensors are apart from each other.

    Args:
        model: a Model, ModelProto or path.
        input_shapes: of inputs with open extents.

    Raises:
        VerificationError: onnxruntime does not load it.
        ShapeError: a shape depends on data.
    """
    source = normalize(as_model(model))
    plan = _Plan(optimised(source, find_binding(source, input_shapes).shapes))
    for index, node in enumerate(plan.graph.nodes):
        plan.step(index, node)
    peak = plan.peak()
    return Arena(peak, peak)


@dataclass
class _Buffer:
    """Bytes, the nodes between which they are held, and how many uses are left of what is in them."""

    size: int
    first: int
    last: int
    uses: int = 0


@dataclass
class _Plan:
    """Buffers, what they hold, and those that are free to be taken, the latest first."""

    graph: Optimised
    buffers: list[_Buffer] = field(default_factory=list)
    held: dict[str, _Buffer] = field(default_factory=dict)
    free: list[tuple[str, _Buffer]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._uses: dict[str, int] = {}
        for name in (*(name for node in self.graph.nodes for name in node.input if name), *self.graph.outputs):
            self._uses[name] = self._uses.get(name, 0) + 1
        for name in self.graph.inputs:
            # The caller's: never written over, and not counted.
            self.held[name] = _Buffer(0, 0, 0, self._uses.get(name, 0) + 1)

    def step(self, index: int, node: NodeProto) -> None:
        """Give each result of a node a place, and free what has no use left."""
        for place, name in enumerate(node.output):
            if name:
                buffer = self._found(node, name, place) or self._new(name, index)
                buffer.uses += self._uses.get(name, 0)
                buffer.last = max(buffer.last, index)
                self.held[name] = buffer
        for name in node.input:
            if name in self.held:
                buffer = self.held[name]
                buffer.uses -= 1
                buffer.last = max(buffer.last, index)
                if buffer.uses == 0:
                    self.free.insert(0, (name, buffer))

    def peak(self) -> int:
        """The most bytes that are held at one time, with what a convolution takes beside."""
        steps = len(self.graph.nodes)
        change = np.zeros(steps + 2, dtype=np.int64)
        for name in self.graph.outputs:
            self.held[name].last = steps
        for buffer in self.buffers:
            change[buffer.first] += buffer.size
            change[buffer.last + 1] -= buffer.size
        live = np.cumsum(change)
        beside = [_beside(self.graph, node) for node in self.graph.nodes]
        return int(max((live[: len(beside)] + np.array(beside, dtype=np.int64)).max(initial=0), live[steps]))

    def _new(self, name: str, index: int) -> _Buffer:
        bits = BITS[self.graph.elem_types[name]]
        self.buffers.append(_Buffer(-(-math.prod(self.graph.extents[name]) * bits // 8), index, index))
        return self.buffers[-1]

    def _found(self, node: NodeProto, name: str, place: int) -> _Buffer | None:
        """The buffer that a result is written into, or is another view of; None where it gets one of its own."""
        if name in self.graph.outputs:
            return None
        if place == 0:
            if node.op_type in _VIEWS and node.input[0] in self.held:
                return self.held[node.input[0]]
            for read in _written_over(node):
                if read in self.held and self.held[read].uses == 1 and self._alike(read, name):
                    return self.held[read]
        for at, (other, buffer) in enumerate(self.free):
            if self._alike(other, name):
                del self.free[at]
                return buffer
        return None

    def _alike(self, one: str, other: str) -> bool:
        types, extents = self.graph.elem_types, self.graph.extents
        return extents[one] == extents[other] and BITS[types[one]] == BITS[types[other]]


_VIEWS = frozenset(t for o in reshaping.OPERATORS if isinstance(o, reshaping.Regrouping) for t in o.types) | {
    "Identity"
}
"""Operators whose result is what they read, under another shape."""
_OVER = frozenset((*elementwise.Unary.types, *elementwise.Broadcasting.types))


def _written_over(node: NodeProto) -> Iterator[str]:
    """What a node may write its result over."""
    if node.op_type in _OVER and not node.domain:
        yield from node.input[:2]
    elif node.domain and node.op_type.endswith("Conv"):
        yield from node.input[_SUM:]


def _beside(graph: Optimised, node: NodeProto) -> int:
    """Bytes that a convolution outside of the blocked layout takes for features laid out for a product of matrices.

    All of them where there are more filters than places, else a part at a time (``MlasConvPrepare``).
    """
    if not node.op_type.endswith("Conv") or node.domain.endswith("nchwc") or len(node.input) < 2:
        return 0
    weight = graph.weights.get(node.input[1])
    if weight is None or len(weight) < 3 or math.prod(weight[2:]) == 1:
        return 0
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    places = math.prod(graph.extents[node.output[0]][2:])
    return _FLOAT * places * math.prod(weight[1:]) if weight[0] // groups > places else _PART
