"""Sampling at places that are computed, boxes and regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

Tensor = torch.Tensor


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, align: bool) -> Tensor:
    """Values at the places of a grid, from -1 to 1 along each axis."""
    return F.grid_sample(x, grid.to(x.dtype), mode=mode, padding_mode=padding, align_corners=align)


def affine_grid(theta: Tensor, size: Sequence[int], align: bool) -> Tensor:
    """A grid of places, moved by an affine map."""
    return F.affine_grid(theta, list(size), align_corners=align)


def _bilinear(images: Tensor, rows: Tensor, columns: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The four neighbours of each place and their weights: images (…, C, H, W), places of any shape."""
    top, left = rows.floor(), columns.floor()
    found = []
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - (rows - (top + dy)).abs()) * (1 - (columns - (left + dx)).abs())
            row, column = (top + dy).to(torch.int64), (left + dx).to(torch.int64)
            height, width = images.shape[-2:]
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            flat = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            found.append((flat, weight * inside))
    return found


def roi_align(x: Tensor, rois: Tensor, batch: Tensor, settings: dict[str, Any]) -> Tensor:
    """Features of boxes (x1, y1, x2, y2) on a fixed grid, (boxes, C, height, width).

    ``settings`` holds height, width, ratio, scale, offset and average.
    """
    boxes = rois * settings["scale"] - settings["offset"]
    x1, y1, x2, y2 = boxes.unbind(1)
    extent_y, extent_x = y2 - y1, x2 - x1
    if settings["offset"] == 0.0:
        extent_y, extent_x = extent_y.clamp(min=1.0), extent_x.clamp(min=1.0)
    results = []
    for number in range(rois.shape[0]):
        image = x[batch[number].to(torch.int64)]
        rows = _sample_places(y1[number], extent_y[number], settings["height"], settings["ratio"])
        columns = _sample_places(x1[number], extent_x[number], settings["width"], settings["ratio"])
        values = _roi_values(image, rows.reshape(-1), columns.reshape(-1))
        cells = values.reshape(image.shape[0], rows.shape[0], rows.shape[1], columns.shape[0], columns.shape[1], -1)
        if settings["average"]:
            results.append(cells.sum(-1).mean((2, 4)))
        else:
            results.append(cells.amax((2, 4, 5)))
    return torch.stack(results) if results else x.new_zeros(0, x.shape[1], settings["height"], settings["width"])


def _sample_places(start: Tensor, extent: Tensor, cells: int, ratio: int) -> Tensor:
    """Where to sample along one axis: (cells, samples)."""
    each = extent / cells
    count = ratio if ratio > 0 else max(int(each.ceil()), 1)
    cell = torch.arange(cells, device=start.device, dtype=start.dtype).unsqueeze(1)
    sample = torch.arange(count, device=start.device, dtype=start.dtype).unsqueeze(0)
    return start + cell * each + (sample + 0.5) * each / count


def _roi_values(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Weighted neighbours of all pairs of places: (C, rows, columns, 4)."""
    height, width = image.shape[-2:]
    row, column = rows.unsqueeze(1).expand(-1, len(columns)), columns.unsqueeze(0).expand(len(rows), -1)
    inside = (row >= -1) & (row <= height) & (column >= -1) & (column <= width)
    row, column = row.clamp(0, height - 1), column.clamp(0, width - 1)
    flat = image.flatten(1)
    parts = [flat[:, place] * (weight * inside) for place, weight in _bilinear(image, row, column)]
    return torch.stack(parts, -1)


def max_roi_pool(x: Tensor, rois: Tensor, size: Sequence[int], scale: float) -> Tensor:
    """The largest values in a grid of cells over boxes (batch, x1, y1, x2, y2)."""
    results = []
    for roi in rois:
        x1, y1, x2, y2 = (int(torch.floor(v * scale + 0.5)) for v in roi[1:])
        image = x[int(roi[0])]
        rows = _cells(y1, max(y2 - y1 + 1, 1), size[0], x.shape[2])
        columns = _cells(x1, max(x2 - x1 + 1, 1), size[1], x.shape[3])
        cells = [
            image[:, a:b, c:d].amax((1, 2)) if b > a and d > c else image.new_zeros(image.shape[0])
            for a, b in rows
            for c, d in columns
        ]
        results.append(torch.stack(cells, 1).reshape(-1, *size))
    return torch.stack(results)


def _cells(start: int, extent: int, count: int, limit: int) -> list[tuple[int, int]]:
    edges = []
    for cell in range(count):
        first, last = start + cell * extent // count, start + -(-(cell + 1) * extent // count)
        edges.append((min(max(first, 0), limit), min(max(last, 0), limit)))
    return edges


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


def deform_conv(
    x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None, mask: Tensor | None, settings: dict[str, Any]
) -> Tensor:
    """A convolution that reads at moved places; ``settings`` holds strides, dilations, pads, group, offset_group."""
    n, channels = x.shape[:2]
    kernel = tuple(weight.shape[2:])
    taps, shifted = kernel[0] * kernel[1], settings["offset_group"]
    height, width = offset.shape[2:]
    moves = offset.reshape(n, shifted, taps, 2, height, width)
    tap = torch.arange(taps, device=x.device)
    rows = _grid(height, settings["strides"][0], settings["pads"][0], x.device).reshape(1, -1, 1)
    columns = _grid(width, settings["strides"][1], settings["pads"][1], x.device).reshape(1, 1, -1)
    rows = rows + (tap // kernel[1] * settings["dilations"][0]).reshape(-1, 1, 1)
    columns = columns + (tap % kernel[1] * settings["dilations"][1]).reshape(-1, 1, 1)
    row, column = rows + moves[:, :, :, 0], columns + moves[:, :, :, 1]
    images = x.reshape(n, shifted, channels // shifted, -1)
    sampled = x.new_zeros(n, shifted, channels // shifted, taps * height * width)
    for place, share in _bilinear(x, row, column):
        share = share if mask is None else share * mask.reshape(n, shifted, taps, height, width)
        places = place.reshape(n, shifted, 1, -1).expand(-1, -1, channels // shifted, -1)
        sampled = sampled + torch.gather(images, 3, places) * share.reshape(n, shifted, 1, -1)
    group = settings["group"]
    columns_in = sampled.reshape(n, group, channels // group * taps, height * width)
    y = torch.einsum("gok,ngkp->ngop", weight.reshape(group, weight.shape[0] // group, -1), columns_in)
    y = y.reshape(n, weight.shape[0], height, width)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def _grid(count: int, stride: int, pad: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device) * stride - pad


def columns_to_image(x: Tensor, shape: Sequence[int], block: Sequence[int], settings: dict[str, Any]) -> Tensor:
    """Overlapping blocks (N, C · block, blocks) added up to an image; ``settings``: strides, dilations, pads."""
    count = len(shape)
    begins, ends = settings["pads"][:count], settings["pads"][count:]
    padded = [n + b + e for n, b, e in zip(shape, begins, ends, strict=True)]
    places = torch.zeros([1] * 2 * count, dtype=torch.int64, device=x.device)
    for axis in range(count):
        stride, dilation = settings["strides"][axis], settings["dilations"][axis]
        blocks = (padded[axis] - (block[axis] - 1) * dilation - 1) // stride + 1
        taps = torch.arange(block[axis], device=x.device) * dilation
        starts = torch.arange(blocks, device=x.device) * stride
        inside = [1] * 2 * count
        inside[axis] = -1
        outside = [1] * 2 * count
        outside[count + axis] = -1
        places = places * padded[axis] + taps.reshape(inside) + starts.reshape(outside)
    total = 1
    for extent in padded:
        total = total * extent
    flat = x.reshape(x.shape[0], -1, places.numel())
    image = x.new_zeros(flat.shape[0], flat.shape[1], total)
    image = image.index_add(2, places.reshape(-1), flat).reshape(*flat.shape[:2], *padded)
    for axis in range(count):
        image = image.narrow(2 + axis, begins[axis], shape[axis])
    return image
