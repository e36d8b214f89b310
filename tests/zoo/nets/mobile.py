"""MobileNetV2, MobileNetV3-small, EfficientNet-B0 and ShuffleNetV2."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import Activation, Residual, SqueezeExcite, conv_norm, pooled_classifier, relu

# ---------------------------------------------------------------- MobileNetV2

_V2_STAGES = (  # expansion, channels, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _relu6() -> nn.Module:
    return nn.ReLU6(inplace=True)


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.conv = nn.Sequential(
            *([] if expansion == 1 else [conv_norm(inputs, inner, activation=_relu6)]),
            conv_norm(inner, inner, 3, stride, inner, _relu6),
            nn.Conv2d(inner, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        return x + y if self.is_residual else y


class MobileNetV2(nn.Module):
    """MobileNetV2; its parameters carry torchvision's names, so published weights load as they are."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [conv_norm(3, 32, 3, 2, activation=_relu6)]
        channels = 32
        for expansion, outputs, count, stride in _V2_STAGES:
            for block in range(count):
                blocks.append(_InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        blocks.append(conv_norm(channels, 1280, activation=_relu6))
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (N, 1000) of images (N, 3, H, W)."""
        features = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        scores: torch.Tensor = self.classifier(torch.flatten(features, 1))
        return scores


# ---------------------------------------------------------------- MobileNetV3-small and EfficientNet-B0

_V3_SMALL = (  # kernel, inner, outputs, squeeze-excite, hard swish, stride
    (3, 16, 16, True, False, 2),
    (3, 72, 24, False, False, 2),
    (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2),
    (5, 240, 40, True, True, 1),
    (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1),
    (5, 144, 48, True, True, 1),
    (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1),
    (5, 576, 96, True, True, 1),
)

_B0_STAGES = (  # expansion, kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def mobilenet_v3_small() -> nn.Module:
    """MobileNetV3-small: hard activations, squeeze-excite with a hard gate."""
    layers: list[nn.Module] = [conv_norm(3, 16, 3, 2, activation=nn.Hardswish, eps=1e-3)]
    channels = 16
    for kernel, inner, outputs, has_gate, is_hard, stride in _V3_SMALL:
        activation: Activation = nn.Hardswish if is_hard else relu
        squeezed = _multiple_of_eight(inner / 4)
        gate = SqueezeExcite(inner, squeezed, relu, nn.Hardsigmoid) if has_gate else None
        layers.append(_mobile_block(channels, inner, outputs, kernel, stride, gate, activation, 1e-3))
        channels = outputs
    layers += [
        conv_norm(channels, 6 * channels, activation=nn.Hardswish, eps=1e-3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(6 * channels, 1024),
        nn.Hardswish(),
        nn.Linear(1024, 1000),
    ]
    return nn.Sequential(*layers)


def efficientnet_b0() -> nn.Module:
    """EfficientNet-B0: SiLU throughout, squeeze-excite to a quarter of the block's input."""
    layers: list[nn.Module] = [conv_norm(3, 32, 3, 2, activation=nn.SiLU)]
    channels = 32
    for expansion, kernel, first_stride, outputs, count in _B0_STAGES:
        for block in range(count):
            inner = channels * expansion
            stride = first_stride if block == 0 else 1
            gate = SqueezeExcite(inner, channels // 4, nn.SiLU, nn.Sigmoid)
            layers.append(_mobile_block(channels, inner, outputs, kernel, stride, gate, nn.SiLU, 1e-5))
            channels = outputs
    layers += [conv_norm(channels, 1280, activation=nn.SiLU), pooled_classifier(1280)]
    return nn.Sequential(*layers)


def _mobile_block(
    inputs: int,
    inner: int,
    outputs: int,
    kernel: int,
    stride: int,
    gate: nn.Module | None,
    activation: Activation,
    eps: float,
) -> nn.Module:
    """Expand (unless that changes nothing), depthwise, gate, project; residual where shapes allow."""
    layers: list[nn.Module] = []
    if inner != inputs:
        layers.append(conv_norm(inputs, inner, activation=activation, eps=eps))
    layers.append(conv_norm(inner, inner, kernel, stride, inner, activation, eps))
    if gate is not None:
        layers.append(gate)
    layers.append(conv_norm(inner, outputs, activation=None, eps=eps))
    branch = nn.Sequential(*layers)
    return Residual(branch) if stride == 1 and inputs == outputs else branch


def _multiple_of_eight(value: float) -> int:
    """The nearest multiple of 8, at least 8 and not more than a tenth below `value`."""
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * value else rounded + 8


# ---------------------------------------------------------------- ShuffleNetV2

_SHUFFLE_STAGES = ((4, 116), (8, 232), (4, 464))  # blocks, channels


class _ShuffleUnit(nn.Module):
    """Half of the channels pass (or have a branch of their own), half are worked on; then shuffle."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        worked = half if stride == 1 else inputs
        self.is_split = stride == 1
        self.passing: nn.Module = nn.Identity()
        if not self.is_split:
            self.passing = nn.Sequential(conv_norm(inputs, inputs, 3, stride, inputs, None), conv_norm(inputs, half))
        self.working = nn.Sequential(
            conv_norm(worked, half), conv_norm(half, half, 3, stride, half, None), conv_norm(half, half)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=1) if self.is_split else (x, x)
        joined = torch.cat((self.passing(left), self.working(right)), dim=1)
        batch, channels, height, width = joined.shape
        pairs = joined.view(batch, 2, channels // 2, height, width)
        return torch.transpose(pairs, 1, 2).contiguous().view(batch, channels, height, width)


def shufflenet_v2() -> nn.Module:
    """ShuffleNetV2 x1.0."""
    layers: list[nn.Module] = [conv_norm(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 24
    for count, outputs in _SHUFFLE_STAGES:
        for block in range(count):
            layers.append(_ShuffleUnit(channels, outputs, 2 if block == 0 else 1))
            channels = outputs
    return nn.Sequential(*layers, conv_norm(channels, 1024), pooled_classifier(1024))
