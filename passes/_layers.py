"""Scaling and shifting the output channels of layers, by their weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.weights import Array, Weight


@dataclass(frozen=True)
class Fold:
    """A node that scales and shifts channels (``norm``) and the layer before it, as node indices.

    ``scale`` multiplies the layer's output channels, then ``shift`` is added.
    """

    norm: int
    layer: int
    scale: Array
    shift: Array


def attribute(node: NodeProto, name: str, default: float) -> float:
    """A number among the attributes of a node."""
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else float(helper.get_attribute_value(found))


def apply_fold(model: Model, draft: Draft, graph: Graph, fold: Fold) -> None:
    """Put scale and shift into the weights of the layer, which gets a bias if it has none."""
    node = draft.graph.node[fold.layer]
    weight = model.weights[node.input[1]]
    scaled = _scaled(node, weight.array.astype(np.float64), fold.scale)
    node.input[1] = put(draft, graph, weight, scaled)
    if len(node.input) > 2 and node.input[2]:
        old = model.weights[node.input[2]]
        shift = fold.shift + old.array.astype(np.float64) * fold.scale
        node.input[2] = put(draft, graph, old, np.broadcast_to(shift, np.broadcast_shapes(shift.shape, old.shape)))
    else:
        base = f"{weight.name.removesuffix('.weight')}.bias"
        bias = draft.add_weight(draft.unique_name(base), fold.shift.astype(weight.dtype))
        del node.input[2:]
        node.input.append(bias.name)


def _scaled(layer: NodeProto, weight: Array, factor: Array) -> Array:
    """The weight with each output channel multiplied."""
    if layer.op_type == "Conv":
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    if layer.op_type == "Gemm":
        return weight * (factor[:, None] if attribute(layer, "transB", 0) else factor)
    # ConvTranspose holds (in, out / group, ...): each group of inputs has output channels of its own.
    groups = int(attribute(layer, "group", 1))
    split = weight.reshape(groups, -1, *weight.shape[1:])
    product: Array = split * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return product.reshape(weight.shape)


def put(draft: Draft, graph: Graph, old: Weight, values: Array) -> str:
    """New values for a weight, under its name, or under another if others read it; returns the name."""
    array = np.ascontiguousarray(values.astype(old.dtype))
    if len(graph.slots[old.name]) == 1 and old.name not in graph.fixed:
        draft.weights[old.name] = old.with_array(array)
        return old.name
    return draft.add(old.with_array(array).renamed(draft.unique_name(old.name))).name


def drop_unused(model: Model, draft: Draft, graph: Graph, dead: set[int]) -> None:
    """Remove the vectors that only removed nodes read."""
    used = {name for node in draft.graph.node for name in node.input}
    read = {name for index in dead for name in model.graph.node[index].input}
    draft.remove_weights({n for n in read if n in draft.weights and n not in used and n not in graph.fixed})
