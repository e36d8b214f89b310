"""DenseNet and GoogLeNet: networks built on Concat."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from .blocks import conv_norm, pooled_classifier, relu

_GROWTH = 32

_INCEPTIONS = (  # widths: 1x1, reduced and 3x3, reduced and 3x3 again, pooled; a number: max pooling
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    3,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    2,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


class _DenseLayer(nn.Module):
    """Append 32 computed channels to the input."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs),
            relu(),
            conv_norm(inputs, 4 * _GROWTH),
            nn.Conv2d(4 * _GROWTH, _GROWTH, 3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.layers(x)], dim=1)


def densenet(depths: Sequence[int]) -> nn.Module:
    """A DenseNet with growth 32; each transition halves the channels."""
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            layers.append(_DenseLayer(channels))
            channels += _GROWTH
        layers += [nn.BatchNorm2d(channels), relu()]
        if stage < len(depths) - 1:
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
            channels //= 2
    return nn.Sequential(*layers, pooled_classifier(channels))


class _Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        conv = partial(conv_norm, eps=1e-3)
        one, reduced, three, reduced_again, five, pooled = widths
        self.branches = nn.ModuleList(
            [
                conv(inputs, one),
                nn.Sequential(conv(inputs, reduced), conv(reduced, three, 3)),
                nn.Sequential(conv(inputs, reduced_again), conv(reduced_again, five, 3)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), conv(inputs, pooled)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def googlenet() -> nn.Module:
    """GoogLeNet with BatchNorm and without auxiliary heads."""
    conv = partial(conv_norm, eps=1e-3)
    layers: list[nn.Module] = [
        conv(3, 64, 7, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        conv(64, 64),
        conv(64, 192, 3),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    ]
    channels = 192
    for widths in _INCEPTIONS:
        if isinstance(widths, int):
            layers.append(nn.MaxPool2d(widths, 2, ceil_mode=True))
            continue
        layers.append(_Inception(channels, widths))
        channels = widths[0] + widths[2] + widths[4] + widths[5]
    return nn.Sequential(*layers, pooled_classifier(channels))
