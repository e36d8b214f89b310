"""Convolutions whose padding is uneven or follows the input's size, or whose weight is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

Tensor = torch.Tensor

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def padded(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Tensor:
    """Spatial axes padded (cropped, where negative)."""
    amounts = [n for pair in zip(reversed(begins), reversed(ends), strict=True) for n in pair]
    return F.pad(x, amounts, value=value)


def same_pads(
    extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], upper: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each spatial axis such that there are ceil(extent / stride) windows."""
    begins, ends = [], []
    for extent, k, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        windows = (extent + stride - 1) // stride
        total = (windows - 1) * stride + (k - 1) * dilation + 1 - extent
        total = total if total > 0 else 0
        less = total // 2
        begins.append(less if upper else total - less)
        ends.append(total - less if upper else less)
    return tuple(begins), tuple(ends)


def pad_same(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    upper: bool,
    value: float = 0.0,
) -> Tensor:
    """The input padded for ``auto_pad`` SAME_UPPER or SAME_LOWER."""
    return padded(x, *same_pads(x.shape[2:], kernel, strides, dilations, upper), value)


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, dilation: Any, groups: int) -> Tensor:
    """A convolution without padding."""
    return _CONV[weight.dim() - 2](x, weight, bias, stride, 0, dilation, groups)


def transpose_module(x: Tensor, rank: int, weight: Tensor, bias: Tensor | None, settings: dict[str, Any]) -> Tensor:
    """A transposed convolution cropped or extended to the size that ONNX asks for.

    ``settings`` holds stride, dilation, groups, output_padding, begins and ends (or None), upper, and output_shape
    (or None).
    """
    stride, dilation, extra = settings["stride"], settings["dilation"], settings["output_padding"]
    y = _TRANSPOSE[rank](x, weight, None, stride, 0, 0, settings["groups"], dilation)
    begins, ends = settings["begins"], settings["ends"]
    wanted = settings["output_shape"]
    if wanted is None and begins is None:
        wanted = tuple(n * s for n, s in zip(x.shape[2:], stride, strict=True))
    if wanted is not None:
        begins, ends = _crop_to(
            tuple(n + e for n, e in zip(y.shape[2:], extra, strict=True)), wanted, settings["upper"]
        )
    y = padded(y, [-b for b in begins], [e - n for e, n in zip(extra, ends, strict=True)])
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def _crop_to(full: Sequence[int], wanted: Sequence[int], upper: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    totals = [have - want for have, want in zip(full, wanted[-len(full) :], strict=True)]
    less = tuple(total // 2 for total in totals)
    more = tuple(total - part for total, part in zip(totals, less, strict=True))
    return (less, more) if upper else (more, less)


class ConvTranspose(nn.Module):
    """A transposed convolution with padding that ``nn.ConvTranspose2d`` does not have."""

    bias: nn.Parameter | None

    def __init__(self, weight_shape: Sequence[int], bias: bool, settings: dict[str, Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(*weight_shape))
        channels = weight_shape[1] * settings["groups"]
        self.register_parameter("bias", nn.Parameter(torch.empty(channels)) if bias else None)
        self.settings = settings

    def forward(self, x: Tensor) -> Tensor:
        """The transposed convolution of (N, C, d1…)."""
        return transpose_module(x, self.weight.dim() - 2, self.weight, self.bias, self.settings)

    def extra_repr(self) -> str:
        """Its settings, for printing."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())
