"""Pooling that ``torch.nn`` does not have: uneven padding, dilated averages, p-norms, positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.torch.functions.convolution import padded, same_pads

Tensor = torch.Tensor

_MAX: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


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
    return _max_pool(x, settings)[0]


def max_pool_with_positions(x: Tensor, settings: dict[str, Any], column_major: bool) -> tuple[Tensor, Tensor]:
    """The largest values and where they are, counted over the whole input."""
    values, positions = _max_pool(x, settings)
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


def _max_pool(x: Tensor, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    begins, ends = pads_of(x.shape[2:], settings)
    over = _overhang(x.shape[2:], begins, ends, settings)
    whole = not x.is_floating_point()
    source = x.to(torch.float64) if whole else x
    source = padded(source, begins, [e + o for e, o in zip(ends, over, strict=True)], float("-inf"))
    values, positions = _MAX[len(begins)](
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
    sums = _CONV[len(settings["kernel"])](images, ones, None, settings["strides"], 0, settings["dilations"])
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


def max_unpool(x: Tensor, positions: Tensor, shape: Sequence[int] | None, settings: dict[str, Any]) -> Tensor:
    """Values put at their positions in zeros; positions count over the input of the pooling."""
    extents = [
        (n - 1) * s + k - b - e
        for n, s, k, b, e in zip(
            x.shape[2:], settings["strides"], settings["kernel"], settings["begins"], settings["ends"], strict=True
        )
    ]
    own = (*x.shape[:2], *extents)
    count = 1
    for extent in own:
        count = count * extent
    flat = torch.zeros(count, dtype=x.dtype, device=x.device)
    result = flat.index_put((positions.reshape(-1),), x.reshape(-1)).reshape(own)
    if shape is None:
        return result
    return padded(result, [0] * len(extents), [w - n for w, n in zip(tuple(shape)[2:], extents, strict=True)])
