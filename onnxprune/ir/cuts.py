"""Where a graph falls into blocks with a single entry: the tensors through which all passes that comes later."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise

from onnx import TensorProto

from onnxprune.ir.graph import Graph


def cut_tensors(graph: Graph, most: int | None = None, aside: Collection[str] = ()) -> tuple[str, ...]:
    """The tensors, in order, without which no later node can be computed from earlier ones.

    Between two of them lies a block: its nodes read the first, each other, and constants. Graph outputs are no cuts,
    nor are constants, nor what only constants go into.

    Args:
        graph: of a normalised model.
        most: no more than so many, spread over the nodes.
        aside: tensors that do not count: blocks may read them besides their entry.
    """
    nodes = graph.nodes
    last = {name: node.index for node in nodes for name in node.reads}
    last.update(dict.fromkeys(graph.outputs, len(nodes)))
    # Live are the computed tensors that a later node reads; weights and constants are everywhere.
    live = {name for name in graph.inputs if name in last}.difference(aside)
    found: list[tuple[int, str]] = []
    for node in nodes:
        if any(name in live or name in aside for name in node.reads):
            live.update(name for name in node.outputs if name and name not in graph.constants and name not in aside)
        live = {name for name in live if last.get(name, -1) > node.index}
        if len(live) == 1:
            (name,) = live
            if name not in graph.outputs and name not in graph.inputs and name in node.outputs:
                found.append((node.index, name))
    if most is not None and len(found) > most:
        # Of even stretches of the graph, the narrowest place each: comparing there costs the least.
        edges = [len(nodes) * step / most for step in range(most + 1)]
        parts = [[cut for cut in found if low <= cut[0] < high] for low, high in pairwise(edges)]
        found = [min(part, key=lambda cut: _size(graph, cut[1])) for part in parts if part]
    return tuple(name for _, name in found)


def without_parameters(graph: Graph) -> frozenset[str]:
    """The tensors that the graph's inputs alone say, without any parameter: masks and positions, which all blocks read.

    Integers and single numbers are no parameters; shapes (and all else of 64-bit integers) carry none on.
    """
    weights = graph.model.weights
    learnt = {name for name, weight in weights.items() if weight.dtype.kind == "f" and weight.size > 1}
    found, types = set(graph.inputs) | (graph.constants - learnt), graph.shapes.elem_types
    for node in graph.nodes:
        plain = found.issuperset(node.reads)
        found.update(name for name in node.outputs if name and (plain or types.get(name) == TensorProto.INT64))
    return frozenset(found - graph.constants)


def _size(graph: Graph, tensor: str) -> int:
    return math.prod(graph.shapes.extents.get(tensor, ()))
