"""Conv and ConvTranspose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from onnxprune.ir.graph import Node, UnknownShapeError
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import convolution as functions
from onnxprune.torch.layouts import AsIs

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
    begins, ends = functions.same_pads((1,) * len(found.kernel), found.kernel, found.strides, found.dilations, True)
    if not found.upper:
        begins, ends = ends, begins
    return Window(found.kernel, found.strides, found.dilations, begins, ends, found.upper)


def pad_input(x: fx.Node, found: Window, build: Builder, value: float = 0.0) -> fx.Node:
    """The input with the window's padding applied."""
    if found.begins is None:
        return build.call(functions.pad_same, x, found.kernel, found.strides, found.dilations, found.upper, value)
    if not any(found.begins) and not any(found.ends or ()):
        return x
    return build.call(functions.padded, x, found.begins, found.ends, value)


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
    return build.call(functions.convolve, x, build.tensor(node, 1), bias, found.strides, found.dilations, group)


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
            own = functions.ConvTranspose(node.in_shape(1), build.has(node, 2), settings)
        return build.module(node, own, x, weights=_weights(node, build))
    bias = build.optional(node, 2)
    return build.call(functions.transpose_module, x, count, build.tensor(node, 1), bias, settings)


def _refuse(node: Node) -> str | None:
    try:
        count = len(node.in_shape(1)) - 2
    except UnknownShapeError:
        count = len(node.attr("kernel_shape", ()))
    if not 1 <= count <= _MOST_SPATIAL:
        return f"PyTorch convolves over one to three axes, not {count}"
    return None


CONVERTERS = (
    Converter("Conv", convolution, refuse=_refuse),
    Converter("ConvTranspose", _transpose, refuse=_refuse),
)
