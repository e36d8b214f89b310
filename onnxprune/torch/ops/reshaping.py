"""Shapes and their arithmetic, with sizes that may be known only at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from onnx import numpy_helper
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch import host
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.tensors import to_tensor

Tensor = torch.Tensor


def _reverse_sequence(node: Node, build: Builder) -> fx.Node:
    axes = node.attr("batch_axis", 1), node.attr("time_axis", 0)
    return build.call(reverse_sequence, *build.tensors(node), *axes)


def _shape(node: Node, build: Builder) -> fx.Node:
    return build.call(host.shape, build.tensor(node, 0), node.attr("start", 0), node.attr("end"))


def host_only(node: Node, build: Builder) -> fx.Node:
    raise AssertionError(f"{node} is shape arithmetic always")


def _reshape(node: Node, build: Builder) -> fx.Node:
    shape = build.ints(node, 1, "shape")
    if isinstance(shape, tuple) and 0 not in shape:
        return build.call(torch.reshape, build.tensor(node, 0), shape)
    return build.call(reshape, build.tensor(node, 0), shape, bool(node.attr("allowzero", 0)))


def _host_reshape(node: Node, build: Builder) -> fx.Node | None:
    shape = build.constant(node, 1)
    if shape is None or shape.size > 1:
        return None
    return build.call(host.vector if shape.size else host.scalar, build.host(node, 0))


def _flatten(node: Node, build: Builder) -> fx.Node:
    axis = node.attr("axis", 1)
    if axis == 1 and (build.rank(node) or 0) >= 2:
        return build.module(node, nn.Flatten(), build.tensor(node, 0))
    return build.call(flatten, build.tensor(node, 0), axis)


def _squeeze(node: Node, build: Builder) -> fx.Node:
    axes = build.ints(node, 1, "axes")
    return build.call(torch.squeeze, build.tensor(node, 0), *(() if axes is None else (axes,)))


def _host_squeeze(node: Node, build: Builder) -> fx.Node:
    return build.call(host.scalar, build.host(node, 0))


def _unsqueeze(node: Node, build: Builder) -> fx.Node:
    axes = build.ints(node, 1, "axes")
    if isinstance(axes, tuple) and len(axes) == 1:
        return build.call(torch.unsqueeze, build.tensor(node, 0), axes[0])
    return build.call(unsqueeze, build.tensor(node, 0), axes)


def _host_unsqueeze(node: Node, build: Builder) -> fx.Node:
    return build.call(host.vector, build.host(node, 0))


def _transpose(node: Node, build: Builder) -> fx.Node:
    order = node.attr("perm")
    if order is not None:
        return build.call(torch.permute, build.tensor(node, 0), tuple(order))
    return build.call(transpose, build.tensor(node, 0))


def _expand(node: Node, build: Builder) -> fx.Node:
    return build.call(expand, build.tensor(node, 0), build.ints(node, 1))


def _host_expand(node: Node, build: Builder) -> fx.Node:
    return build.call(host.expand, build.host(node, 0), build.ints(node, 1))


def _tile(node: Node, build: Builder) -> fx.Node:
    return build.call(torch.tile, build.tensor(node, 0), build.ints(node, 1))


def _depth_to_space(node: Node, build: Builder) -> fx.Node:
    block = node.attr("blocksize")
    if node.attr("mode", "DCR") == "CRD":
        return build.module(node, nn.PixelShuffle(block), build.tensor(node, 0))
    return build.call(depth_to_space, build.tensor(node, 0), block)


def _space_to_depth(node: Node, build: Builder) -> fx.Node:
    if node.attr("mode", "DCR") == "CRD":
        return build.module(node, nn.PixelUnshuffle(node.attr("blocksize")), build.tensor(node, 0))
    return build.call(space_to_depth, build.tensor(node, 0), node.attr("blocksize"))


def _constant_of_shape(node: Node, build: Builder) -> fx.Node:
    value, dtype = _fill_value(node)
    return build.call(filled, build.ints(node, 0), value, dtype, build.anchor)


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


def reverse_sequence(x: Tensor, lengths: Tensor, batch_axis: int, time_axis: int) -> Tensor:
    """The first ``lengths[b]`` steps of every sequence in reverse."""
    time = torch.arange(x.shape[time_axis], device=x.device).unsqueeze(0)
    ends = lengths.to(torch.int64).unsqueeze(1)
    places = torch.where(time < ends, ends - 1 - time, time)
    places = places if batch_axis == 0 else places.t()
    shape = [*places.shape, *[1] * (x.dim() - 2)]
    return torch.gather(x, time_axis, places.reshape(shape).expand_as(x))


def reshape(x: Tensor, shape: Sequence[int], allow_zero: bool = False) -> Tensor:
    """Another shape; 0 stands for the input's extent (unless allowed as such), -1 for what is left."""
    if allow_zero:
        return x.reshape(tuple(shape))
    return x.reshape(tuple(x.shape[i] if _is_zero(n) else n for i, n in enumerate(shape)))


def _is_zero(extent: int) -> bool:
    # Symbolic extents are compared only where they are plain numbers: a comparison would fix them.
    return isinstance(extent, int) and extent == 0


def flatten(x: Tensor, axis: int) -> Tensor:
    """A matrix: the dimensions before ``axis`` and the rest."""
    axis = axis + x.dim() if axis < 0 else axis
    if axis == 0:
        return x.reshape(1, -1)
    return (
        x.reshape(math.prod(x.shape[:axis]), -1)
        if x.numel()
        else x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    )


def unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    """With dimensions of extent 1, which have these places in the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor) -> Tensor:
    """Dimensions in reverse."""
    return x.permute(tuple(reversed(range(x.dim()))))


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast with a shape, in both directions."""
    extents = (1,) * (x.dim() - len(shape)) + tuple(shape)
    # Aligned from the last dimension; where the shape says 1, the input's extent stays.
    own = (1,) * (len(extents) - x.dim()) + tuple(x.shape)
    return x.expand(tuple(n if m == 1 else m for n, m in zip(own, extents, strict=True)))


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """Channels to blocks of pixels, in the order DCR."""
    n, c, h, w = x.shape
    depth = c // (block * block)
    parts = x.reshape(n, block, block, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, depth, h * block, w * block)


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """Blocks of pixels to channels."""
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block * block, h // block, w // block)


def filled(shape: Sequence[int] | int, value: float, dtype: torch.dtype, like: Tensor | None) -> Tensor:
    """One value everywhere."""
    extents = tuple(shape) if isinstance(shape, Sequence) else (shape,)
    return torch.full(extents, value, dtype=dtype, device=None if like is None else like.device)


CONVERTERS = (
    Converter("ConstantOfShape", _constant_of_shape, host=_host_constant_of_shape),
    Converter("DepthToSpace", _depth_to_space),
    Converter("Expand", _expand, host=_host_expand),
    Converter("Flatten", _flatten),
    Converter("Reshape", _reshape, host=_host_reshape),
    Converter("ReverseSequence", _reverse_sequence),
    Converter("Shape", host_only, host=_shape),
    Converter("SpaceToDepth", _space_to_depth),
    Converter("Squeeze", _squeeze, host=_host_squeeze),
    Converter("Tile", _tile),
    Converter("Transpose", _transpose),
    Converter("Unsqueeze", _unsqueeze, host=_host_unsqueeze),
)
