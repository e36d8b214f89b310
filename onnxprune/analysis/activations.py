"""Activation functions in a graph: the regions that bend what would be linear without them."""

from __future__ import annotations

from onnx import TensorProto

from onnxprune.ir.graph import Graph
from onnxprune.ir.regions import Region, Regions
from onnxprune.ops import Registry

_MOST_NODES = 10
"""Spelled out, the approximation of GELU by tanh takes nine."""
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def activations(graph: Graph, registry: Registry, regions: Regions | None = None) -> tuple[Region, ...]:
    """The activation functions of a graph, one node (Relu) or several (x · sigmoid(x)), in the order of their exits.

    Each computes every element of its exit from the element at the same place of its entry, which has its extents.
    """
    regions = regions or Regions(graph)
    found: dict[tuple[int, ...], Region] = {}
    operators = {node.index: registry.find(node) for node in graph.nodes}
    placewise = {index for index, operator in operators.items() if operator is not None and operator.placewise}
    bending = {
        index for index, operator in operators.items() if operator and graph.nodes[index].op_type in operator.bending
    }
    extents, types = graph.shapes.extents, graph.shapes.elem_types
    for index in sorted(bending):
        one = regions.around(index, placewise, _MOST_NODES)
        if one is None:
            continue
        entry, exit, nodes = _scaled(graph, placewise - bending, one)
        known = entry in extents and extents.get(entry) == extents.get(exit)
        if known and types.get(entry) == types.get(exit) and types.get(exit) in _FLOATS:
            found[nodes] = Region(entry, exit, nodes, ())
    # What lies inside of another (the sigmoid of a swish) is a part of it.
    inner = {a for a in found for b in found if a != b and set(a) < set(b)}
    return tuple(sorted((r for key, r in found.items() if key not in inner), key=lambda r: r.nodes[-1]))


def _scaled(
    graph: Graph, allowed: set[int], region: tuple[str, str, tuple[int, ...]]
) -> tuple[str, str, tuple[int, ...]]:
    """A region with what multiplies its exit by single numbers, or adds them: half of GELU's formulas end so."""
    entry, exit, nodes = region
    while len(nodes) < _MOST_NODES:
        readers = graph.consumers.get(exit, [])
        if len(readers) != 1 or exit in graph.referred or readers[0] not in allowed:
            break
        node = graph.nodes[readers[0]]
        others = [name for name in node.inputs if name and name != exit]
        weights = graph.model.weights
        if not others or not all(name in weights and weights[name].size == 1 for name in others):
            break
        exit, nodes = node.outputs[0], (*nodes, node.index)
    return entry, exit, nodes
