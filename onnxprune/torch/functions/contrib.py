"""Operators that onnxruntime's optimiser writes in place of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

Tensor = torch.Tensor


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Gelu of a sum."""
    return F.gelu(x + bias)


def fast_gelu(x: Tensor, bias: Tensor | None) -> Tensor:
    """Gelu by its tanh approximation."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def quick_gelu(x: Tensor, alpha: float) -> Tensor:
    """x · sigmoid(alpha · x)."""
    return x * torch.sigmoid(alpha * x)


def fused_matmul(a: Tensor, b: Tensor, alpha: float, flags: Mapping[str, int]) -> Tensor:
    """alpha · a · b, each transposed in the last two dimensions, or its batch dimensions moved before the last."""
    left = _arranged(a, flags["transA"], flags["transBatchA"])
    right = _arranged(b, flags["transB"], flags["transBatchB"])
    return torch.matmul(left, right) * alpha


def _arranged(x: Tensor, transposed: int, batch: int) -> Tensor:
    if x.dim() < 2:
        return x
    moved = x.movedim(0, -2) if batch else x
    return moved.transpose(-1, -2) if transposed else moved


def skip_layer_norm(
    x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None, extra: Tensor | None, epsilon: float, simplified: bool
) -> tuple[Tensor, Tensor]:
    """Normalise the sum of a stream and what is added to it; returns that sum as well."""
    total = x + skip if extra is None else x + skip + extra
    if simplified:
        y = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon) * scale
    else:
        y = F.layer_norm(total, total.shape[-1:], scale, bias, epsilon)
    return y, total


_ACTIVATIONS: Mapping[str, Callable[[Tensor, Sequence[float]], Tensor]] = {
    "Clip": lambda x, p: x.clamp(*p),
    "HardSigmoid": lambda x, p: (p[0] * x + p[1]).clamp(0, 1) if p else F.hardsigmoid(x),
    "HardSwish": lambda x, p: F.hardswish(x),
    "LeakyRelu": lambda x, p: F.leaky_relu(x, p[0] if p else 0.01),
    "Relu": lambda x, p: F.relu(x),
    "Sigmoid": lambda x, p: torch.sigmoid(x),
    "Tanh": lambda x, p: torch.tanh(x),
}
ACTIVATIONS = frozenset(_ACTIVATIONS)
"""What :func:`activate` knows."""


def activate(x: Tensor, name: str, parameters: Sequence[float], addend: Any = None) -> Tensor:
    """An activation by name, of ``x`` or of its sum with another tensor."""
    return _ACTIVATIONS[name](x if addend is None else x + addend, parameters)
