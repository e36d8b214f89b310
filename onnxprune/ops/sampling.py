"""Sampling feature maps at computed places: every channel for itself."""

from __future__ import annotations

import math
from typing import ClassVar

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator
from onnxprune.ops.generators import Held, pin_axes
from onnxprune.ops.relations import Relations


class GridSample(Operator):
    """X (N, C, d1…), grid (N, e1…, rank) → Y (N, C, e1…)."""

    types = ("GridSample",)
    since = 16

    def relate(self, node: Node, relations: Relations) -> None:
        x, grid, y = node.inputs[0], node.inputs[1], node.outputs[0]
        relations.equal(x, 0, y, 0)
        relations.equal(grid, 0, y, 0)
        relations.equal(x, 1, y, 1)
        reason = "GridSample reads the axis by coordinates"
        pin_axes(relations, node, (x,), reason, range(2, len(node.in_shape(0))))
        pin_axes(relations, node, (grid,), reason, (len(node.in_shape(1)) - 1,))
        for dim in range(2, len(node.out_shape())):
            relations.equal(grid, dim - 1, y, dim)


class RegionPooling(Operator):
    """X (N, C, H, W), regions (R, …), RoiAlign's batch indices (R) → Y (R, C, h, w)."""

    types = ("MaxRoiPool", "RoiAlign")

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        reason = f"{node.op_type} reads the axis by coordinates"
        relations.equal(x, 1, y, 1)
        pin_axes(relations, node, (x,), reason, (0, 2, 3))
        pin_axes(relations, node, (y,), reason, (2, 3))
        pin_axes(relations, node, (node.inputs[1],), reason, (1,))
        for regions in node.inputs[1:]:
            relations.equal(regions, 0, y, 0)


class DeformConv(Operator):
    """X (N, C, H, W), W (M, C/group, kh, kw), offset (N, …, h, w), B (M), mask (N, …, h, w) → Y (N, M, h, w)."""

    types = ("DeformConv",)
    since = 19

    def relate(self, node: Node, relations: Relations) -> None:
        x, w, offset, y = *node.inputs[:3], node.outputs[0]
        relations.equal(x, 0, y, 0)
        if int(node.attr("group", 1)) == 1:
            relations.equal(w, 0, y, 1)
            if node.has_input(3):
                relations.equal(node.inputs[3], 0, y, 1)
            if node.is_constant(1):
                relations.producer(w, 0)
        else:
            pin_axes(relations, node, (w, node.inputs[3] if node.has_input(3) else ""), "DeformConv has groups", (0,))
            pin_axes(relations, node, (y,), "DeformConv has groups", (1,))
        if int(node.attr("group", 1)) == 1 == int(node.attr("offset_group", 1)):
            relations.equal(x, 1, w, 1)
        else:
            pin_axes(relations, node, (x, w), "DeformConv has groups", (1,))
        for tensor in (offset, node.inputs[4] if node.has_input(4) else ""):
            pin_axes(relations, node, (tensor,), "DeformConv reads an offset or weight per kernel element", (1,))
            if tensor:
                relations.equal(tensor, 0, y, 0)

    def cost(self, node: Node) -> Contraction:
        w, y = node.inputs[1], node.outputs[0]
        return Contraction(
            kind="dense" if int(node.attr("group", 1)) == 1 else "grouped",
            factor=math.prod(node.in_shape(1)[2:]),
            axes=((y, 0), (w, 0), (w, 1), (y, 2), (y, 3)),
            weights=tuple(node.inputs[i] for i in (1, 3) if node.has_input(i)),
            output=y,
            out_dim=1,
        )

    def mask(self, node: Node, masker: Masker) -> None:
        masker.zero(node, 1, 1)


class Unfolding(Held):
    """Operators that mix channels with positions: every axis stays."""

    reasons: ClassVar[dict[str, str]] = {
        "AffineGrid": "makes coordinates",
        "Col2Im": "mixes channels with kernel positions",
        "Det": "works on whole matrices",
        "MaxUnpool": "takes indices that count positions over all channels",
    }
    types = tuple(reasons)


OPERATORS: tuple[Operator, ...] = (GridSample(), RegionPooling(), DeformConv(), Unfolding())
