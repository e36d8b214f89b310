"""What a graph costs, as cheap functions of how many positions every class keeps.

Every cost is a sum of products: a coefficient times the kept counts of up to four classes. Planning asks for such
sums thousands of times, so they are held as arrays.

What is measured instead of counted, latency, joins as one more :class:`MetricFunction`.

Parameters are elements of weights, FLOPs are multiply-accumulates (the field's habit), memory is bytes of weights
plus bytes of output activations, all for the batch size of the shapes that the graph was analysed with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxprune.analysis.coupling import Coupling
from onnxprune.ir.elements import BITS
from onnxprune.ir.graph import UnknownShapeError
from onnxprune.ops import Contraction, Registry
from onnxprune.ops.relations import IntArray

Metric = Literal["params", "flops", "memory", "latency", "wire"]
#: What is counted on every graph. Latency is there only where a profile was measured, the wire where a cut is named.
METRICS: tuple[Metric, ...] = ("params", "flops", "memory")
FloatArray = NDArray[np.float64]

_NOT_PARAMETERS = frozenset(
    {TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING, TensorProto.UNDEFINED}
)


@dataclass(frozen=True)
class Layer:
    """A Conv, ConvTranspose, Gemm or MatMul: a layer in the sense of the paper.

    ``output_axis`` is the axis of its filters (the producer axis as its output carries it).
    """

    index: int
    node: int
    name: str
    op_type: str
    kind: str
    output_axis: int
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Terms:
    """``coefficient · Π kept[classes]`` per row, and the row's layer (``len(layers)`` for what belongs to none)."""

    coefficient: FloatArray
    classes: IntArray
    owner: IntArray

    def values(self, kept: IntArray) -> FloatArray:
        """The terms at these kept counts (one per class, and a 1 at the end)."""
        factors: FloatArray = self.coefficient * kept[self.classes].prod(axis=1)
        return factors

    def gradient(self, kept: IntArray) -> FloatArray:
        """The derivative of their sum by every kept count."""
        counts = kept[self.classes].astype(np.float64)
        found = np.zeros(len(kept))
        for column in range(self.classes.shape[1]):
            others = np.delete(counts, column, axis=1).prod(axis=1)
            found += np.bincount(self.classes[:, column], weights=self.coefficient * others, minlength=len(kept))
        found[-1] = 0.0
        return found


@dataclass(frozen=True)
class Liveness:
    """Bytes of every activation, and the nodes between which it is alive."""

    size: Terms
    first: IntArray
    last: IntArray
    steps: int

    def profile(self, kept: IntArray) -> FloatArray:
        """Live bytes while each node executes."""
        sizes = self.size.values(kept)
        change = np.zeros(self.steps + 1)
        np.add.at(change, self.first, sizes)
        np.add.at(change, self.last + 1, -sizes)
        return np.cumsum(change)[:-1]


class MetricFunction(Protocol):
    """A cost as a function of kept counts (one per class, and a 1 at the end), which may be fractions."""

    def per_layer(self, kept: IntArray) -> FloatArray:
        """The share of every layer, in the order of the cost model's ``layers``."""

    def total(self, kept: IntArray) -> float:
        """The whole model, with what belongs to no layer. Never grows when counts fall."""


@dataclass(frozen=True)
class CostModel:
    """The costs of a graph as functions of kept counts; ``measured`` holds those that are not counted."""

    layers: tuple[Layer, ...]
    params: Terms
    flops: Terms
    memory: Terms
    liveness: Liveness
    full: IntArray
    measured: Mapping[Metric, MetricFunction] = field(default_factory=dict)

    def with_measured(self, metric: Metric, function: MetricFunction) -> CostModel:
        """The same with one more metric."""
        return replace(self, measured={**self.measured, metric: function})

    def terms(self, metric: Metric) -> Terms:
        """The terms of a counted metric."""
        return {"params": self.params, "flops": self.flops, "memory": self.memory}[metric]

    def per_layer(self, metric: Metric, kept: IntArray) -> FloatArray:
        """The metric of every layer, in the order of ``layers``."""
        if metric in self.measured:
            return self.measured[metric].per_layer(kept)
        terms = self.terms(metric)
        sums = np.bincount(terms.owner, weights=terms.values(kept), minlength=len(self.layers) + 1)
        return sums[: len(self.layers)].astype(np.float64, copy=False)

    def gradient(self, metric: Metric, kept: IntArray) -> FloatArray:
        """What one position more of every class costs (0 for the 1 at the end), for a counted metric."""
        return self.terms(metric).gradient(kept)

    def total(self, metric: Metric, kept: IntArray) -> float:
        """The metric of the whole model."""
        if metric in self.measured:
            return self.measured[metric].total(kept)
        return float(self.terms(metric).values(kept).sum())

    def peak_activations(self, kept: IntArray) -> float:
        """The largest sum of bytes of activations alive at one time, executing node by node."""
        profile = self.liveness.profile(kept)
        return float(profile.max()) if len(profile) else 0.0


def cost_model(coupling: Coupling, registry: Registry) -> CostModel:
    """Collect the cost terms of every node, weight and activation of the analysed graph."""
    graph = coupling.graph
    types = graph.shapes.elem_types
    classes = _classes_of_axes(coupling)
    layers: list[Layer] = []
    owner_of_weight: dict[str, int] = {}
    flops, params, memory = _TermList(classes), _TermList(classes), _TermList(classes)
    for node in graph.nodes:
        operator = registry.find(node)
        try:
            contraction = operator.cost(node) if operator is not None else None
        except (UnknownShapeError, ValueError, IndexError):
            contraction = None
        if contraction is None or contraction.output not in coupling.axes or contraction.output in graph.constants:
            continue
        layer = _layer(coupling, len(layers), node.index, contraction)
        layers.append(layer)
        for name in layer.weights:
            owner_of_weight.setdefault(name, layer.index)
        for factor, extents in ((contraction.factor, contraction.axes), *contraction.also):
            flops.add(factor, [coupling.axes.id(tensor, dim) for tensor, dim in extents], layer.index)
        rank = len(graph.shapes.extents[contraction.output])
        item = _item_size(types.get(contraction.output, TensorProto.FLOAT))
        memory.add(item, coupling.axes.axes_of(contraction.output, rank), layer.index)
    rest = len(layers)
    for name, weight in graph.model.weights.items():
        axes = coupling.axes.axes_of(name, len(weight.shape))
        owner = owner_of_weight.get(name, rest)
        if weight.elem_type not in _NOT_PARAMETERS:
            params.add(1.0, axes, owner)
        memory.add(_item_size(weight.elem_type), axes, owner)
    full = np.append(coupling.extents, 1)
    return CostModel(tuple(layers), params.done(), flops.done(), memory.done(), _liveness(coupling, classes), full)


def extent_terms(coupling: Coupling, rows: Iterable[tuple[float, Sequence[int], int]]) -> Terms:
    """Terms of rows (coefficient, axes by number, owner): each the coefficient times the extents of the axes."""
    terms = _TermList(_classes_of_axes(coupling))
    for coefficient, axes, owner in rows:
        terms.add(coefficient, axes, owner)
    return terms.done()


def _layer(coupling: Coupling, index: int, node: int, contraction: Contraction) -> Layer:
    graph = coupling.graph
    weights = tuple(w for w in (graph.weight_behind(name) for name in contraction.weights) if w is not None)
    axis = coupling.axes.id(contraction.output, contraction.out_dim)
    proto = graph.nodes[node]
    return Layer(index, node, proto.name, proto.op_type, contraction.kind, axis, weights)


@dataclass(frozen=True)
class _AxisClasses:
    """By axis number: the extent, the class whose kept count replaces it (-1: none), and what that is divided by.

    ``count`` is the number of classes.
    """

    extent: IntArray
    class_of: IntArray
    divisor: IntArray
    count: int


def _classes_of_axes(coupling: Coupling) -> _AxisClasses:
    count = len(coupling.axes)
    class_of, divisor = np.full(count, -1, dtype=np.int64), np.ones(count, dtype=np.int64)
    for axis, (owner, blocks) in coupling.relative.items():
        class_of[axis], divisor[axis] = owner, blocks
    candidates = list(coupling.class_of)
    class_of[candidates], divisor[candidates] = list(coupling.class_of.values()), 1
    extent = np.array(coupling.axes.extents, dtype=np.int64)
    return _AxisClasses(extent, class_of, divisor, len(coupling.members))


class _TermList:
    """Collects terms; extents that no removal reaches go into the coefficient."""

    _WIDTH = 4

    def __init__(self, classes: _AxisClasses) -> None:
        self._classes = classes
        self._coefficients: list[float] = []
        self._axes: list[int] = []
        self._lengths: list[int] = []
        self._owners: list[int] = []

    def add(self, coefficient: float, axes: Sequence[int], owner: int) -> None:
        """The product of a coefficient and the extents of axes (by number)."""
        self._coefficients.append(coefficient)
        self._axes.extend(axes)
        self._lengths.append(len(axes))
        self._owners.append(owner)

    def done(self) -> Terms:
        """All terms at once: there are thousands, which would take long one by one."""
        known = self._classes
        axes = np.array(self._axes, dtype=np.int64)
        lengths = np.array(self._lengths, dtype=np.int64)
        row = np.repeat(np.arange(len(lengths)), lengths)
        shrinks = known.class_of[axes] >= 0
        # Each shrinking axis takes the next column of its row; what exceeds the columns counts as fixed.
        before = np.append(0, np.cumsum(shrinks))
        column = before[:-1] - before[(np.cumsum(lengths) - lengths)[row]]
        shrinks &= column < self._WIDTH
        classes = np.full((len(lengths), self._WIDTH), known.count, dtype=np.int64)
        classes[row[shrinks], column[shrinks]] = known.class_of[axes[shrinks]]
        coefficient = np.array(self._coefficients, dtype=np.float64)
        np.divide.at(coefficient, row[shrinks], known.divisor[axes[shrinks]])
        np.multiply.at(coefficient, row[~shrinks], known.extent[axes[~shrinks]])
        return Terms(coefficient, classes, np.array(self._owners, dtype=np.int64))


def _liveness(coupling: Coupling, classes: _AxisClasses) -> Liveness:
    graph, axes = coupling.graph, coupling.axes
    sizes = _TermList(classes)
    first: list[int] = []
    last: list[int] = []
    outputs = set(graph.outputs)
    end = max(len(graph.nodes) - 1, 0)
    for name, shape in graph.shapes.extents.items():
        if name in graph.constants or (name not in graph.producer and name not in graph.inputs):
            continue
        item = _item_size(graph.shapes.elem_types.get(name, TensorProto.FLOAT))
        sizes.add(item, axes.axes_of(name, len(shape)), 0)
        born = graph.producer.get(name, 0)
        first.append(born)
        last.append(end if name in outputs else max(graph.consumers.get(name, [born])))
    return Liveness(
        sizes.done(),
        np.array(first, dtype=np.int64),
        np.array(last, dtype=np.int64),
        max(len(graph.nodes), 1),
    )


def _item_size(elem_type: int) -> float:
    """Bytes per value, as ONNX packs them; none for strings, whose lengths are not known."""
    return BITS.get(elem_type, 0) / 8
