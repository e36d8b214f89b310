"""Evaluating constant parts of a graph, and telling which results are worth keeping.

Apart from ``fold_constants`` because it needs onnxruntime and networkx, whose import takes a while and
which clean graphs do not need.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import networkx as nx
import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper

from onnxprune.model import Model
from onnxprune.passes._wiring import Wiring
from onnxprune.weights import Array, Weight

_SMALL = 16_384
"""Bytes that results may add to a model without a thought: shape arithmetic, vectors."""
_GROWTH = 1.25
"""How many times the size of the weights they replace results may have."""

_SMALLEST_FED = 1024
"""Bytes."""


def evaluate(model: Model, names: Wiring, nodes: Sequence[int]) -> dict[str, Array]:
    """The results of the nodes by name, as far as onnxruntime can compute them."""
    try:
        return _run(model, names, nodes)
    except Exception:  # onnxruntime's exceptions have no common base
        # One operator or type that onnxruntime lacks fails the whole session: give each part its own.
        parts = _parts(model, names, nodes)
        if len(parts) == 1:
            return {}
        return {name: value for part in parts for name, value in evaluate(model, names, part).items()}


def _run(model: Model, names: Wiring, nodes: Iterable[int]) -> dict[str, Array]:
    needed = dict.fromkeys(name for index in nodes for name in names.nodes[index].inputs if name in model.weights)
    # Large weights are fed, which copies nothing; small ones are operands that some kernels want constant.
    fed = {name for name in needed if _can_feed(model.weights[name])}
    outputs = [output for index in nodes for output in names.nodes[index].outputs if output]
    graph = helper.make_graph(
        [model.graph.node[index] for index in nodes],
        "constants",
        inputs=[
            helper.make_tensor_value_info(name, model.weights[name].elem_type, model.weights[name].shape)
            for name in needed
            if name in fed
        ],
        outputs=[onnx.ValueInfoProto(name=name) for name in outputs],
        initializer=[model.weights[name].to_proto() for name in needed if name not in fed],
    )
    proto = onnx.ModelProto(graph=graph, ir_version=max(model.skeleton.ir_version, 4))
    proto.opset_import.extend(model.skeleton.opset_import)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feeds = {name: np.require(model.weights[name].array, requirements=["C", "A"]) for name in fed}
    results = zip(outputs, session.run(outputs, feeds), strict=True)
    return {name: value for name, value in results if isinstance(value, np.ndarray)}


def _can_feed(weight: Weight) -> bool:
    """Whether onnxruntime takes a weight as a numpy array, and it is no operand of a few numbers."""
    return weight.nbytes > _SMALLEST_FED and weight.dtype.kind in "fiu"


def worthwhile(model: Model, names: Wiring, nodes: Collection[int], values: dict[str, Array]) -> set[int]:
    """The nodes to replace by their results, such that the model does not grow by much.

    Where a connected part would make it grow (Expand, a matrix that is transposed but also used as it is),
    the node with the largest result is left alone, with all that follows from it.
    """
    chosen: set[int] = set()
    for part in _parts(model, names, nodes):
        members = set(part)
        sizes = {index: _new_bytes(index, names, members, values) for index in part}
        if sum(sizes.values()) <= _GROWTH * _replaced_bytes(model, names, members, values) + _SMALL:
            chosen |= members
        else:
            worst = max(part, key=lambda index: (sizes[index], index))
            left = members - {worst} - nx.descendants(_dependencies(names, members), worst)
            chosen |= worthwhile(model, names, left, values)
    return chosen


def is_read_outside(name: str, names: Wiring, nodes: Collection[int]) -> bool:
    """Whether anything but the given nodes needs a tensor."""
    return names.is_fixed(name) or any(reader not in nodes for reader, _ in names.slots.get(name, ()))


def _new_bytes(index: int, names: Wiring, members: Collection[int], values: dict[str, Array]) -> int:
    """Size of the weights that take a node's place."""
    outputs = names.nodes[index].outputs
    return sum(values[name].nbytes for name in outputs if name and is_read_outside(name, names, members))


def _replaced_bytes(model: Model, names: Wiring, members: Collection[int], values: dict[str, Array]) -> int:
    """Size of the weights that nobody needs any more, and of constant fills (weights in disguise)."""
    inputs = {name for index in members for name in names.nodes[index].inputs if name in model.weights}
    freed = sum(model.weights[name].nbytes for name in inputs if not is_read_outside(name, names, members))
    fills = (names.nodes[index] for index in members if names.nodes[index].op_type == "ConstantOfShape")
    return freed + sum(values[node.outputs[0]].nbytes for node in fills)


def _dependencies(names: Wiring, nodes: Iterable[int]) -> nx.DiGraph:
    """Which of the nodes needs the results of which."""
    graph = nx.DiGraph()
    maker = {output: index for index in nodes for output in names.nodes[index].outputs if output}
    graph.add_nodes_from(maker.values())
    graph.add_edges_from((maker[name], index) for index in nodes for name in names.nodes[index].inputs if name in maker)
    return graph


def _parts(model: Model, names: Wiring, nodes: Iterable[int]) -> list[list[int]]:
    """Split nodes into those that are connected by their results, or by a large weight that they share."""
    nodes = sorted(nodes)
    graph = _dependencies(names, nodes)
    for index in nodes:
        for name in names.nodes[index].inputs:
            if name in model.weights and model.weights[name].nbytes > _SMALL:
                graph.add_edge(f"weight {name}", index)
    components = nx.weakly_connected_components(graph)
    parts = (sorted(node for node in component if isinstance(node, int)) for component in components)
    return sorted(parts)
