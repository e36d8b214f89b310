"""Random tensors; seeds of the file are not followed, since no two frameworks draw the same numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Tensor = torch.Tensor


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


def bernoulli(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """One with the probability that the tensor gives, else zero."""
    return torch.bernoulli(x.float()).to(dtype or x.dtype)


def multinomial(x: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """Classes drawn by their log-probabilities, with replacement."""
    return torch.multinomial(x.float().softmax(-1), count, replacement=True).to(dtype)
