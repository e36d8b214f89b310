"""Convolution: modules of ``torch.nn``, and functions where padding is uneven or the weight is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.ir.graph import Node, UnknownShapeError
from onnxprune.ops.convolution import same_pads
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.layouts import AsIs

Tensor = torch.Tensor

_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONVOLVE_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}
_CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSE: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_MOST_SPATIAL = 3


@dataclass(frozen=True)
class Window:
    """What convolution and pooling attributes say; ``begins`` and ``ends`` are None where sizes decide."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...] | None
    ends: tuple[int, ...] | None
    upper: bool

    @property
    def symmetric(self) -> bool:
        """Whether padding is known and the same on both sides."""
        return self.begins is not None and self.begins == self.ends


def window(node: Node, kernel: tuple[int, ...]) -> Window:
    """The attributes of a node, with ONNX's defaults."""
    count = len(kernel)
    strides = tuple(node.attr("strides", (1,) * count))
    dilations = tuple(node.attr("dilations", (1,) * count))
    auto_pad = node.attr("auto_pad", "NOTSET")
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return Window(kernel, strides, dilations, None, None, auto_pad == "SAME_UPPER")
    pads = tuple(node.attr("pads", (0,) * 2 * count)) if auto_pad != "VALID" else (0,) * 2 * count
    return Window(kernel, strides, dilations, pads[:count], pads[count:], True)


def fixed_same(found: Window) -> Window:
    """SAME padding as numbers where it does not depend on the input's size: at stride 1."""
    if found.begins is not None or any(stride != 1 for stride in found.strides):
        return found
    begins, ends = same_pads((1,) * len(found.kernel), found.kernel, found.strides, found.dilations, True)
    if not found.upper:
        begins, ends = ends, begins
    return Window(found.kernel, found.strides, found.dilations, begins, ends, found.upper)


def pad_input(x: fx.Node, found: Window, build: Builder, value: float = 0.0) -> fx.Node:
    """The input with the window's padding applied."""
    if found.begins is None:
        return build.call(pad_same, x, found.kernel, found.strides, found.dilations, found.upper, value)
    if not any(found.begins) and not any(found.ends or ()):
        return x
    return build.call(padded, x, found.begins, found.ends, value)


def _kernel(node: Node) -> tuple[int, ...]:
    return tuple(node.attr("kernel_shape") or node.in_shape(1)[2:])


def convolution(node: Node, build: Builder) -> fx.Node:
    """A convolution: a module where weight and bias are weights, else a call."""
    found = fixed_same(window(node, _kernel(node)))
    group = node.attr("group", 1)
    x = build.tensor(node, 0)
    if not found.symmetric:
        x = pad_input(x, found, build)
    padding = found.begins if found.symmetric else (0,) * len(found.kernel)
    if build.fits(node, 1, AsIs()) and (not build.has(node, 2) or build.fits(node, 2, AsIs())):
        out, per_group = node.in_shape(1)[:2]
        module = _CONV[len(found.kernel)](
            per_group * group, out, found.kernel, found.strides, padding, found.dilations, group, build.has(node, 2),
            device="meta",
        )  # fmt: skip
        return build.module(node, module, x, weights=_weights(node, build))
    if found.symmetric:
        x = pad_input(x, found, build)
    bias = build.optional(node, 2)
    return build.call(convolve, x, build.tensor(node, 1), bias, found.strides, found.dilations, group)


def _weights(node: Node, build: Builder) -> dict[str, tuple[str, Any]]:
    weights = {"weight": (node.inputs[1], AsIs())}
    if build.has(node, 2):
        weights["bias"] = (node.inputs[2], AsIs())
    return weights


def _transpose(node: Node, build: Builder) -> fx.Node:
    found = window(node, _kernel(node))
    count, group = len(found.kernel), node.attr("group", 1)
    extra = tuple(node.attr("output_padding", (0,) * count))
    wanted = node.attr("output_shape")
    fits = build.fits(node, 1, AsIs()) and (not build.has(node, 2) or build.fits(node, 2, AsIs()))
    small = all(e < max(s, d) for e, s, d in zip(extra, found.strides, found.dilations, strict=True))
    x = build.tensor(node, 0)
    if fits and found.symmetric and wanted is None and small:
        into, per_group = node.in_shape(1)[:2]
        module = _TRANSPOSE[count](
            into, per_group * group, found.kernel, found.strides, found.begins, extra, group, build.has(node, 2),
            found.dilations, device="meta",
        )  # fmt: skip
        return build.module(node, module, x, weights=_weights(node, build))
    settings = {
        "stride": found.strides,
        "dilation": found.dilations,
        "groups": group,
        "output_padding": extra,
        "begins": found.begins,
        "ends": found.ends,
        "upper": found.upper and node.attr("auto_pad") == "SAME_UPPER",
        "output_shape": None if wanted is None else tuple(wanted),
    }
    if fits:
        with torch.device("meta"):
            own = ConvTranspose(node.in_shape(1), build.has(node, 2), settings)
        return build.module(node, own, x, weights=_weights(node, build))
    bias = build.optional(node, 2)
    return build.call(transpose_module, x, count, build.tensor(node, 1), bias, settings)


def _refuse(node: Node) -> str | None:
    try:
        count = len(node.in_shape(1)) - 2
    except UnknownShapeError:
        count = len(node.attr("kernel_shape", ()))
    if not 1 <= count <= _MOST_SPATIAL:
        return f"PyTorch convolves over one to three axes, not {count}"
    return None


def padded(x: Tensor, begins: Sequence[int], ends: Sequence[int], value: float = 0.0) -> Tensor:
    """Spatial axes padded (cropped, where negative)."""
    amounts = [n for pair in zip(reversed(begins), reversed(ends), strict=True) for n in pair]
    return F.pad(x, amounts, value=value)


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
    return _CONVOLVE[weight.dim() - 2](x, weight, bias, stride, 0, dilation, groups)


def transpose_module(x: Tensor, rank: int, weight: Tensor, bias: Tensor | None, settings: dict[str, Any]) -> Tensor:
    """A transposed convolution cropped or extended to the size that ONNX asks for.

    ``settings`` holds stride, dilation, groups, output_padding, begins and ends (or None), upper, and output_shape
    (or None).
    """
    stride, dilation, extra = settings["stride"], settings["dilation"], settings["output_padding"]
    y = _CONVOLVE_TRANSPOSED[rank](x, weight, None, stride, 0, 0, settings["groups"], dilation)
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
        self.weight_shape = tuple(weight_shape)
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


CONVERTERS = (
    Converter("Conv", convolution, refuse=_refuse),
    Converter("ConvTranspose", _transpose, refuse=_refuse),
)
