"""Which nodes of a graph are matrix products or scale their channels; what they are is said by their operators."""

from __future__ import annotations

from onnxprune.ir.graph import Node, UnknownShapeError
from onnxprune.ops import Registry, default_registry
from onnxprune.ops.linear import Affine, LinearLayer

#: The dimension whose positions are an :class:`Affine`'s channels.
_NORMALISED = 1


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


def affine_of(reader: Node | None, layer: LinearLayer, registry: Registry | None = None) -> Affine | None:
    """What a reader of a layer's output does to each channel that the layer makes; None where it does no such thing.

    A product makes its columns, and a BatchNormalization behind it may be one of its rows, as many as they are.
    """
    return affine(reader, registry) if reader is not None and layer.out_dim == _NORMALISED else None


__all__ = ["Affine", "LinearLayer", "affine", "affine_of", "linear_layer"]
