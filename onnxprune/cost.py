"""What a graph costs, as cheap functions of how many positions every class keeps.

Every cost is a sum of products: a coefficient times the kept counts of up to four classes. Planning asks for such
sums thousands of times, so they are held as arrays.

Parameters are elements of weights, FLOPs are multiply-accumulates (the field's habit), memory is bytes of weights
plus bytes of output activations, all for the batch size of the shapes that the graph was analysed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from onnxprune.coupling import Coupling
from onnxprune.graph import UnknownShapeError
from onnxprune.ops import Contraction, Registry
from onnxprune.relations import IntArray

Metric = Literal["params", "flops", "memory"]
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


@dataclass(frozen=True)
class CostModel:
    """The costs of a graph as functions of kept counts."""

    layers: tuple[Layer, ...]
    params: Terms
    flops: Terms
    memory: Terms
    liveness: Liveness
    full: IntArray

    def terms(self, metric: Metric) -> Terms:
        """The terms of one metric."""
        return {"params": self.params, "flops": self.flops, "memory": self.memory}[metric]

    def per_layer(self, metric: Metric, kept: IntArray) -> FloatArray:
        """The metric of every layer, in the order of ``layers``."""
        terms = self.terms(metric)
        sums = np.bincount(terms.owner, weights=terms.values(kept), minlength=len(self.layers) + 1)
        return sums[: len(self.layers)]

    def total(self, metric: Metric, kept: IntArray) -> float:
        """The metric of the whole model."""
        return float(self.terms(metric).values(kept).sum())

    def peak_activations(self, kept: IntArray) -> float:
        """The largest sum of bytes of activations alive at one time, executing node by node."""
        profile = self.liveness.profile(kept)
        return float(profile.max()) if len(profile) else 0.0


def cost_model(coupling: Coupling, registry: Registry) -> CostModel:
    """Collect the cost terms of every node, weight and activation of the analysed graph."""
    graph = coupling.graph
    types = graph.shapes.elem_types
    layers: list[Layer] = []
    owner_of_weight: dict[str, int] = {}
    flops, params, memory = _TermList(coupling), _TermList(coupling), _TermList(coupling)
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
        for weight in layer.weights:
            owner_of_weight.setdefault(weight, layer.index)
        flops.add(contraction.factor, contraction.axes, layer.index)
        shape = graph.shapes.extents[contraction.output]
        item = _item_size(types.get(contraction.output, TensorProto.FLOAT))
        memory.add(item, [(contraction.output, d) for d in range(len(shape))], layer.index)
    rest = len(layers)
    for name, weight in graph.model.weights.items():
        axes = [(name, dim) for dim in range(len(weight.shape))]
        owner = owner_of_weight.get(name, rest)
        if weight.elem_type not in _NOT_PARAMETERS:
            params.add(1.0, axes, owner)
        memory.add(_item_size(weight.elem_type), axes, owner)
    full = np.append(coupling.extents, 1)
    return CostModel(tuple(layers), params.done(), flops.done(), memory.done(), _liveness(coupling), full)


def _layer(coupling: Coupling, index: int, node: int, contraction: Contraction) -> Layer:
    graph = coupling.graph
    weights = tuple(w for w in (graph.weight_behind(name) for name in contraction.weights) if w is not None)
    axis = coupling.axes.id(contraction.output, contraction.out_dim)
    proto = graph.nodes[node]
    return Layer(index, node, proto.name, proto.op_type, contraction.kind, axis, weights)


class _TermList:
    """Collects terms; extents that no removal reaches go into the coefficient."""

    _WIDTH = 4

    def __init__(self, coupling: Coupling) -> None:
        self._coupling = coupling
        self._one = len(coupling.members)
        self._coefficients: list[float] = []
        self._classes: list[list[int]] = []
        self._owners: list[int] = []

    def add(self, coefficient: float, axes: Sequence[tuple[str, int]], owner: int) -> None:
        numbering = self._coupling.axes
        classes: list[int] = []
        for tensor, dim in axes:
            axis = numbering.id(tensor, dim)
            index = self._coupling.class_of.get(axis)
            relative = self._coupling.relative.get(axis)
            if index is not None and len(classes) < self._WIDTH:
                classes.append(index)
            elif relative is not None and len(classes) < self._WIDTH:
                classes.append(relative[0])
                coefficient /= relative[1]
            else:
                coefficient *= numbering.extents[axis]
        self._coefficients.append(coefficient)
        self._classes.append(classes + [self._one] * (self._WIDTH - len(classes)))
        self._owners.append(owner)

    def done(self) -> Terms:
        return Terms(
            np.array(self._coefficients, dtype=np.float64),
            np.array(self._classes, dtype=np.int64).reshape(-1, self._WIDTH),
            np.array(self._owners, dtype=np.int64),
        )


def _liveness(coupling: Coupling) -> Liveness:
    graph = coupling.graph
    sizes = _TermList(coupling)
    first: list[int] = []
    last: list[int] = []
    outputs = set(graph.outputs)
    end = max(len(graph.nodes) - 1, 0)
    for name, shape in graph.shapes.extents.items():
        if name in graph.constants or (name not in graph.producer and name not in graph.inputs):
            continue
        item = _item_size(graph.shapes.elem_types.get(name, TensorProto.FLOAT))
        sizes.add(item, [(name, dim) for dim in range(len(shape))], 0)
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
    if elem_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0.0
    packed = {"INT4": 0.5, "UINT4": 0.5, "FLOAT4E2M1": 0.5, "INT2": 0.25, "UINT2": 0.25}
    name = TensorProto.DataType.Name(elem_type)
    return packed[name] if name in packed else float(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize)
