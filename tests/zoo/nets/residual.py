"""ResNet, ResNeXt and RegNetY."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .blocks import Residual, SqueezeExcite, conv_norm, pooled_classifier, relu

_STAGE_WIDTHS = (64, 128, 256, 512)


def resnet(depths: Sequence[int], *, bottleneck: bool, groups: int = 1, group_width: int = 64) -> nn.Module:
    """A ResNet, or a ResNeXt when there are groups; bottlenecks stride in their 3 x 3 convolution."""
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, (depth, width) in enumerate(zip(depths, _STAGE_WIDTHS, strict=True)):
        outputs = 4 * width if bottleneck else width
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            if bottleneck:
                inner = width * group_width // 64 * groups
                branch = nn.Sequential(
                    conv_norm(channels, inner),
                    conv_norm(inner, inner, 3, stride, groups),
                    conv_norm(inner, outputs, activation=None),
                )
            else:
                branch = nn.Sequential(
                    conv_norm(channels, width, 3, stride), conv_norm(width, width, 3, activation=None)
                )
            layers.append(Residual(branch, _projection(channels, outputs, stride), relu))
            channels = outputs
    return nn.Sequential(*layers, pooled_classifier(channels))


def regnet_y(depths: Sequence[int], widths: Sequence[int], group_width: int) -> nn.Module:
    """A RegNetY: groups of fixed width, squeeze-excite to a quarter of the block's input."""
    layers: list[nn.Module] = [conv_norm(3, 32, 3, 2)]
    channels = 32
    for depth, width in zip(depths, widths, strict=True):
        for block in range(depth):
            stride = 2 if block == 0 else 1
            branch = nn.Sequential(
                conv_norm(channels, width),
                conv_norm(width, width, 3, stride, width // group_width),
                SqueezeExcite(width, round(0.25 * channels), relu, nn.Sigmoid),
                conv_norm(width, width, activation=None),
            )
            layers.append(Residual(branch, _projection(channels, width, stride), relu))
            channels = width
    return nn.Sequential(*layers, pooled_classifier(channels))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if inputs == outputs and stride == 1:
        return None
    return conv_norm(inputs, outputs, 1, stride, activation=None)
