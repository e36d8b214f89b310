"""What is connected: depth, width, and how many ways lead from the inputs to the outputs.

A way goes from one channel of a layer to one of the next; positions within a feature map are not told apart, and each
graph input is one beginning. A layer with g groups leads from each of its input channels to C/g of its C filters.
Everything else passes ways on: sums, products and concatenations those of all their operands, and what selects a part
of its operand that part of them, as if they were spread evenly. What is counted is what is left after pruning, as in
"Connectivity Matters: Neural Network Pruning Through the Lens of Effective Sparsity", Vysogorets & Kempe,
arXiv 2107.02306: a weight counts if it lies on such a way. Structured pruning leaves no others, so that effective and
direct sparsity are the same here; depth, narrowest place and ways still tell how what is left is shared out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from onnxprune.analysis.cost import CostModel, Layer
from onnxprune.analysis.coupling import Coupling
from onnxprune.ir.graph import Graph, Node
from onnxprune.ops import Registry


@dataclass(frozen=True)
class Connectivity:
    """How a model is connected.

    Attributes:
        depth: layers with weights on the longest way from an input to an output.
        mean_depth: the same on average over all ways.
        width: the fewest channels through which everything goes that passes between the first and the last layer (a
            minimal cut; a map that several layers add into counts once); None if something leads past all layers.
        paths: the logarithm (base 10) of the number of ways; minus infinity without any.
    """

    depth: int
    mean_depth: float
    width: int | None
    paths: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``paths`` is None without any."""
        return {**asdict(self), "paths": self.paths if math.isfinite(self.paths) else None}

    def __str__(self) -> str:
        width = "" if self.width is None else f", {self.width:,} channels at the narrowest place"
        ways = f"10^{self.paths:.1f} ways" if math.isfinite(self.paths) else "no way"
        layers = "1 layer" if self.depth == 1 else f"{self.depth} layers"
        return f"{layers} deep ({self.mean_depth:.1f} on average){width}, {ways} through channels"


@dataclass(frozen=True)
class _Ways:
    """All ways from the inputs to a tensor: the logarithm of their number, longest and mean length in layers."""

    log: float
    longest: int
    mean: float

    @classmethod
    def joined(cls, ways: Iterable[_Ways]) -> _Ways | None:
        """Those of several tensors together; None without any."""
        known = [one for one in ways if one.log > -math.inf]
        if not known:
            return None
        if len(known) == 1:
            return known[0]
        most = max(one.log for one in known)
        shares = [math.exp(one.log - most) for one in known]
        mean = sum(share * one.mean for share, one in zip(shares, known, strict=True)) / sum(shares)
        return cls(most + math.log(sum(shares)), max(one.longest for one in known), mean)


def connectivity(coupling: Coupling, costs: CostModel, registry: Registry) -> Connectivity:
    """Depth, width and ways of an analysed graph."""
    graph = coupling.graph
    layers = {layer.node: layer for layer in costs.layers if layer.weights}
    ways: dict[str, _Ways] = {name: _Ways(0.0, 0, 0.0) for name in graph.inputs}
    for node in graph.nodes:
        operands = [ways[name] for name in dict.fromkeys(node.reads) if name in ways]
        found = _Ways.joined(operands)
        if found is None:
            continue
        layer = layers.get(node.index)
        if layer is not None:
            found = _Ways(found.log + math.log(_fan_out(coupling, layer)), found.longest + 1, found.mean + 1)
        for name in node.outputs:
            if name and name not in graph.constants:
                operator = registry.find(node)
                share = _part(node, name) if operator is not None and operator.selects else 0.0
                ways[name] = _Ways(found.log + share, found.longest, found.mean)
    end = _Ways.joined(ways[name] for name in dict.fromkeys(graph.outputs) if name in ways)
    if end is None:
        return Connectivity(0, 0.0, None, -math.inf)
    return Connectivity(end.longest, end.mean, _width(coupling, layers, ways), end.log / math.log(10))


def _fan_out(coupling: Coupling, layer: Layer) -> float:
    """How many filters each input channel of a layer leads to."""
    node = coupling.graph.nodes[layer.node]
    return max(coupling.axes.extents[layer.output_axis] / int(node.attr("group", 1)), 1.0)


def _part(node: Node, output: str) -> float:
    """The logarithm of the share of its first operand's values that an output selects."""
    extents = node.graph.shapes.extents
    if output not in extents or node.inputs[0] not in extents:
        return 0.0
    part, whole = math.prod(extents[output]), math.prod(extents[node.inputs[0]])
    return math.log(min(part / whole, 1.0)) if part and whole else 0.0


def _width(coupling: Coupling, layers: Mapping[int, Layer], ways: Mapping[str, _Ways]) -> int | None:
    """The minimal cut between inputs and outputs, in channels."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_flow

    graph = coupling.graph
    number = {name: 2 * place + 2 for place, name in enumerate(ways)}
    hidden = _before_layers(graph, layers)
    capacity = {name: _channels(coupling, name) for name in ways if ways[name].longest and name in hidden}
    capacity = {name: channels for name, channels in capacity.items() if channels}
    without = sum(capacity.values()) + 1
    # Each tensor is two points, and between them passes what it has channels for.
    edges = {(at, at + 1): capacity.get(name, without) for name, at in number.items()}
    edges |= {(0, number[name]): without for name in graph.inputs}
    edges |= {(number[name] + 1, 1): without for name in graph.outputs if name in number}
    for node in graph.nodes:
        reads = [number[name] + 1 for name in node.reads if name in number]
        edges |= {(read, number[name]): without for name in node.outputs if name in number for read in reads}
    rows, columns = np.array(list(edges)).T
    size = 2 * len(number) + 2
    matrix = coo_array((np.array(list(edges.values()), dtype=np.int32), (rows, columns)), shape=(size, size)).tocsr()
    flow = int(maximum_flow(matrix, 0, 1).flow_value)
    return flow if flow < without else None


def _before_layers(graph: Graph, layers: Mapping[int, Layer]) -> set[str]:
    """The tensors that a layer with weights comes behind."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if node.index in layers or not found.isdisjoint(node.outputs):
            found.update(node.reads)
    return found


def _channels(coupling: Coupling, tensor: str) -> int:
    """The extent of the axis of a tensor that filters make; 0 where it has none."""
    if tensor not in coupling.axes:
        return 0
    axes = coupling.axes.axes_of(tensor, len(coupling.graph.shapes.extents[tensor]))
    return max((coupling.axes.extents[axis] for axis in axes if axis in coupling.class_of), default=0)
