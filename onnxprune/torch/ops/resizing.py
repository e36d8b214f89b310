"""Resize: along each axis, every result is a weighted sum of a few values of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder

Tensor = torch.Tensor

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


def _upsample(node: Node, build: Builder) -> fx.Node:
    scales = tuple(node.attr("scales")) if node.version < 9 else build.host(node, 1)
    return _resize_by(node, build, None, scales, None, ("asymmetric", "floor"))


def _resize_10(node: Node, build: Builder) -> fx.Node:
    return _resize_by(node, build, None, build.host(node, 1), None, ("asymmetric", "floor"))


def _resize(node: Node, build: Builder) -> fx.Node:
    scales, sizes = build.host(node, 2), build.host(node, 3)
    how = node.attr("coordinate_transformation_mode", "half_pixel"), node.attr("nearest_mode", "round_prefer_floor")
    roi = build.optional(node, 1) if how[0] == "tf_crop_and_resize" else None
    return _resize_by(node, build, roi, scales if scales != () else None, sizes, how)


def _resize_by(
    node: Node, build: Builder, roi: fx.Node | None, scales: Any, sizes: Any, how: tuple[str, str]
) -> fx.Node:
    mode = _mode(node)
    module = _module(node, build, mode, scales, how)
    if module is not None:
        return build.module(node, module, build.tensor(node, 0))
    attributes = (
        mode, *how, node.attr("cubic_coeff_a", -0.75), bool(node.attr("exclude_outside", 0)),
        bool(node.attr("antialias", 0)), node.attr("extrapolation_value", 0.0),
        node.attr("keep_aspect_ratio_policy", "stretch"),
    )  # fmt: skip
    axes = node.attr("axes")
    return build.call(
        resize, build.tensor(node, 0), roi, scales, sizes, None if axes is None else tuple(axes), attributes
    )


def _mode(node: Node) -> str:
    mode: str = node.attr("mode", "nearest")
    return mode if mode in ("nearest", "cubic") else "linear"


def _module(node: Node, build: Builder, mode: str, scales: Any, how: tuple[str, str]) -> nn.Module | None:
    """``nn.Upsample`` where it means the same: whole factors of the spatial axes."""
    rank = build.rank(node)
    plain = isinstance(scales, tuple) and rank in _LINEAR and len(scales) == rank and node.attr("axes") is None
    if not plain or scales[:2] != (1.0, 1.0) or any(s != int(s) or s < 1 for s in scales):
        return None
    if node.attr("antialias", 0) or node.attr("exclude_outside", 0):
        return None
    factors = tuple(scales[2:])
    if mode == "nearest" and how == ("asymmetric", "floor"):
        return nn.Upsample(scale_factor=factors, mode="nearest")
    if mode == "linear" and how[0] in ("half_pixel", "pytorch_half_pixel"):
        return nn.Upsample(scale_factor=factors, mode=_LINEAR[rank or 0], align_corners=False)
    return None


@dataclass(frozen=True)
class Settings:
    """The attributes of Resize."""

    mode: str
    coordinates: str
    nearest: str
    cubic_coefficient: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float
    policy: str


def resize(
    x: Tensor,
    roi: Tensor | None,
    scales: Sequence[float] | None,
    sizes: Sequence[int] | None,
    axes: Sequence[int] | None,
    attributes: Sequence[object],
) -> Tensor:
    """The input at other extents; ``attributes`` are the fields of :class:`Settings`."""
    settings = Settings(*attributes)  # type: ignore[arg-type]
    chosen = tuple(range(x.dim())) if axes is None else tuple(a % x.dim() for a in axes)
    if scales:
        factors = tuple(float(s) for s in scales)
        extents = [int(x.shape[a] * s) for a, s in zip(chosen, factors, strict=True)]
    else:
        extents, factors = _from_sizes([x.shape[a] for a in chosen], sizes or (), settings.policy)
    outside: Tensor | None = None
    y = x
    for place, (axis, extent, factor) in enumerate(zip(chosen, extents, factors, strict=True)):
        region = None
        if settings.coordinates == "tf_crop_and_resize" and roi is not None:
            region = roi[place].to(torch.float32), roi[place + len(chosen)].to(torch.float32)
        if extent == x.shape[axis] and factor == 1.0 and region is None:
            continue
        at = _coordinates(x.shape[axis], extent, factor, region, settings, x.device)
        if region is not None:
            beyond = ((at < 0) | (at > x.shape[axis] - 1)).reshape([-1 if d == axis else 1 for d in range(x.dim())])
            outside = beyond if outside is None else outside | beyond
        y = _along(y, axis, at, factor, settings)
    y = y.to(x.dtype)
    return y if outside is None else torch.where(outside, torch.full_like(y, settings.extrapolation), y)


def _from_sizes(own: Sequence[int], sizes: Sequence[int], policy: str) -> tuple[list[int], tuple[float, ...]]:
    if policy == "stretch":
        return list(sizes), tuple(want / have for want, have in zip(sizes, own, strict=True))
    ratios = [want / have for want, have in zip(sizes, own, strict=True)]
    factor = min(ratios) if policy == "not_larger" else max(ratios)
    return [int(have * factor + 0.5) for have in own], (factor,) * len(own)


def _coordinates(
    extent: int,
    result: int,
    factor: float,
    region: tuple[Tensor, Tensor] | None,
    settings: Settings,
    device: torch.device,
) -> Tensor:
    """For each position of the result, where it lies in the input."""
    # In single precision, as onnxruntime does, so that the same neighbours are the nearest.
    at = torch.arange(result, dtype=torch.float32, device=device)
    kind = settings.coordinates
    if kind == "asymmetric":
        return at / factor
    if kind == "align_corners":
        return at * (extent - 1) / (result - 1) if result > 1 else at * 0
    if kind == "tf_crop_and_resize" and region is not None:
        first, last = region
        if result > 1:
            return first * (extent - 1) + at * (last - first) * (extent - 1) / (result - 1)
        return 0.5 * (first + last) * (extent - 1) + at
    if kind == "pytorch_half_pixel" and result == 1:
        return at * 0
    if kind == "tf_half_pixel_for_nn":
        return (at + 0.5) / factor
    if kind == "half_pixel_symmetric":
        adjusted = result / (factor * extent)
        return extent / 2 * (1 - adjusted) + (at + 0.5) / factor - 0.5
    return (at + 0.5) / factor - 0.5


def _along(x: Tensor, axis: int, at: Tensor, factor: float, settings: Settings) -> Tensor:
    extent = x.shape[axis]
    if settings.mode == "nearest":
        return x.index_select(axis, _nearest(at, settings.nearest).clamp(0, extent - 1))
    places, weights = _taps(at, factor, settings)
    if settings.exclude_outside:
        weights = torch.where((places < 0) | (places >= extent), torch.zeros_like(weights), weights)
    if settings.exclude_outside or settings.antialias:
        weights = weights / weights.sum(1, keepdim=True)
    places = places.clamp(0, extent - 1)
    wide = x if x.is_floating_point() else x.to(torch.float32)
    shape = [-1 if d == axis else 1 for d in range(x.dim())]
    parts = [
        wide.index_select(axis, places[:, tap]) * weights[:, tap].reshape(shape).to(wide.dtype)
        for tap in range(places.shape[1])
    ]
    return torch.stack(parts).sum(0)


def _nearest(at: Tensor, mode: str) -> Tensor:
    if mode == "floor":
        return at.floor().to(torch.int64)
    if mode == "ceil":
        return at.ceil().to(torch.int64)
    half = at - at.floor() == 0.5
    down, up = at.floor(), at.floor() + 1
    near = torch.where(half, down if mode == "round_prefer_floor" else up, at.round())
    return near.to(torch.int64)


def _taps(at: Tensor, factor: float, settings: Settings) -> tuple[Tensor, Tensor]:
    """The input positions that each result needs, and their weights: (result, taps)."""
    # Without antialiasing the kernel keeps its width; with it, it covers all that is shrunk into one value.
    stretch = min(factor, 1.0) if settings.antialias else 1.0
    reach = (1.0 if settings.mode == "linear" else 2.0) / stretch
    count = 2 * int(-(-reach // 1))
    first = at.floor().to(torch.int64) - (count // 2 - 1)
    places = first.unsqueeze(1) + torch.arange(count, device=at.device)
    distance = (places - at.unsqueeze(1)).abs() * stretch
    if settings.mode == "linear":
        return places, (1 - distance).clamp(min=0)
    return places, _cubic(distance, settings.cubic_coefficient)


def _cubic(distance: Tensor, a: float) -> Tensor:
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))


CONVERTERS = (
    Converter("Resize", _resize_10, until=10),
    Converter("Resize", _resize, since=11),
    Converter("Upsample", _upsample),
)
