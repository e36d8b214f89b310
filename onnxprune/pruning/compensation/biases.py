"""Where a layer keeps what is added to its outputs, and how that changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft
from onnxprune.ops.layers import LinearLayer, affine_of


@dataclass(frozen=True)
class BiasPlace:
    """An input of a node that holds (or may hold) a vector added to a layer's outputs.

    ``node`` and ``index`` say where; ``sign`` is -1 where the vector is subtracted (the mean of a
    BatchNormalization); ``scale`` is the factor it is taken with. ``own`` tells that it is part of the layer itself,
    so that the layer's outputs include it; else it counts behind the output.
    """

    node: int
    index: int
    sign: float
    scale: float
    own: bool


def bias_place(graph: Graph, layer: LinearLayer) -> BiasPlace | None:
    """Where a bias of the layer is or can be; no parameter is added where a later node has a vector for it.

    None where there is no place: a MatMul without an addition behind it.
    """
    node = graph.nodes[layer.node]
    if layer.bias >= 0 and node.has_input(layer.bias):
        if node.inputs[layer.bias] not in graph.model.weights:
            return None
        return BiasPlace(layer.node, layer.bias, 1.0, float(node.attr("beta", 1.0)), True)
    readers = graph.consumers.get(layer.output, [])
    if len(readers) == 1 and layer.output not in graph.outputs:
        reader = graph.nodes[readers[0]]
        normalised = affine_of(reader, layer)
        if normalised is not None and normalised.fixed:
            if normalised.held(normalised.mean):
                return BiasPlace(reader.index, normalised.mean, -1.0, 1.0, False)
        elif reader.op_type == "Add" and layer.bias < 0:
            other = 1 - list(reader.inputs).index(layer.output)
            held = graph.model.weights.get(reader.inputs[other])
            if (
                held is not None
                and held.dtype.kind == "f"
                and held.shape
                and held.size == held.shape[-1] == _width(graph, layer)
            ):
                return BiasPlace(reader.index, other, 1.0, 1.0, False)
    return BiasPlace(layer.node, layer.bias, 1.0, 1.0, True) if layer.bias >= 0 else None


def bias_of_layer(graph: Graph, layer: LinearLayer, place: BiasPlace | None, width: int) -> NDArray[np.float64]:
    """The vector that the layer's outputs include now, [width]."""
    node = graph.nodes[layer.node]
    if place is None or not place.own or not node.has_input(layer.bias):
        return np.zeros(width)
    held = graph.model.weights[node.inputs[layer.bias]].array
    return np.broadcast_to(held.astype(np.float64).reshape(-1), (width,)) * place.scale


def add_to_bias(draft: Draft, place: BiasPlace, change: NDArray[np.float64], like: np.dtype[Any], base: str) -> None:
    """Add a vector [N] to what is held at a place, which gets a weight of its own if others read it."""
    proto = draft.graph.node[place.node]
    name = proto.input[place.index] if place.index < len(proto.input) else ""
    change = change * place.sign / place.scale
    if not name:
        while len(proto.input) <= place.index:
            proto.input.append("")
        proto.input[place.index] = draft.add_weight(draft.unique_name(f"{base}_bias"), change.astype(like)).name
        return
    old = draft.weights[name].array
    value = (np.broadcast_to(old, np.broadcast_shapes(old.shape, change.shape)) + change).astype(old.dtype)
    if sum(list(node.input).count(name) for node in draft.graph.node) > 1:
        proto.input[place.index] = draft.add_weight(draft.unique_name(f"{name}_of_{base}"), value).name
    else:
        draft.weights[name] = draft.weights[name].with_array(value)


def _width(graph: Graph, layer: LinearLayer) -> int:
    return graph.shapes.extents[layer.output][layer.out_dim]
