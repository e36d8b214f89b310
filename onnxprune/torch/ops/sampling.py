"""Sampling at places that are computed, boxes, and what undoes a pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.ops.convolution import padded
from onnxprune.torch.ops.elementwise import calling
from onnxprune.torch.ops.pooling import pool_settings, pool_window, refuse_rank

Tensor = torch.Tensor

_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def _max_unpool(node: Node, build: Builder) -> fx.Node:
    settings = pool_settings(pool_window(node), node)
    return build.call(max_unpool, build.tensor(node, 0), build.tensor(node, 1), build.host(node, 2), settings)


def _grid_sample(node: Node, build: Builder) -> fx.Node:
    mode = node.attr("mode", "bilinear")
    padding, align = node.attr("padding_mode", "zeros"), bool(node.attr("align_corners", 0))
    return build.call(grid_sample, *build.tensors(node), _MODES.get(mode, mode), padding, align)


def _refuse_cubic_volume(node: Node) -> str | None:
    rank = len(node.graph.shapes.extents.get(node.inputs[0], ()))
    if rank == 5 and node.attr("mode") in ("cubic", "bicubic"):
        return "PyTorch samples volumes by nearest or linear interpolation only"
    return None if rank in (0, 4, 5) else "PyTorch samples images and volumes only"


def _affine_grid(node: Node, build: Builder) -> fx.Node:
    align = bool(node.attr("align_corners", 0))
    return build.call(affine_grid, build.tensor(node, 0), build.ints(node, 1), align)


def _roi_align(node: Node, build: Builder) -> fx.Node:
    # Before opset 16 there was no half pixel's offset.
    default = "half_pixel" if node.version >= 16 else "output_half_pixel"
    settings = {
        "height": node.attr("output_height", 1),
        "width": node.attr("output_width", 1),
        "ratio": node.attr("sampling_ratio", 0),
        "scale": node.attr("spatial_scale", 1.0),
        "offset": 0.5 if node.attr("coordinate_transformation_mode", default) == "half_pixel" else 0.0,
        "average": node.attr("mode", "avg") == "avg",
    }
    return build.call(roi_align, *build.tensors(node), settings)


def _max_roi_pool(node: Node, build: Builder) -> fx.Node:
    size, scale = tuple(node.attr("pooled_shape")), node.attr("spatial_scale", 1.0)
    return build.call(max_roi_pool, *build.tensors(node), size, scale)


def _deform_conv(node: Node, build: Builder) -> fx.Node:
    settings = {
        "strides": tuple(node.attr("strides", (1, 1))),
        "dilations": tuple(node.attr("dilations", (1, 1))),
        "pads": tuple(node.attr("pads", (0, 0, 0, 0))),
        "group": node.attr("group", 1),
        "offset_group": node.attr("offset_group", 1),
    }
    operands = [build.tensor(node, 0), build.tensor(node, 1), build.tensor(node, 2)]
    return build.call(deform_conv, *operands, build.optional(node, 3), build.optional(node, 4), settings)


def _columns_to_image(node: Node, build: Builder) -> fx.Node:
    shape, block = build.ints(node, 1), build.ints(node, 2)
    count = node.in_shape(1)[0]
    settings = {
        "strides": tuple(node.attr("strides", (1,) * count)),
        "dilations": tuple(node.attr("dilations", (1,) * count)),
        "pads": tuple(node.attr("pads", (0,) * 2 * count)),
    }
    return build.call(columns_to_image, build.tensor(node, 0), shape, block, settings)


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


CONVERTERS = (
    Converter("AffineGrid", _affine_grid),
    Converter("Col2Im", _columns_to_image),
    Converter("DeformConv", _deform_conv, since=19),
    Converter("Det", calling(torch.linalg.det)),
    Converter("GridSample", _grid_sample, since=16, refuse=_refuse_cubic_volume),
    Converter("MaxRoiPool", _max_roi_pool),
    Converter("MaxUnpool", _max_unpool, refuse=refuse_rank),
    Converter("RoiAlign", _roi_align),
)
