"""A reader of plans with onnx and numpy alone: what docs/plan.md says, and nothing of this library.

It takes the normalised model (``onnxprune normalize``) and applies plans of networks whose extents stand in weights:
convolutions, plain, grouped and depthwise, matrix products, normalisations, and Reshapes to shapes with constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper


def apply(model: onnx.ModelProto, plan: dict[str, Any]) -> onnx.ModelProto:
    """The model less what the plan removes."""
    assert (plan["format"], plan["version"]) == ("onnxprune-plan", 1)
    assert not plan.get("requires")
    removed = {
        tensor: {int(dim): positions for dim, positions in axes.items()} for tensor, axes in plan["removed"].items()
    }
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    before = {name: array.shape for name, array in weights.items()}
    # What a plan names of weights is cut out of them.
    for name, array in weights.items():
        for dim, positions in removed.get(name, {}).items():
            array = np.delete(array, positions, axis=dim)
        weights[name] = array
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            _regroup(node, before[node.input[1]], removed)
        elif node.op_type == "Reshape":
            gone = removed.get(node.output[0], {})
            for name, dim in _entries(graph, node.input[1], weights):
                within = {d - dim: p for d, p in gone.items() if 0 <= d - dim < weights[name].size}
                weights[name] = _target(weights[name], within)
    for weight in graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(np.array(weights[weight.name], order="C"), weight.name))
    del graph.value_info[:]
    onnx.checker.check_model(result, full_check=True)
    return result


def _regroup(node: onnx.NodeProto, shape: tuple[int, ...], removed: dict[str, dict[int, list[int]]]) -> None:
    """A grouped convolution whose groups lose all their input channels has fewer groups."""
    for attribute in node.attribute:
        if attribute.name != "group" or attribute.i == 1:
            continue
        groups = attribute.i
        inputs = groups * shape[1] if node.op_type == "Conv" else shape[0]
        kept = np.delete(np.arange(inputs), removed.get(node.input[0], {}).get(1, []))
        attribute.i = len(np.unique(kept // (inputs // groups)))


def _entries(graph: onnx.GraphProto, shape: str, weights: dict[str, np.ndarray]) -> list[tuple[str, int]]:
    """The constants that make up a shape, and the place of their first entries; computed parts have one entry each."""
    if shape in weights:
        return [(shape, 0)]
    node = next(node for node in graph.node if shape in node.output)
    if node.op_type == "Cast":
        return _entries(graph, node.input[0], weights)
    if node.op_type != "Concat":
        return []
    sizes = [weights[part].size if part in weights else 1 for part in node.input]
    return [(part, sum(sizes[:n])) for n, part in enumerate(node.input) if part in weights]


def _target(target: np.ndarray, removed: dict[int, list[int]]) -> np.ndarray:
    """The constant shape of a Reshape follows its result; 0 and -1 follow by themselves."""
    target = target.copy()
    for dim, positions in removed.items():
        if target[dim] > 0:
            target[dim] -= len(positions)
    return target
