"""Pooling: modules of ``torch.nn`` where padding is even, functions elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.ir.graph import Node
from onnxprune.ops.convolution import same_pads
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.ops.convolution import Window, fixed_same, padded, window

Tensor = torch.Tensor

_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MAX: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_AVERAGE: dict[int, type[nn.Module]] = {
    3: nn.AdaptiveAvgPool1d,
    4: nn.AdaptiveAvgPool2d,
    5: nn.AdaptiveAvgPool3d,
}
_GLOBAL_MAX: dict[int, type[nn.Module]] = {3: nn.AdaptiveMaxPool1d, 4: nn.AdaptiveMaxPool2d, 5: nn.AdaptiveMaxPool3d}


def pool_window(node: Node) -> Window:
    """Where the windows of a pooling lie."""
    return fixed_same(window(node, tuple(node.attr("kernel_shape"))))


def pool_settings(found: Window, node: Node) -> dict[str, Any]:
    """The same for the functions below."""
    return {
        "kernel": found.kernel,
        "strides": found.strides,
        "dilations": found.dilations,
        "begins": found.begins,
        "ends": found.ends,
        "upper": found.upper,
        "ceil_mode": bool(node.attr("ceil_mode", 0)),
    }


def _is_plain(found: Window, node: Node, build: Builder) -> bool:
    """Whether ``torch.nn`` pools such windows; it takes padding of at most half a window."""
    dtype = build.dtype(node.inputs[0])
    half = found.begins is not None and all(2 * p <= k for p, k in zip(found.begins, found.kernel, strict=True))
    return found.symmetric and half and dtype is not None and dtype.is_floating_point


def _max_pool(node: Node, build: Builder) -> fx.Node | tuple[fx.Node, fx.Node]:
    found, x = pool_window(node), build.tensor(node, 0)
    settings = pool_settings(found, node)
    if node.has_output(1):
        both = build.call(max_pool_with_positions, x, settings, bool(node.attr("storage_order", 0)))
        return build.item(both, 0), build.item(both, 1)
    if _is_plain(found, node, build):
        module = _MAX[len(found.kernel)](
            found.kernel, found.strides, found.begins, found.dilations, ceil_mode=settings["ceil_mode"]
        )
        return build.module(node, module, x)
    return build.call(max_pool, x, settings)


def _average_pool(node: Node, build: Builder) -> fx.Node:
    found, x = pool_window(node), build.tensor(node, 0)
    settings, count_padding = pool_settings(found, node), bool(node.attr("count_include_pad", 0))
    if _is_plain(found, node, build) and all(d == 1 for d in found.dilations):
        module = _AVERAGE[len(found.kernel)](
            found.kernel, found.strides, found.begins, settings["ceil_mode"], count_padding
        )
        return build.module(node, module, x)
    return build.call(average_pool, x, settings, count_padding)


def _lp_pool(node: Node, build: Builder) -> fx.Node:
    return build.call(lp_pool, build.tensor(node, 0), pool_settings(pool_window(node), node), node.attr("p", 2))


def _global(modules: dict[int, type[nn.Module]], function: Callable[..., Any]) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        make = modules.get(build.rank(node) or 0)
        if make is not None:
            return build.module(node, make(1), build.tensor(node, 0))
        return build.call(function, build.tensor(node, 0))

    return convert


def _global_lp(node: Node, build: Builder) -> fx.Node:
    return build.call(global_lp, build.tensor(node, 0), float(node.attr("p", 2)))


def refuse_rank(node: Node) -> str | None:
    """The reason why PyTorch does not pool over so many axes."""
    count = len(node.attr("kernel_shape"))
    return None if 1 <= count <= 3 else f"PyTorch pools over one to three axes, not {count}"


def pads_of(extents: Sequence[int], settings: dict[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each axis, as the settings say or as SAME asks for."""
    if settings["begins"] is not None:
        return settings["begins"], settings["ends"]
    return same_pads(extents, settings["kernel"], settings["strides"], settings["dilations"], settings["upper"])


def _overhang(
    extents: Sequence[int], begins: Sequence[int], ends: Sequence[int], settings: dict[str, Any]
) -> list[int]:
    """How far the last window reaches over the padded end of each axis when counts are rounded up."""
    if not settings["ceil_mode"]:
        return [0] * len(extents)
    over = []
    for extent, begin, end, k, stride, dilation in zip(
        extents, begins, ends, settings["kernel"], settings["strides"], settings["dilations"], strict=True
    ):
        reach = (k - 1) * dilation + 1
        windows = -(-(extent + begin + end - reach) // stride) + 1
        if (windows - 1) * stride >= extent + begin:
            windows -= 1  # A window that would begin in the padding after the end is left out.
        over.append(max((windows - 1) * stride + reach - (extent + begin + end), 0))
    return over


def max_pool(x: Tensor, settings: dict[str, Any]) -> Tensor:
    """The largest value of each window; padding counts as minus infinity."""
    return _largest(x, settings)[0]


def max_pool_with_positions(x: Tensor, settings: dict[str, Any], column_major: bool) -> tuple[Tensor, Tensor]:
    """The largest values and where they are, counted over the whole input."""
    values, positions = _largest(x, settings)
    extents = x.shape[2:]
    begins, _ = pads_of(extents, settings)
    widths = _padded_extents(extents, settings)
    # Positions in the padded image -> coordinates -> positions in the input.
    coordinates: list[Tensor] = []
    for width in reversed(widths):
        coordinates.append(positions % width)
        positions = positions // width
    coordinates = [c - begin for c, begin in zip(reversed(coordinates), begins, strict=True)]
    order = list(zip(coordinates, extents, strict=True))
    flat = torch.zeros_like(coordinates[0])
    for coordinate, extent in reversed(order) if column_major else order:
        flat = flat * extent + coordinate
    images = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(x.shape[0], x.shape[1], *[1] * len(extents))
    return values, flat + images * extents.numel()


def _padded_extents(extents: Sequence[int], settings: dict[str, Any]) -> list[int]:
    """The extents after padding."""
    begins, ends = pads_of(extents, settings)
    over = _overhang(extents, begins, ends, settings)
    return [n + b + e + o for n, b, e, o in zip(extents, begins, ends, over, strict=True)]


def _largest(x: Tensor, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    begins, ends = pads_of(x.shape[2:], settings)
    over = _overhang(x.shape[2:], begins, ends, settings)
    whole = not x.is_floating_point()
    source = x.to(torch.float64) if whole else x
    source = padded(source, begins, [e + o for e, o in zip(ends, over, strict=True)], float("-inf"))
    values, positions = _POOL[len(begins)](
        source, settings["kernel"], settings["strides"], 0, settings["dilations"], return_indices=True
    )
    return (values.to(x.dtype) if whole else values), positions


def average_pool(x: Tensor, settings: dict[str, Any], count_padding: bool) -> Tensor:
    """The mean of each window, over what lies in the input, or in the padded input."""
    begins, ends = pads_of(x.shape[2:], settings)
    over = _overhang(x.shape[2:], begins, ends, settings)
    inside = torch.ones_like(x[:1, :1])
    if count_padding:
        inside = padded(inside, begins, ends, 1.0)
        inside = padded(inside, [0] * len(over), over)
    else:
        inside = padded(inside, begins, [e + o for e, o in zip(ends, over, strict=True)])
    source = padded(x, begins, [e + o for e, o in zip(ends, over, strict=True)])
    return _window_sums(source, settings) / _window_sums(inside, settings)


def lp_pool(x: Tensor, settings: dict[str, Any], p: int) -> Tensor:
    """The p-norm of each window."""
    begins, ends = pads_of(x.shape[2:], settings)
    over = _overhang(x.shape[2:], begins, ends, settings)
    source = padded(x.abs().pow(p), begins, [e + o for e, o in zip(ends, over, strict=True)])
    return _window_sums(source, settings).pow(1.0 / p)


def _window_sums(x: Tensor, settings: dict[str, Any]) -> Tensor:
    ones = torch.ones(1, 1, *settings["kernel"], dtype=x.dtype, device=x.device)
    images = x.reshape(-1, 1, *x.shape[2:])
    sums = _CONVOLVE[len(settings["kernel"])](images, ones, None, settings["strides"], 0, settings["dilations"])
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


def global_average(x: Tensor) -> Tensor:
    """The mean over all spatial axes, which stay with extent 1."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def global_max(x: Tensor) -> Tensor:
    """The largest value over all spatial axes, which stay with extent 1."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def global_lp(x: Tensor, p: float) -> Tensor:
    """The p-norm over all spatial axes, which stay with extent 1."""
    norm: Tensor = torch.linalg.vector_norm(x, p, tuple(range(2, x.dim())), keepdim=True)
    return norm


CONVERTERS = (
    Converter("AveragePool", _average_pool, refuse=refuse_rank),
    Converter("GlobalAveragePool", _global(_GLOBAL_AVERAGE, global_average)),
    Converter("GlobalLpPool", _global_lp),
    Converter("GlobalMaxPool", _global(_GLOBAL_MAX, global_max)),
    Converter("LpPool", _lp_pool, refuse=refuse_rank),
    Converter("MaxPool", _max_pool, refuse=refuse_rank),
)
