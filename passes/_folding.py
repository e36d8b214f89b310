"""Evaluating constant parts of a graph, and telling which results are worth keeping.

Apart from ``fold_constants`` because it needs onnxruntime, whose import takes a while and which clean graphs do not
need.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import ShapeError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session
from onnxprune.ir.shapes import infer_constants
from onnxprune.ir.storage import packed_bytes
from onnxprune.ir.weights import Array, Weight

_SMALL = 16_384
"""Bytes that results may add to a model without a thought: shape arithmetic, vectors."""
_GROWTH = 1.25
"""How many times the size of the weights they replace results may have."""

_SMALLEST_FED = 1024
"""Bytes."""


def evaluate(model: Model, graph: Graph, nodes: Sequence[int]) -> dict[str, Array]:
    """The results of the nodes by name, as far as onnxruntime can compute them."""
    try:
        return _run(model, graph, nodes)
    except Exception:  # of onnxruntime, or of a weight that cannot be read
        # One operator or type that onnxruntime lacks fails the whole session: give each part its own.
        parts = _parts(model, graph, nodes)
        if len(parts) == 1:
            return {}
        return {name: value for part in parts for name, value in evaluate(model, graph, part).items()}


def _run(model: Model, graph: Graph, nodes: Iterable[int]) -> dict[str, Array]:
    needed = dict.fromkeys(name for index in nodes for name in graph.nodes[index].inputs if name in model.weights)
    # Large weights are fed, which copies nothing; small ones are operands that some kernels want constant.
    fed = [name for name in needed if _can_feed(model.weights[name])]
    outputs = [output for index in nodes for output in graph.nodes[index].outputs if output]
    constants = model.piece(
        [graph.nodes[index].proto for index in nodes],
        [helper.make_tensor_value_info(name, model.weights[name].elem_type, model.weights[name].shape) for name in fed],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        {name: model.weights[name] for name in needed if name not in fed},
    )
    feeds = {name: np.require(model.weights[name].array, requirements=["C", "A"]) for name in fed}
    results = Session(constants, "what is constant", threads=1, literal=True).run(feeds)
    return {name: value for name, value in results.items() if isinstance(value, np.ndarray)}


def _can_feed(weight: Weight) -> bool:
    """Whether onnxruntime takes a weight as a numpy array, and it is no operand of a few numbers."""
    return weight.nbytes > _SMALLEST_FED and weight.dtype.kind in "fiu"


def promising(model: Model, graph: Graph, nodes: Sequence[int]) -> list[int]:
    """The nodes without those that are not worth it, which the shapes of their results tell before they are evaluated.

    Exporters write index tables of a hundred megabytes that are sums of a few vectors.
    """
    needed = {name: None for index in nodes for name in graph.nodes[index].inputs}
    weights = {name: model.weights[name] for name in needed if name in model.weights}
    try:
        extents, types = infer_constants(model, weights, [model.graph.node[index] for index in nodes])
    except ShapeError:
        return list(nodes)  # evaluating them will show which of them are to blame
    sizes = {name: packed_bytes(types.get(name, 0), shape) for name, shape in extents.items()}
    known = [
        index
        for part in _parts(model, graph, nodes)
        if all(sizes.get(name) for index in part for name in graph.nodes[index].outputs if name)
        for index in part
    ]
    hopeless = set(known) - worthwhile(model, graph, known, sizes)
    return [index for index in nodes if index not in hopeless]


def worthwhile(model: Model, graph: Graph, nodes: Collection[int], sizes: Mapping[str, int]) -> set[int]:
    """The nodes to replace by their results, such that the model does not grow by much.

    ``sizes`` are the bytes of all results, by name.

    Where a connected part would make it grow (Expand, a matrix that is transposed but also used as it is),
    the node with the largest result is left alone, with all that follows from it.
    """
    chosen: set[int] = set()
    for part in _parts(model, graph, nodes):
        members = set(part)
        while True:
            added = {index: _new_bytes(index, graph, members, sizes) for index in part if index in members}
            room = _GROWTH * _replaced_bytes(model, graph, members, sizes) + _SMALL
            # What is too large by itself is so in every smaller part, too: there fewer results are read inside, and
            # fewer weights replaced.
            doomed = {index for index, size in added.items() if size > room}
            if not doomed:
                break
            members -= _with_descendants(doomed, part, graph)
        if len(members) < len(part):
            chosen |= worthwhile(model, graph, members, sizes)
        elif sum(added.values()) > room:
            worst = max(part, key=lambda index: (added[index], index))
            chosen |= worthwhile(model, graph, members - _with_descendants({worst}, part, graph), sizes)
        else:
            chosen |= members
    return chosen


def is_read_outside(name: str, graph: Graph, nodes: Collection[int]) -> bool:
    """Whether anything but the given nodes needs a tensor."""
    return name in graph.fixed or any(reader not in nodes for reader, _ in graph.slots.get(name, ()))


def _new_bytes(index: int, graph: Graph, members: Collection[int], sizes: Mapping[str, int]) -> int:
    """Size of the weights that take a node's place."""
    outputs = graph.nodes[index].outputs
    return sum(sizes[name] for name in outputs if name and is_read_outside(name, graph, members))


def _replaced_bytes(model: Model, graph: Graph, members: Collection[int], sizes: Mapping[str, int]) -> int:
    """Size of the weights that nobody needs any more, and of constant fills (weights in disguise)."""
    inputs = {name for index in members for name in graph.nodes[index].inputs if name in model.weights}
    freed = sum(model.weights[name].nbytes for name in inputs if not is_read_outside(name, graph, members))
    fills = (graph.nodes[index] for index in members if graph.nodes[index].op_type == "ConstantOfShape")
    return freed + sum(sizes[node.outputs[0]] for node in fills)


def _with_descendants(first: Collection[int], nodes: Iterable[int], graph: Graph) -> set[int]:
    """Some of the nodes, which are in topological order, and those that depend on them."""
    found, made = set(first), {name for index in first for name in graph.nodes[index].outputs if name}
    for index in nodes:
        if not made.isdisjoint(graph.nodes[index].inputs):
            found.add(index)
            made.update(name for name in graph.nodes[index].outputs if name)
    return found


def _parts(model: Model, graph: Graph, nodes: Iterable[int]) -> list[list[int]]:
    """Split nodes into those that are connected by their results, or by a large weight that they share."""
    nodes = sorted(nodes)
    made = {name for index in nodes for name in graph.nodes[index].outputs}
    of_node: dict[int, list[int]] = {}
    of_tensor: dict[str, int] = {}
    for index in nodes:
        # The part that this node extends, joined with others that it touches; the smaller ones move.
        part = of_node[index] = [index]
        for name in _joining(model, graph, index, made):
            other = of_node[of_tensor.setdefault(name, index)]
            if other is not part:
                part, moved = (part, other) if len(part) > len(other) else (other, part)
                part.extend(moved)
                of_node.update(dict.fromkeys(moved, part))
    return sorted(sorted(part) for index, part in of_node.items() if part[0] == index)


def _joining(model: Model, graph: Graph, index: int, made: Collection[str]) -> Iterator[str]:
    """The tensors through which a node is connected with others."""
    yield from (name for name in graph.nodes[index].outputs if name)
    for name in graph.nodes[index].inputs:
        weight = model.weights.get(name)
        if weight.nbytes > _SMALL if weight is not None else name and name in made:
            yield name
