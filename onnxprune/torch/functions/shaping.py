"""Shapes: what ONNX's operators say about them, with sizes that may be known only at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

Tensor = torch.Tensor


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


def squeeze(x: Tensor, axes: Sequence[int] | None) -> Tensor:
    """Without dimensions of extent 1: those given, or all."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def unsqueeze(x: Tensor, axes: Sequence[int]) -> Tensor:
    """With dimensions of extent 1, which have these places in the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(a % rank for a in axes):
        x = x.unsqueeze(axis)
    return x


def transpose(x: Tensor, order: Sequence[int] | None) -> Tensor:
    """Dimensions in another order; without one, in reverse."""
    return x.permute(tuple(reversed(range(x.dim()))) if order is None else tuple(order))


def expand(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast with a shape, in both directions."""
    extents = (1,) * (x.dim() - len(shape)) + tuple(shape)
    # Aligned from the last dimension; where the shape says 1, the input's extent stays.
    own = (1,) * (len(extents) - x.dim()) + tuple(x.shape)
    return x.expand(tuple(n if m == 1 else m for n, m in zip(own, extents, strict=True)))


def tile(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """The whole, repeated along each dimension."""
    return x.repeat(tuple(repeats))


def depth_to_space(x: Tensor, block: int, columns_first: bool) -> Tensor:
    """Channels to blocks of pixels; the order is DCR, or CRD if ``columns_first``."""
    n, c, h, w = x.shape
    depth = c // (block * block)
    if columns_first:
        parts = x.reshape(n, depth, block, block, h, w).permute(0, 1, 4, 2, 5, 3)
    else:
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


def arange(start: float, limit: float, step: float, dtype: torch.dtype, like: Tensor | None) -> Tensor:
    """Numbers from ``start`` on, before ``limit``."""
    return torch.arange(start, limit, step, dtype=dtype, device=None if like is None else like.device)


def eye_like(x: Tensor, dtype: torch.dtype | None, offset: int) -> Tensor:
    """Ones on a diagonal, of the shape of ``x``."""
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape)
    return (columns.unsqueeze(0) - rows.unsqueeze(1) == offset).to(dtype or x.dtype)


def triangle(x: Tensor, offset: int, upper: bool) -> Tensor:
    """The part above or below a diagonal, zeros elsewhere."""
    return torch.triu(x, offset) if upper else torch.tril(x, offset)


def cumulative_sum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Sums of all values so far."""
    source = x.flip(axis) if reverse else x
    sums = torch.cumsum(source, axis, dtype=x.dtype)
    if exclusive:
        sums = sums - source
    return sums.flip(axis) if reverse else sums
