"""Shapes, their arithmetic, and tensors of a given shape."""

from __future__ import annotations

import torch
from onnx import numpy_helper
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.converters.indexing import number
from onnxprune.torch.functions import host
from onnxprune.torch.functions import shaping as functions
from onnxprune.torch.tensors import to_tensor, torch_dtype


def _shape(node: Node, build: Builder) -> fx.Node:
    return build.call(host.shape, build.tensor(node, 0), node.attr("start", 0), node.attr("end"))


def _size(node: Node, build: Builder) -> fx.Node:
    return build.call(host.size, build.tensor(node, 0))


def _never(node: Node, build: Builder) -> fx.Node:
    raise AssertionError(f"{node} is shape arithmetic always")


def _reshape(node: Node, build: Builder) -> fx.Node:
    shape = build.ints(node, 1, "shape")
    return build.call(functions.reshape, build.tensor(node, 0), shape, bool(node.attr("allowzero", 0)))


def _host_reshape(node: Node, build: Builder) -> fx.Node | None:
    shape = build.constant(node, 1)
    if shape is None or shape.size > 1:
        return None
    return build.call(host.vector if shape.size else host.scalar, build.host(node, 0))


def _flatten(node: Node, build: Builder) -> fx.Node:
    axis = node.attr("axis", 1)
    if axis == 1 and (build.rank(node) or 0) >= 2:
        return build.module(node, nn.Flatten(), build.tensor(node, 0))
    return build.call(functions.flatten, build.tensor(node, 0), axis)


def _squeeze(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.squeeze, build.tensor(node, 0), build.ints(node, 1, "axes"))


def _host_squeeze(node: Node, build: Builder) -> fx.Node:
    return build.call(host.scalar, build.host(node, 0))


def _unsqueeze(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.unsqueeze, build.tensor(node, 0), build.ints(node, 1, "axes"))


def _host_unsqueeze(node: Node, build: Builder) -> fx.Node:
    return build.call(host.vector, build.host(node, 0))


def _transpose(node: Node, build: Builder) -> fx.Node:
    order = node.attr("perm")
    return build.call(functions.transpose, build.tensor(node, 0), None if order is None else tuple(order))


def _expand(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.expand, build.tensor(node, 0), build.ints(node, 1))


def _host_expand(node: Node, build: Builder) -> fx.Node:
    return build.call(host.expand, build.host(node, 0), build.ints(node, 1))


def _tile(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.tile, build.tensor(node, 0), build.ints(node, 1))


def _depth_to_space(node: Node, build: Builder) -> fx.Node:
    block, columns_first = node.attr("blocksize"), node.attr("mode", "DCR") == "CRD"
    if columns_first:
        return build.module(node, nn.PixelShuffle(block), build.tensor(node, 0))
    return build.call(functions.depth_to_space, build.tensor(node, 0), block, columns_first)


def _space_to_depth(node: Node, build: Builder) -> fx.Node:
    if node.attr("mode", "DCR") == "CRD":
        return build.module(node, nn.PixelUnshuffle(node.attr("blocksize")), build.tensor(node, 0))
    return build.call(functions.space_to_depth, build.tensor(node, 0), node.attr("blocksize"))


def _constant_of_shape(node: Node, build: Builder) -> fx.Node:
    value, dtype = _fill_value(node)
    return build.call(functions.filled, build.ints(node, 0), value, dtype, build.anchor)


def _host_constant_of_shape(node: Node, build: Builder) -> fx.Node | None:
    value, dtype = _fill_value(node)
    if dtype.is_floating_point:
        return None
    return build.call(host.fill, build.ints(node, 0), value)


def _fill_value(node: Node) -> tuple[float, torch.dtype]:
    proto = node.attr("value")
    if proto is None:
        return 0.0, torch.float32
    tensor = to_tensor(numpy_helper.to_array(proto))
    return tensor.item(), tensor.dtype


def _range(node: Node, build: Builder) -> fx.Node:
    dtype = next((d for d in map(build.dtype, (*node.inputs, *node.outputs)) if d is not None), torch.int64)
    bounds = [build.host(node, index) for index in range(3)]
    return build.call(functions.arange, *bounds, dtype, build.anchor)


def _eye_like(node: Node, build: Builder) -> fx.Node:
    dtype = node.attr("dtype")
    target = None if dtype is None else torch_dtype(dtype)
    return build.call(functions.eye_like, build.tensor(node, 0), target, node.attr("k", 0))


def _triangle(node: Node, build: Builder) -> fx.Node:
    offset = build.host(node, 1) if build.has(node, 1) else 0
    return build.call(functions.triangle, build.tensor(node, 0), number(offset, build), bool(node.attr("upper", 1)))


def _cumulative_sum(node: Node, build: Builder) -> fx.Node:
    axis = number(build.host(node, 1), build)
    exclusive, reverse = bool(node.attr("exclusive", 0)), bool(node.attr("reverse", 0))
    return build.call(functions.cumulative_sum, build.tensor(node, 0), axis, exclusive, reverse)


CONVERTERS = (
    Converter("ConstantOfShape", _constant_of_shape, host=_host_constant_of_shape),
    Converter("CumSum", _cumulative_sum),
    Converter("DepthToSpace", _depth_to_space),
    Converter("Expand", _expand, host=_host_expand),
    Converter("EyeLike", _eye_like),
    Converter("Flatten", _flatten),
    Converter("Range", _range),
    Converter("Reshape", _reshape, host=_host_reshape),
    Converter("Shape", _never, host=_shape),
    Converter("Size", _never, host=_size),
    Converter("SpaceToDepth", _space_to_depth),
    Converter("Squeeze", _squeeze, host=_host_squeeze),
    Converter("Tile", _tile),
    Converter("Transpose", _transpose),
    Converter("Trilu", _triangle),
    Converter("Unsqueeze", _unsqueeze, host=_host_unsqueeze),
)
