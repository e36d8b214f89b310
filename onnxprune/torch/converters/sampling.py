"""Sampling at computed places, and boxes."""

from __future__ import annotations

from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.converters.indexing import number
from onnxprune.torch.functions import sampling as functions

_MODES = {"linear": "bilinear", "cubic": "bicubic"}


def _grid_sample(node: Node, build: Builder) -> fx.Node:
    mode = node.attr("mode", "bilinear")
    padding, align = node.attr("padding_mode", "zeros"), bool(node.attr("align_corners", 0))
    return build.call(functions.grid_sample, *build.tensors(node), _MODES.get(mode, mode), padding, align)


def _refuse_cubic_volume(node: Node) -> str | None:
    rank = len(node.graph.shapes.extents.get(node.inputs[0], ()))
    if rank == 5 and node.attr("mode") in ("cubic", "bicubic"):
        return "PyTorch samples volumes by nearest or linear interpolation only"
    return None if rank in (0, 4, 5) else "PyTorch samples images and volumes only"


def _affine_grid(node: Node, build: Builder) -> fx.Node:
    align = bool(node.attr("align_corners", 0))
    return build.call(functions.affine_grid, build.tensor(node, 0), build.ints(node, 1), align)


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
    return build.call(functions.roi_align, *build.tensors(node), settings)


def _max_roi_pool(node: Node, build: Builder) -> fx.Node:
    size, scale = tuple(node.attr("pooled_shape")), node.attr("spatial_scale", 1.0)
    return build.call(functions.max_roi_pool, *build.tensors(node), size, scale)


def _non_max_suppression(node: Node, build: Builder) -> fx.Node:
    most, overlap, least = (number(build.host(node, index), build) for index in (2, 3, 4))
    return build.call(
        functions.non_max_suppression, build.tensor(node, 0), build.tensor(node, 1), most or 0, overlap or 0.0, least,
        bool(node.attr("center_point_box", 0)),
    )  # fmt: skip


def _deform_conv(node: Node, build: Builder) -> fx.Node:
    settings = {
        "strides": tuple(node.attr("strides", (1, 1))),
        "dilations": tuple(node.attr("dilations", (1, 1))),
        "pads": tuple(node.attr("pads", (0, 0, 0, 0))),
        "group": node.attr("group", 1),
        "offset_group": node.attr("offset_group", 1),
    }
    operands = [build.tensor(node, 0), build.tensor(node, 1), build.tensor(node, 2)]
    return build.call(functions.deform_conv, *operands, build.optional(node, 3), build.optional(node, 4), settings)


def _columns_to_image(node: Node, build: Builder) -> fx.Node:
    shape, block = build.ints(node, 1), build.ints(node, 2)
    count = node.in_shape(1)[0]
    settings = {
        "strides": tuple(node.attr("strides", (1,) * count)),
        "dilations": tuple(node.attr("dilations", (1,) * count)),
        "pads": tuple(node.attr("pads", (0,) * 2 * count)),
    }
    return build.call(functions.columns_to_image, build.tensor(node, 0), shape, block, settings)


CONVERTERS = (
    Converter("AffineGrid", _affine_grid),
    Converter("Col2Im", _columns_to_image),
    Converter("DeformConv", _deform_conv, since=19),
    Converter("GridSample", _grid_sample, since=16, refuse=_refuse_cubic_volume),
    Converter("MaxRoiPool", _max_roi_pool),
    Converter("NonMaxSuppression", _non_max_suppression),
    Converter("RoiAlign", _roi_align),
)
