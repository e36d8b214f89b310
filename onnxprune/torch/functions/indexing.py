"""Reading and writing at positions, with sizes that may be known only at run time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

Tensor = torch.Tensor

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


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


def gather_one(x: Tensor, index: int, axis: int) -> Tensor:
    """The slice at one position; its axis goes."""
    return x.select(axis, index)


def from_front(indices: Tensor, extent: int) -> Tensor:
    """Positions as int64, counted from the front."""
    wide = indices.to(torch.int64)
    return torch.where(wide < 0, wide + extent, wide)


def gather_elements(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    """For each position of ``indices``, the element there along an axis."""
    return torch.gather(x, axis, from_front(indices, x.shape[axis]))


def scatter_elements(x: Tensor, indices: Tensor, updates: Tensor, axis: int, reduction: str) -> Tensor:
    """A copy with elements replaced, or combined with what was there."""
    positions, values = from_front(indices, x.shape[axis]), updates.to(x.dtype)
    if reduction == "none":
        return x.scatter(axis, positions, values)
    return x.scatter_reduce(axis, positions, values, _REDUCTIONS[reduction], include_self=True)


def _flat_positions(indices: Tensor, extents: Sequence[int]) -> Tensor:
    """Row-major positions of index tuples (last dimension of ``indices``)."""
    flat = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for place, extent in enumerate(extents):
        flat = flat * extent + from_front(indices[..., place], extent)
    return flat


def gather_nd(x: Tensor, indices: Tensor, batch_dims: int) -> Tensor:
    """The slices at these index tuples."""
    batch, depth = x.shape[:batch_dims], indices.shape[-1]
    rows = batch.numel()
    data = x.reshape(rows, -1, *x.shape[batch_dims + depth :])
    places = _flat_positions(indices, x.shape[batch_dims : batch_dims + depth]).reshape(rows, -1)
    row = torch.arange(rows, device=x.device).unsqueeze(1)
    return data[row, places].reshape(*indices.shape[:-1], *x.shape[batch_dims + depth :])


def scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, reduction: str) -> Tensor:
    """A copy with slices at index tuples replaced, or combined with what was there."""
    depth = indices.shape[-1]
    width = x.shape[depth:].numel()
    places = _flat_positions(indices, x.shape[:depth]).reshape(-1, 1).expand(-1, width)
    flat, values = x.reshape(-1, width), updates.to(x.dtype).reshape(-1, width)
    if reduction == "none":
        return flat.scatter(0, places, values).reshape(x.shape)
    return flat.scatter_reduce(0, places, values, _REDUCTIONS[reduction], include_self=True).reshape(x.shape)


def one_hot(indices: Tensor, depth: int, values: Tensor, axis: int) -> Tensor:
    """``values[1]`` at the position that each index names along a new axis, ``values[0]`` elsewhere."""
    axis = axis + indices.dim() + 1 if axis < 0 else axis
    classes = torch.arange(depth, device=indices.device, dtype=torch.int64)
    shape = [1] * (indices.dim() + 1)
    shape[axis] = -1
    places = from_front(indices, depth).unsqueeze(axis)
    return torch.where(places == classes.reshape(shape), values[1], values[0])


def non_zero(x: Tensor) -> Tensor:
    """Index tuples of what is not zero, in columns."""
    return torch.nonzero(x.reshape(1) if x.dim() == 0 else x).t()[: x.dim()]


def compress(x: Tensor, condition: Tensor, axis: int | None) -> Tensor:
    """The positions where the condition holds."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    places = torch.nonzero(condition).reshape(-1)
    return x.index_select(axis, places)


def top_k(x: Tensor, k: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The k largest or smallest values along an axis in order, and where they are."""
    # A stable sort: among equal values the first wins, as ONNX wants.
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), places.narrow(axis, 0, k)


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


def reverse_sequence(x: Tensor, lengths: Tensor, batch_axis: int, time_axis: int) -> Tensor:
    """The first ``lengths[b]`` steps of every sequence in reverse."""
    time = torch.arange(x.shape[time_axis], device=x.device).unsqueeze(0)
    ends = lengths.to(torch.int64).unsqueeze(1)
    places = torch.where(time < ends, ends - 1 - time, time)
    places = places if batch_axis == 0 else places.t()
    shape = [*places.shape, *[1] * (x.dim() - 2)]
    return torch.gather(x, time_axis, places.reshape(shape).expand_as(x))


def unique(x: Tensor, axis: int | None, is_sorted: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values without repetition, where each first is, where each value went, and how often it is there."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    values, inverse, counts = torch.unique(x, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    places = torch.arange(inverse.numel(), device=x.device)
    first = torch.full_like(counts, inverse.numel()).scatter_reduce(0, inverse, places, "amin")
    if not is_sorted:
        order = torch.argsort(first)
        rank = torch.argsort(order)
        return values.index_select(axis, order), first[order], rank[inverse], counts[order]
    return values, first, inverse, counts
