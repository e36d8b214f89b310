"""Elementwise operators that PyTorch defines otherwise."""

from __future__ import annotations

import functools
import operator
from typing import Any

import torch

Tensor = torch.Tensor

WIDE_UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})
"""Types that PyTorch stores but hardly computes with."""


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Division; of integers towards zero."""
    if a.is_floating_point() or b.is_floating_point():
        return torch.true_divide(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def power(base: Tensor, exponent: Tensor | float) -> Tensor:
    """A power, of the type of the base."""
    if isinstance(exponent, Tensor) and exponent.is_floating_point() and not base.is_floating_point():
        return torch.pow(base.to(exponent.dtype), exponent).to(base.dtype)
    if isinstance(exponent, float) and not base.is_floating_point():
        return torch.pow(base.double(), exponent).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


def add_all(*operands: Tensor) -> Tensor:
    """The sum of all operands, broadcast."""
    return functools.reduce(operator.add, operands)


def mean_of(*operands: Tensor) -> Tensor:
    """The mean of all operands, broadcast."""
    return add_all(*operands) / len(operands)


def maximum_of(*operands: Tensor) -> Tensor:
    """The largest of all operands, broadcast."""
    return functools.reduce(torch.maximum, operands)


def minimum_of(*operands: Tensor) -> Tensor:
    """The smallest of all operands, broadcast."""
    return functools.reduce(torch.minimum, operands)


def clip(x: Tensor, low: Any, high: Any) -> Tensor:
    """Values within the bounds, of which either may be None."""
    if low is None and high is None:
        return x
    if x.dtype in WIDE_UNSIGNED:
        return clip(x.to(torch.int64), low, high).to(x.dtype)
    if isinstance(low, Tensor) != isinstance(high, Tensor):
        # clamp wants both bounds in the same form.
        low, high = (None if b is None else torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in (low, high))
    return torch.clamp(x, low, high)


def shift(x: Tensor, amount: Tensor, left: bool) -> Tensor:
    """Bits shifted, zeros coming in."""
    if x.dtype == torch.uint8:
        moved = x.to(torch.int64) << amount.to(torch.int64) if left else x >> amount
        return moved.to(x.dtype)
    wide, by = x.to(torch.int64), amount.to(torch.int64)
    return (wide << by if left else wide >> by).to(x.dtype)


def is_infinite(x: Tensor, positive: bool, negative: bool) -> Tensor:
    """Where the value is infinite, with one of the signs asked for."""
    if positive and negative:
        return torch.isinf(x)
    if positive:
        return torch.isposinf(x)
    return torch.isneginf(x) if negative else torch.zeros_like(x, dtype=torch.bool)


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` where the condition holds, else ``b``."""
    return torch.where(condition.bool(), a, b)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """A straight line from 0 to 1."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    """Selu with factors of its own."""
    return gamma * (torch.clamp(x, min=0) + alpha * torch.expm1(torch.clamp(x, max=0)))


def swish(x: Tensor, alpha: float) -> Tensor:
    """x · sigmoid(alpha · x)."""
    return x * torch.sigmoid(alpha * x)


def shrink(x: Tensor, bias: float, threshold: float) -> Tensor:
    """Values nearer to zero than the threshold become zero, others move by the bias towards it."""
    above, below = x > threshold, x < -threshold
    return torch.where(above, x - bias, torch.where(below, x + bias, torch.zeros_like(x))).to(x.dtype)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Negative values times a slope that broadcasts."""
    return torch.where(x < 0, slope * x, x)


def softmax_from(x: Tensor, axis: int, log: bool) -> Tensor:
    """Softmax over all dimensions from ``axis`` on, as it was before opset 13."""
    flat = x.flatten(axis) if x.dim() else x
    axis = axis + x.dim() if axis < 0 else axis
    result = torch.log_softmax(flat, axis) if log else torch.softmax(flat, axis)
    return result.reshape(x.shape)


def hardmax(x: Tensor, axis: int, from_axis: bool) -> Tensor:
    """One at the first largest value along an axis (along all from it on), zero elsewhere."""
    axis = axis + x.dim() if axis < 0 else axis
    flat = x.flatten(axis) if from_axis else x
    best = flat.argmax(axis, keepdim=True)
    return torch.zeros_like(flat).scatter_(axis, best, 1).reshape(x.shape)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Another type; floats lose their fraction, and what is not zero is true."""
    if dtype in WIDE_UNSIGNED or dtype == torch.uint8:
        return (x.to(torch.int64) if x.is_floating_point() else x).to(dtype)
    return x.to(dtype)


def cast_like(x: Tensor, other: Tensor) -> Tensor:
    """The type of another tensor."""
    return cast(x, other.dtype)
