"""Tensors made from numbers, positions or at random.

Seeds of the file are not followed, since no two frameworks draw the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.ops.elementwise import on_numbers
from onnxprune.torch.ops.indexing import from_front
from onnxprune.torch.ops.reshaping import host_only
from onnxprune.torch.tensors import torch_dtype

Tensor = torch.Tensor

_NAMES = {"Normal": (("mean", 0.0), ("scale", 1.0)), "Uniform": (("low", 0.0), ("high", 1.0))}


def _dtype(node: Node) -> torch.dtype | None:
    elem_type = node.attr("dtype")
    return None if elem_type is None else torch_dtype(elem_type)


def _shaped(kind: str, function: Callable[..., torch.Tensor]) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        values = [node.attr(name, default) for name, default in _NAMES[kind]]
        return build.call(function, tuple(node.attr("shape")), *values, _dtype(node) or torch.float32, build.anchor)

    return convert


def _like(kind: str, function: Callable[..., torch.Tensor]) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        values = [node.attr(name, default) for name, default in _NAMES[kind]]
        return build.call(function, build.tensor(node, 0), *values, _dtype(node))

    return convert


def _multinomial(node: Node, build: Builder) -> fx.Node:
    count, dtype = node.attr("sample_size", 1), _dtype(node) or torch.int32
    return build.call(multinomial, build.tensor(node, 0), count, dtype)


def _one_hot(node: Node, build: Builder) -> fx.Node:
    depth = build.number(node, 1)
    depth = build.call(on_numbers, "to integer", depth) if isinstance(depth, fx.Node) else int(depth)
    return build.call(one_hot, build.tensor(node, 0), depth, build.tensor(node, 2), node.attr("axis", -1))


def _non_zero(node: Node, build: Builder) -> fx.Node:
    return build.call(non_zero, build.tensor(node, 0))


def _size(node: Node, build: Builder) -> fx.Node:
    return build.call(torch.numel, build.tensor(node, 0))


def _range(node: Node, build: Builder) -> fx.Node:
    dtype = next((d for d in map(build.dtype, (*node.inputs, *node.outputs)) if d is not None), torch.int64)
    bounds = [build.host(node, index) for index in range(3)]
    return build.call(arange, *bounds, dtype, build.anchor)


def _eye_like(node: Node, build: Builder) -> fx.Node:
    dtype = node.attr("dtype")
    target = None if dtype is None else torch_dtype(dtype)
    return build.call(eye_like, build.tensor(node, 0), target, node.attr("k", 0))


def normal(shape: Sequence[int], mean: float, deviation: float, dtype: torch.dtype, like: Tensor | None) -> Tensor:
    """Normally distributed numbers."""
    device = None if like is None else like.device
    return torch.randn(tuple(shape), device=device).mul(deviation).add(mean).to(dtype)


def uniform(shape: Sequence[int], low: float, high: float, dtype: torch.dtype, like: Tensor | None) -> Tensor:
    """Evenly distributed numbers."""
    device = None if like is None else like.device
    return torch.rand(tuple(shape), device=device).mul(high - low).add(low).to(dtype)


def normal_like(x: Tensor, mean: float, deviation: float, dtype: torch.dtype | None) -> Tensor:
    """Normally distributed numbers in the shape of a tensor."""
    return normal(x.shape, mean, deviation, dtype or x.dtype, x)


def uniform_like(x: Tensor, low: float, high: float, dtype: torch.dtype | None) -> Tensor:
    """Evenly distributed numbers in the shape of a tensor."""
    return uniform(x.shape, low, high, dtype or x.dtype, x)


def multinomial(x: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Classes drawn by their log-probabilities, with replacement."""
    return torch.multinomial(x.float().softmax(-1), count, replacement=True).to(dtype)


def one_hot(indices: Tensor, depth: int, values: Tensor, axis: int) -> Tensor:
    """``values[1]`` at the position that each index names along a new axis, ``values[0]`` elsewhere."""
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    classes = torch.arange(depth, device=indices.device, dtype=torch.int64)
    shape = [1] * (indices.dim() + 1)
    shape[axis] = -1
    places = from_front(indices, depth).unsqueeze(axis)
    return torch.where(places == classes.reshape(shape), values[1], values[0])


def non_zero(x: Tensor) -> Tensor:
    """Index tuples of what is not zero, in columns."""
    return torch.nonzero(x.reshape(1) if x.dim() == 0 else x).t()[: x.dim()]


def arange(start: float, limit: float, step: float, dtype: torch.dtype, like: Tensor | None) -> Tensor:
    """Numbers from ``start`` on, before ``limit``."""
    return torch.arange(start, limit, step, dtype=dtype, device=None if like is None else like.device)


def eye_like(x: Tensor, dtype: torch.dtype | None, offset: int) -> Tensor:
    """Ones on a diagonal, of the shape of ``x``."""
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape)
    return (columns.unsqueeze(0) - rows.unsqueeze(1) == offset).to(dtype or x.dtype)


CONVERTERS = (
    Converter("EyeLike", _eye_like),
    Converter("Multinomial", _multinomial),
    Converter("NonZero", _non_zero),
    Converter("OneHot", _one_hot),
    Converter("RandomNormal", _shaped("Normal", normal)),
    Converter("RandomNormalLike", _like("Normal", normal_like)),
    Converter("RandomUniform", _shaped("Uniform", uniform)),
    Converter("RandomUniformLike", _like("Uniform", uniform_like)),
    Converter("Range", _range),
    Converter("Size", host_only, host=_size),
)
