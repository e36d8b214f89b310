"""Reading and writing at computed positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.ops.indexing import from_front

Tensor = torch.Tensor

_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _gather_elements(node: Node, build: Builder) -> fx.Node:
    return build.call(gather_elements, *build.tensors(node), node.attr("axis", 0))


def _gather_nd(node: Node, build: Builder) -> fx.Node:
    return build.call(gather_nd, *build.tensors(node), node.attr("batch_dims", 0))


def _scatter_elements(node: Node, build: Builder) -> fx.Node:
    axis, reduction = node.attr("axis", 0), node.attr("reduction", "none")
    return build.call(scatter_elements, *build.tensors(node), axis, reduction)


def _scatter_nd(node: Node, build: Builder) -> fx.Node:
    return build.call(scatter_nd, *build.tensors(node), node.attr("reduction", "none"))


def _compress(node: Node, build: Builder) -> fx.Node:
    return build.call(compress, *build.tensors(node), node.attr("axis"))


def _unique(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    every = build.call(unique, build.tensor(node, 0), node.attr("axis"), bool(node.attr("sorted", 1)))
    return tuple(build.item(every, index) for index in range(4))


def _non_max_suppression(node: Node, build: Builder) -> fx.Node:
    most, overlap, least = (build.number(node, index) for index in (2, 3, 4))
    return build.call(
        non_max_suppression, build.tensor(node, 0), build.tensor(node, 1), most or 0, overlap or 0.0, least,
        bool(node.attr("center_point_box", 0)),
    )  # fmt: skip


def _triangle(node: Node, build: Builder) -> fx.Node:
    offset = build.number(node, 1) if build.has(node, 1) else 0
    function = torch.triu if node.attr("upper", 1) else torch.tril
    return build.call(function, build.tensor(node, 0), offset)


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


def compress(x: Tensor, condition: Tensor, axis: int | None) -> Tensor:
    """The positions where the condition holds."""
    if axis is None:
        x, axis = x.reshape(-1), 0
    places = torch.nonzero(condition).reshape(-1)
    return x.index_select(axis, places)


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


def non_max_suppression(
    boxes: Tensor, scores: Tensor, most: int, overlap: float, least: float | None, centred: bool
) -> Tensor:
    """(batch, class, box) of the boxes that no better one of their class covers."""
    if centred:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        corners = torch.cat([middle - half, middle + half], -1)
    else:
        first, second = boxes[..., :2], boxes[..., 2:]
        corners = torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)
    found: list[list[int]] = []
    for batch in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            kept = _suppress(corners[batch], scores[batch, kind], most, overlap, least)
            found.extend([batch, kind, box] for box in kept)
    return torch.tensor(found, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


def _suppress(corners: Tensor, scores: Tensor, most: int, overlap: float, least: float | None) -> list[int]:
    areas = (corners[:, 2:] - corners[:, :2]).prod(1)
    kept: list[int] = []
    for box in torch.argsort(scores, descending=True, stable=True).tolist():
        if len(kept) == most:
            break
        if least is not None and not scores[box] > least:
            break
        if kept:
            others = corners[kept]
            sides = torch.minimum(others[:, 2:], corners[box, 2:]) - torch.maximum(others[:, :2], corners[box, :2])
            common = sides.clamp(min=0).prod(1)
            if bool((common / (areas[kept] + areas[box] - common) > overlap).any()):
                continue
        kept.append(box)
    return kept


CONVERTERS = (
    Converter("Compress", _compress),
    Converter("GatherElements", _gather_elements),
    Converter("GatherND", _gather_nd),
    Converter("NonMaxSuppression", _non_max_suppression),
    Converter("Scatter", _scatter_elements, since=9, until=10),
    Converter("ScatterElements", _scatter_elements, since=11),
    Converter("ScatterND", _scatter_nd, since=11),
    Converter("Trilu", _triangle),
    Converter("Unique", _unique),
)
