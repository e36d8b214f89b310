"""Which nodes of a graph are matrix products or scale their channels; what they are is said by their operators."""

from __future__ import annotations

from onnxprune.ir.graph import Node, UnknownShapeError
from onnxprune.ops import Registry, default_registry
from onnxprune.ops.linear import Affine, LinearLayer


def linear_layer(node: Node, registry: Registry | None = None) -> LinearLayer | None:
    """The node as a matrix product, or None: another operator, or its weight is no initialiser of floats."""
    operator = (registry or default_registry()).find(node)
    try:
        layer = None if operator is None else operator.linear(node)
    except UnknownShapeError:
        return None
    if layer is None or layer.input in node.graph.constants:
        return None
    weight = node.graph.model.weights.get(layer.weight)
    return layer if weight is not None and weight.dtype.kind == "f" else None


def affine(node: Node, registry: Registry | None = None) -> Affine | None:
    """The node as a factor and a shift for each channel, or None."""
    operator = (registry or default_registry()).find(node)
    return None if operator is None else operator.affine(node)


__all__ = ["Affine", "LinearLayer", "affine", "linear_layer"]
