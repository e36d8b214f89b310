"""What any part of a graph costs: work, weights, live activations, file, traffic and time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.control_flow import DOMAIN, border_number, scope_of
from onnxprune.ir.elements import BITS
from onnxprune.ir.graph import Graph
from onnxprune.latency.model import LatencyProfile
from onnxprune.latency.times import Capacity
from onnxprune.splitting.cuts import Flow, bits

FloatArray = NDArray[np.float64]


CODINGS = ("plain", "float16", "int8", "packed")
"""How tensors go over the wire: as they are; floats in two bytes, or in one; and these bytes packed by zlib."""
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def bytes_each(elem_type: int, coding: str = "plain") -> float:
    """Bytes of an element on the wire, NaN where it has no width; what packing leaves is told by samples alone."""
    if coding == "plain" or elem_type not in _FLOATS:
        return BITS.get(elem_type, math.nan) / 8
    return 2.0 if coding == "float16" else 1.0


@dataclass(frozen=True)
class PartCost:
    """What a part of a graph takes.

    Attributes:
        macs: multiply-accumulates.
        weights: bytes of its weights; what several parts need counts in each.
        peak: bytes of the activations that are alive at one time at most, with what it receives and hands on; infinite
            where the size of one is not known.
        file: bytes of its file, nearly.
        traffic: bytes of weights and of what its nodes read and write, each time.
    """

    macs: float
    weights: float
    peak: float
    file: float
    traffic: float

    @property
    def memory(self) -> float:
        """Bytes of weights and live activations."""
        return self.weights + self.peak

    @property
    def intensity(self) -> float:
        """Multiply-accumulates per byte of traffic."""
        return self.macs / self.traffic if self.traffic else 0.0

    def roofline(self, capacity: Capacity) -> float:
        """Seconds that no program on such a machine can go below."""
        return max(self.macs / capacity.macs, self.traffic / capacity.bandwidth)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; None for what is not known."""
        found = {**asdict(self), "memory": self.memory, "intensity": self.intensity}
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


class Ledger:
    """Costs of any set of nodes of a model, whose graph is the analysed one with bodies closed."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self.graph = graph = Graph(analysis.model, analysis.shapes)
        self.flow = flow = Flow(graph)
        count = len(graph.nodes)
        self._macs = _macs(analysis, graph)
        self._own = np.array([node.proto.ByteSize() for node in graph.nodes], dtype=np.float64)
        constants = _constants_behind(graph)
        users: dict[str, int] = {}
        for index in flow.computing:
            for name in {w for read in graph.nodes[index].reads for w in constants.get(read, ())}:
                users[name] = users.get(name, 0) | 1 << index
        #: Bytes of the weights of each node alone; and of those that several read, with these.
        self._weights = np.zeros(count)
        self._shared: list[tuple[int, float]] = []
        for name, nodes in users.items():
            weight = analysis.model.weights[name]
            size = math.prod(weight.shape) * BITS.get(weight.elem_type, 0) / 8
            if nodes.bit_count() > 1:
                self._shared.append((nodes, size))
            else:
                self._weights[nodes.bit_length() - 1] += size
        self.sizes = np.array([self.bytes_of(name) for name in flow.tensors])
        self._traffic = np.zeros(count)
        pairs = [(place, reader) for reader in flow.computing for place in bits(flow.reads[reader])]
        for at, reader in pairs:
            self._traffic[reader] += self.sizes[at]
        for index in flow.computing:
            self._traffic[index] += sum(self.sizes[at] for at in bits(flow.makes[index]))
        pairs.sort(key=lambda pair: pair[1])
        self._read = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        self._maker = np.array([graph.producer.get(name, -1) for name in flow.tensors], dtype=np.int64)
        outputs = set(graph.outputs)
        self._is_output = np.array([name in outputs for name in flow.tensors], dtype=np.bool_)

    def bytes_of(self, tensor: str, coding: str = "plain") -> float:
        """Bytes of a tensor in a coding; NaN where its shape is not known."""
        shapes = self.graph.shapes
        shape = shapes.extents.get(tensor)
        each = bytes_each(shapes.elem_types.get(tensor, TensorProto.FLOAT), coding)
        return math.nan if shape is None else math.prod(shape) * each

    def mask(self, nodes: int) -> NDArray[np.bool_]:
        """A set of nodes as one truth value for each."""
        count = len(self.graph.nodes)
        packed = np.frombuffer(nodes.to_bytes(count // 8 + 1, "little"), dtype=np.uint8)
        return np.unpackbits(packed, bitorder="little", count=count).astype(np.bool_)

    def part(self, nodes: int) -> PartCost:
        """What a set of nodes costs by itself."""
        inside = self.mask(nodes)
        weights = float(self._weights[inside].sum()) + sum(size for users, size in self._shared if users & nodes)
        own = float(self._own[inside].sum())
        return PartCost(
            macs=float(self._macs[inside].sum()),
            weights=weights,
            peak=self._peak(inside),
            file=weights + own,
            traffic=weights + float(self._traffic[inside].sum()),
        )

    def own_weights(self, nodes: int) -> float:
        """Bytes of the weights that single nodes of a set read, and no others."""
        return float(self._weights[self.mask(nodes)].sum())

    def seconds(self, profile: LatencyProfile) -> FloatArray:
        """Seconds of every node, which make up what the whole takes; what is between nodes goes to all alike."""
        first = (next((name for name in node.outputs if name), "") for node in self.graph.nodes)
        found = np.array([profile.nodes.get(name, 0.0) for name in first])
        total = float(found.sum())
        if total <= 0:
            # The runtime does not tell of single nodes: by their work.
            found, total = self._macs + 1e-9, float(self._macs.sum()) + 1e-9 * len(self._macs)
        return found * (profile.baseline.median / total)

    def _peak(self, inside: NDArray[np.bool_]) -> float:
        """Bytes alive at most while the nodes of a part run in order: what comes in is there from the beginning, what
        others or nobody reads of it stays to the end."""
        end = len(inside)
        last = np.full(len(self.sizes), -1, dtype=np.int64)
        here = inside[self._read[:, 1]]
        last[self._read[here, 0]] = self._read[here, 1]  # of several, the last one counts
        made = np.zeros(len(self.sizes), dtype=np.bool_)
        known = self._maker >= 0
        made[known] = inside[self._maker[known]]
        outside = np.zeros(len(self.sizes), dtype=np.bool_)
        outside[self._read[~here, 0]] = True
        last[made & (outside | self._is_output)] = end - 1
        held = made | (last >= 0)
        first = np.where(made, self._maker, 0)[held]
        until = np.maximum(last, np.where(made, self._maker, 0))[held]
        change = np.zeros(end + 1)
        sizes = self.sizes[held]
        if np.isnan(sizes).any():
            return math.inf
        np.add.at(change, first, sizes)
        np.add.at(change, until + 1, -sizes)
        return float(np.cumsum(change).max(initial=0.0))


def _constants_behind(graph: Graph) -> dict[str, frozenset[str]]:
    """The weights that each constant tensor follows from."""
    found = {name: frozenset((name,)) for name in graph.model.weights}
    for node in graph.nodes:
        if node.outputs and graph.constants.issuperset(name for name in node.outputs if name):
            behind = frozenset(w for name in node.reads for w in found.get(name, ()))
            found.update(dict.fromkeys(node.outputs, behind))
    return found


def _macs(analysis: Analysis, closed: Graph) -> FloatArray:
    """Multiply-accumulates of each node; those of layers in a body count for the node that holds it."""
    found = np.zeros(len(closed.nodes))
    costs = analysis.costs
    opened = analysis.graph.nodes
    holders: Mapping[int, str] = {
        border_number(node.proto): node.outputs[0]
        for node in opened
        if node.domain == DOMAIN and not scope_of(node.proto)
    }
    for layer, macs in zip(costs.layers, costs.per_layer("flops", costs.full), strict=True):
        node = opened[layer.node]
        scope = scope_of(node.proto)
        name = holders[int(scope.split(".")[0])] if scope else node.outputs[0]
        found[closed.producer[name]] += float(macs)
    return found
