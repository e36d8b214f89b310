"""The networks of the accuracy study: in the spirit of the paper's, small enough for one core.

All take (N, 1, 28, 28); a first stride of 2 brings that to 14 × 14.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from models.networks_torch import CLASSES, ResidualBlock, conv_bn


class VggLike(nn.Module):
    """VGG-16's thirteen convolutions and three fully connected layers, with an eighth of the filters."""

    def __init__(self, stages: Sequence[tuple[int, int]] = ((8, 2), (16, 2), (32, 3), (48, 3), (48, 3))) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for stage, (width, count) in enumerate(stages):
            for index in range(count):
                layers += [conv_bn(inputs, width, stride=2 if stage == index == 0 else 1), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class ResNet20(nn.Module):
    """ResNet-20 for small images: three stages of three basic blocks, at half its width."""

    def __init__(self, widths: Sequence[int] = (8, 16, 32), blocks: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn(1, widths[0], stride=2), nn.ReLU()]
        inputs = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(ResidualBlock(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return logits


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, project: the block of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [conv_bn(inputs, inner, 1), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand, conv_bn(inner, inner, 3, stride, groups=inner), nn.ReLU6(), conv_bn(inner, outputs, 1)
        )
        self.has_shortcut = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


class MobileNetV2Like(nn.Module):
    """MobileNetV2 with fewer, narrower blocks. ``stages``: expansion, width, blocks, stride."""

    def __init__(
        self,
        stem: int = 16,
        stages: Sequence[tuple[int, int, int, int]] = ((1, 8, 1, 2), (6, 16, 2, 1), (6, 24, 2, 2), (6, 32, 1, 1)),
        last: int = 256,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn(1, stem, stride=2), nn.ReLU6()]
        inputs = stem
        for expansion, width, count, stride in stages:
            for block in range(count):
                layers.append(InvertedResidual(inputs, width, expansion, stride if block == 0 else 1))
                inputs = width
        self.features = nn.Sequential(*layers, conv_bn(inputs, last, 1), nn.ReLU6())
        self.head = nn.Linear(last, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return logits


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "mobilenetv2": MobileNetV2Like,
    "vgg16": VggLike,
    "resnet20": ResNet20,
}


def build(name: str, seed: int) -> nn.Module:
    """A network with fresh weights."""
    torch.manual_seed(seed)
    return NETWORKS[name]()
