"""Slice, Gather and Pad, with sizes that may be known only at run time."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.ir.graph import Node
from onnxprune.torch import host
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder

Tensor = torch.Tensor

_ALL = 2**31 - 1
"""What exporters write for: to the end."""


def _slice_attributes(node: Node, build: Builder) -> fx.Node:
    axes = node.attr("axes")
    return build.call(
        slice_tensor, build.tensor(node, 0), tuple(node.attr("starts")), tuple(node.attr("ends")),
        None if axes is None else tuple(axes), None,
    )  # fmt: skip


def _slice(node: Node, build: Builder) -> fx.Node:
    bounds = [build.ints(node, index) for index in range(1, 5)]
    index = _index(build.rank(node), *bounds)
    if index is not None:
        return build.call(operator.getitem, build.tensor(node, 0), index)
    return build.call(slice_tensor, build.tensor(node, 0), *bounds)


def _index(rank: int | None, starts: Any, ends: Any, axes: Any, steps: Any) -> tuple[slice, ...] | None:
    """What Python indexes with to get the same, where all bounds are known and no step goes back."""
    axes = tuple(range(len(starts))) if axes is None and isinstance(starts, tuple) else axes
    steps = (1,) * len(axes) if steps is None and isinstance(axes, tuple) else steps
    if rank is None or not all(isinstance(given, tuple) for given in (starts, ends, axes, steps)) or min(steps) < 1:
        return None
    found = [slice(None)] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        found[axis] = slice(start or None, None if end >= _ALL else end, None if step == 1 else step)
    while found and found[-1] == slice(None):
        found.pop()
    return tuple(found) or (slice(None),)


def _host_slice(node: Node, build: Builder) -> fx.Node | None:
    if node.version < 10:
        bounds = [tuple(node.attr("starts")), tuple(node.attr("ends"))]
        return build.call(host.slice_values, build.host(node, 0), bounds[0][0], bounds[1][0])
    bounds = [build.number(node, index) for index in (1, 2, 4) if build.has(node, index)]
    return build.call(host.slice_values, build.host(node, 0), *bounds)


def _gather(node: Node, build: Builder) -> fx.Node:
    axis, index = node.attr("axis", 0), build.constant(node, 1)
    if index is not None and index.ndim == 0:
        return build.call(torch.select, build.tensor(node, 0), axis, int(index))
    return build.call(gather, *build.tensors(node), axis)


def _host_gather(node: Node, build: Builder) -> fx.Node:
    return build.call(host.gather, build.host(node, 0), build.host(node, 1))


def _pad(node: Node, build: Builder) -> fx.Node:
    mode = node.attr("mode", "constant")
    if node.version < 11:
        amounts, axes, value = tuple(node.attr("pads")), None, node.attr("value", 0.0)
    else:
        amounts, axes = build.ints(node, 1), build.ints(node, 3)
        value = build.number(node, 2) if build.has(node, 2) else 0.0
    return build.call(pad, build.tensor(node, 0), amounts, axes, mode, value)


def slice_tensor(
    x: Tensor,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> Tensor:
    """Every step-th position from start on and before end, along each of the axes."""
    axes = tuple(range(len(starts))) if axes is None else tuple(axes)
    steps = (1,) * len(axes) if steps is None else tuple(steps)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis + x.dim() if axis < 0 else axis
        if step > 0:
            x = x[(slice(None),) * axis + (slice(start, end, step),)]
        else:
            # PyTorch has no negative steps: take the positions that Python would.
            extent = x.shape[axis]
            positions = range(*slice(start, None if end < -extent else end, step).indices(extent))
            x = x.index_select(axis, torch.tensor(list(positions), dtype=torch.int64, device=x.device))
    return x


def gather(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """The slices at these positions along an axis; negative ones count from the end."""
    axis = axis + x.dim() if axis < 0 else axis
    found = x.index_select(axis, from_front(indices, x.shape[axis]).reshape(-1))
    return found.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def from_front(indices: Tensor, extent: int) -> Tensor:
    """Positions as int64, counted from the front."""
    wide = indices.to(torch.int64)
    return torch.where(wide < 0, wide + extent, wide)


def pad(x: Tensor, amounts: Sequence[int], axes: Sequence[int] | None, mode: str, value: float) -> Tensor:
    """Padding before and after each of the axes, or cropping where negative."""
    axes = tuple(range(x.dim())) if axes is None else tuple(a % x.dim() for a in axes)
    count = len(axes)
    begins, ends = tuple(amounts)[:count], tuple(amounts)[count:]
    if mode == "constant":
        flat = [0] * (2 * x.dim())
        for axis, begin, end in zip(axes, begins, ends, strict=True):
            place = 2 * (x.dim() - 1 - axis)
            flat[place], flat[place + 1] = begin, end
        return F.pad(x, flat, value=value)
    for axis, begin, end in zip(axes, begins, ends, strict=True):
        if begin or end:
            x = x.index_select(axis, _source_positions(x.shape[axis], begin, end, mode, x.device))
    return x


def _source_positions(extent: int, begin: int, end: int, mode: str, device: torch.device) -> Tensor:
    """For each position of the padded axis, the one of the input that it copies."""
    if mode == "wrap":
        # Cropping comes first: what is wrapped around is what is left.
        first, last = max(-begin, 0), extent - max(-end, 0)
        kept = last - first
        return first + torch.arange(-max(begin, 0), kept + max(end, 0), device=device) % kept
    places = torch.arange(-begin, extent + end, device=device)
    if mode == "edge":
        return places.clamp(0, extent - 1)
    if extent == 1:
        return torch.zeros_like(places)
    period = 2 * (extent - 1)
    return extent - 1 - (places % period - (extent - 1)).abs()


CONVERTERS = (
    Converter("Gather", _gather, host=_host_gather),
    Converter("Pad", _pad),
    Converter("Slice", _slice_attributes, until=9, host=_host_slice),
    Converter("Slice", _slice, since=10, host=_host_slice),
)
