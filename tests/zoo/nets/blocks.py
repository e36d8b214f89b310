"""Blocks that several of the networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Activation = Callable[[], nn.Module]


def relu() -> nn.Module:
    """A ReLU that works in place, as torchvision's do."""
    return nn.ReLU(inplace=True)


def conv_norm(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = relu,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution with "same" padding and no bias, BatchNorm, and the activation if there is one."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs, eps=eps)
    return nn.Sequential(conv, norm) if activation is None else nn.Sequential(conv, norm, activation())


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means: (N, C, H, W) to the same shape."""

    def __init__(self, channels: int, squeezed: int, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` times its gate."""
        gate: torch.Tensor = self.gate(self.expand(self.activation(self.reduce(self.pool(x)))))
        return gate * x


class Residual(nn.Module):
    """`activation(branch(x) + skip(x))`; no skip means the input itself, no activation the plain sum."""

    def __init__(self, branch: nn.Module, skip: nn.Module | None = None, activation: Activation | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.skip = skip or nn.Identity()
        self.activation = activation() if activation else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activated sum, of the branch's shape."""
        result: torch.Tensor = self.activation(self.branch(x) + self.skip(x))
        return result


def pooled_classifier(channels: int, classes: int = 1000) -> nn.Sequential:
    """Global average pooling and a linear layer: (N, C, H, W) to (N, classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, classes))
