"""The networks written in PyTorch. All take (N, 1, 28, 28) float32 in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own habit)

CLASSES = 10


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps the extent (apart from its stride), and its normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(inputs, outputs, stride=stride)
        self.second = conv_bn(outputs, outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.relu(self.first(x)))
        return F.relu(y + self.shortcut(x))


class Residual(nn.Module):
    """A small ResNet: three stages of basic blocks, global average pooling, one linear layer."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64), blocks: Sequence[int] = (2, 2, 1)) -> None:
        super().__init__()
        self.stem = conv_bn(1, widths[0])
        stages: list[nn.Module] = []
        inputs = widths[0]
        for index, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                stride = 2 if index > 0 and block == 0 else 1
                stages.append(ResidualBlock(inputs, width, stride))
                inputs = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = F.adaptive_avg_pool2d(self.stages(x), 1).flatten(1)
        logits: Tensor = self.head(x)
        return logits


class SqueezeExcite(nn.Module):
    """Scales every channel by a gate computed from the means of all channels."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)


class InvertedResidual(nn.Module):
    """Expand, depthwise convolution, squeeze-and-excite, project: the block of MobileNetV3."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int = 3) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = conv_bn(inputs, inner, 1)
        self.depthwise = conv_bn(inner, inner, kernel, stride, groups=inner)
        self.gate = SqueezeExcite(inner, inner // 4)
        self.project = conv_bn(inner, outputs, 1)
        self.has_shortcut = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        inner = F.hardswish(self.depthwise(F.hardswish(self.expand(x))))
        y: Tensor = self.project(self.gate(inner))
        return x + y if self.has_shortcut else y


class Depthwise(nn.Module):
    """A small MobileNetV3: depthwise convolutions with squeeze-and-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(1, 16, stride=2)
        self.blocks = nn.Sequential(
            InvertedResidual(16, 16, 3, 1),
            InvertedResidual(16, 24, 4, 2, kernel=5),
            InvertedResidual(24, 24, 4, 1, kernel=5),
            InvertedResidual(24, 40, 4, 2),
            InvertedResidual(40, 40, 4, 1),
        )
        self.last = conv_bn(40, 160, 1)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(160, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.hardswish(self.stem(x)))
        x = F.hardswish(self.last(x)).mean((2, 3))
        logits: Tensor = self.head(self.dropout(x))
        return logits


class DenseLayer(nn.Module):
    """Adds ``growth`` channels computed from all channels so far."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.reduce = conv_bn(inputs, 2 * growth, 1)
        self.grow = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.reduce(F.relu(self.norm(x))))
        return torch.cat([x, self.grow(y)], 1)


class Dense(nn.Module):
    """A small DenseNet: normalisation comes before the convolutions, so exporters cannot fold all of it."""

    def __init__(self, growth: int = 12, blocks: Sequence[int] = (4, 4, 4)) -> None:
        super().__init__()
        channels = 2 * growth
        self.stem = conv_bn(1, channels, stride=2)
        features: list[nn.Module] = []
        for index, layers in enumerate(blocks):
            if index > 0:  # a transition halves channels and extent
                features += [nn.BatchNorm2d(channels), nn.ReLU()]
                features += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
                channels //= 2
            for _ in range(layers):
                features.append(DenseLayer(channels, growth))
                channels += growth
        features += [nn.BatchNorm2d(channels), nn.ReLU()]
        self.features = nn.Sequential(*features)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(F.relu(self.stem(x)))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class Vgg(nn.Module):
    """Plain convolutions, then Flatten over 3 x 3 positions into two fully connected layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for width, count in ((16, 1), (32, 2), (48, 2)):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(48 * 9, 96), nn.ReLU(), nn.Dropout(0.3), nn.Linear(96, CLASSES)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two normalised convolutions with ReLU: a level of the U-Net."""
    return nn.Sequential(conv_bn(inputs, outputs), nn.ReLU(), conv_bn(outputs, outputs), nn.ReLU())


class UNet(nn.Module):
    """Down three levels and up again by ConvTranspose, with concatenated skips.

    Gives logits (N, 1, 28, 28).
    """

    def __init__(self, widths: tuple[int, int, int] = (12, 24, 48)) -> None:
        super().__init__()
        top, middle, bottom = widths
        self.down1 = double_conv(1, top)
        self.down2 = double_conv(top, middle)
        self.bottom = double_conv(middle, bottom)
        self.up2 = nn.ConvTranspose2d(bottom, middle, 2, 2)
        self.merge2 = double_conv(2 * middle, middle)
        self.up1 = nn.ConvTranspose2d(middle, top, 2, 2)
        self.merge1 = double_conv(2 * top, top)
        self.head = nn.Conv2d(top, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip1 = self.down1(x)
        skip2 = self.down2(F.max_pool2d(skip1, 2))
        x = self.bottom(F.max_pool2d(skip2, 2))
        x = self.merge2(torch.cat([self.up2(x), skip2], 1))
        x = self.merge1(torch.cat([self.up1(x), skip1], 1))
        logits: Tensor = self.head(x)
        return logits
