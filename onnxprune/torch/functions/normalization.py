"""Normalisation with operands that are computed, or in ways that ``torch.nn`` does not have."""

from __future__ import annotations

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

Tensor = torch.Tensor


def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """Normalise channels by given statistics."""
    channels = (1, -1) + (1,) * (x.dim() - 2)
    scale, bias, mean, variance = (v.reshape(channels) for v in (scale, bias, mean, variance))
    return ((x - mean) * torch.rsqrt(variance + epsilon) * scale + bias).to(x.dtype)


def batch_norm_training(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise channels by the statistics of the batch; returns the running ones as well."""
    dims = [d for d in range(x.dim()) if d != 1]
    own_mean, own_variance = x.mean(dims), x.var(dims, correction=0)
    y = batch_norm(x, scale, bias, own_mean, own_variance, epsilon)
    running = mean * momentum + own_mean * (1 - momentum), variance * momentum + own_variance * (1 - momentum)
    return y, running[0].to(mean.dtype), running[1].to(variance.dtype)


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalise every channel of every sample by itself."""
    dims = tuple(range(2, x.dim()))
    centred = x - x.mean(dims, keepdim=True)
    channels = (-1,) + (1,) * (x.dim() - 2)
    normal = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + epsilon)
    return normal * scale.reshape(channels) + bias.reshape(channels)


def layer_norm(
    x: Tensor, scale: Tensor | None, bias: Tensor | None, axis: int, epsilon: float, stash: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise over all dimensions from ``axis`` on; returns mean and inverse deviation as well."""
    dims = tuple(range(axis % x.dim(), x.dim()))
    wide = x if stash is None else x.to(stash)
    mean = wide.mean(dims, keepdim=True)
    centred = wide - mean
    inverse = torch.rsqrt(centred.square().mean(dims, keepdim=True) + epsilon)
    y = (centred * inverse).to(x.dtype)
    y = y if scale is None else y * scale
    return (y if bias is None else y + bias), mean, inverse


def rms_norm(x: Tensor, scale: Tensor, axis: int, epsilon: float, stash: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Divide by the root of the mean square over all dimensions from ``axis`` on; returns the inverse as well."""
    dims = tuple(range(axis % x.dim(), x.dim()))
    wide = x if stash is None else x.to(stash)
    inverse = torch.rsqrt(wide.square().mean(dims, keepdim=True) + epsilon)
    return (wide * inverse).to(x.dtype) * scale, inverse


def group_norm(x: Tensor, scale: Tensor, bias: Tensor, groups: int, epsilon: float, per_group: bool) -> Tensor:
    """Normalise groups of channels; scale and bias are per channel, or per group (opset 18)."""
    normal = F.group_norm(x, groups, eps=epsilon)
    if per_group:
        each = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    channels = (-1,) + (1,) * (x.dim() - 2)
    return normal * scale.reshape(channels) + bias.reshape(channels)


def lp_normalize(x: Tensor, axis: int, p: int) -> Tensor:
    """Divide by the p-norm along an axis; what has norm zero stays zero."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))


def mean_variance_normalize(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Mean zero and variance one over the axes."""
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


def local_response(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """Divide by a power of the sum of squares of the neighbouring channels."""
    before = (size - 1) // 2
    squares = F.pad(x.square().flatten(2).movedim(1, -1), (before, size - 1 - before))
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1).reshape(x.shape)
    return x / (bias + alpha / size * sums).pow(beta)
