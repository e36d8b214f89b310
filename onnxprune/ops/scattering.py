"""Reading and writing by index: axes that are not indexed go through, indexed ones are pinned."""

from __future__ import annotations

from typing import ClassVar

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator, normalized_axis
from onnxprune.ops.generators import Held, pin_axes
from onnxprune.ops.relations import Relations


class GatherND(Operator):
    """data (b…, i…, d…), indices (b…, q…, k) → Y (b…, q…, d…): b batch dimensions, k indexed ones."""

    types = ("GatherND",)
    since = 11

    def relate(self, node: Node, relations: Relations) -> None:
        data, indices, y = node.inputs[0], node.inputs[1], node.outputs[0]
        batch = int(node.attr("batch_dims", 0))
        *_, indexed = node.in_shape(1)
        rank, rows = len(node.in_shape(0)), len(node.in_shape(1)) - 1
        for dim in range(batch):
            relations.equal(data, dim, y, dim)
        for dim in range(rows):
            relations.equal(indices, dim, y, dim)
        for dim in range(batch, batch + indexed):
            relations.pin(data, dim, "positions are picked by GatherND")
        for dim in range(batch + indexed, rank):
            relations.equal(data, dim, y, dim - batch - indexed + rows)


class ScatterND(Operator):
    """data (i…, d…), indices (q…, k), updates (q…, d…) → Y like data: k indexed dimensions."""

    types = ("ScatterND",)
    since = 11

    def relate(self, node: Node, relations: Relations) -> None:
        data, indices, updates, y = *node.inputs[:3], node.outputs[0]
        *_, indexed = node.in_shape(1)
        rank, rows = len(node.in_shape(0)), len(node.in_shape(1)) - 1
        for dim in range(rows):
            relations.equal(indices, dim, updates, dim)
        for dim in range(rank):
            relations.equal(data, dim, y, dim)
            if dim < indexed:
                relations.pin(data, dim, "positions are written by ScatterND")
            else:
                relations.equal(updates, dim - indexed + rows, y, dim)


class GatherElements(Operator):
    """data, indices → Y like indices: along ``axis`` each element says which position it takes."""

    types = ("GatherElements",)
    since = 11

    def relate(self, node: Node, relations: Relations) -> None:
        data, indices, y = node.inputs[0], node.inputs[1], node.outputs[0]
        axis = normalized_axis(int(node.attr("axis", 0)), len(node.in_shape(0)))
        for dim, (before, after) in enumerate(zip(node.in_shape(0), node.in_shape(1), strict=True)):
            relations.equal(indices, dim, y, dim)
            if dim == axis:
                relations.pin(data, dim, "positions are picked by GatherElements")
            elif before == after:
                relations.equal(data, dim, y, dim)
            else:
                pin_axes(relations, node, (data, y), "GatherElements reads the first positions of the axis", (dim,))


class ScatterElements(Operator):
    """data, indices, updates → Y like data: along ``axis`` each element says which position it writes."""

    types = ("ScatterElements",)
    since = 11

    def relate(self, node: Node, relations: Relations) -> None:
        data, indices, updates, y = *node.inputs[:3], node.outputs[0]
        axis = normalized_axis(int(node.attr("axis", 0)), len(node.in_shape(0)))
        for dim, (whole, part) in enumerate(zip(node.in_shape(0), node.in_shape(1), strict=True)):
            relations.equal(data, dim, y, dim)
            relations.equal(indices, dim, updates, dim)
            if dim == axis:
                relations.pin(data, dim, "positions are written by ScatterElements")
            elif whole == part:
                relations.equal(indices, dim, y, dim)
            else:
                reason = "ScatterElements writes the first positions of the axis"
                pin_axes(relations, node, (data, indices), reason, (dim,))


class Scatter(ScatterElements):
    """ScatterElements under its name before opset 11."""

    types = ("Scatter",)
    since = 9
    until = 10


class Trilu(Operator):
    """Upper or lower triangle of the last two dimensions; the others go through."""

    types = ("Trilu",)
    since = 14

    def relate(self, node: Node, relations: Relations) -> None:
        x, y, rank = node.inputs[0], node.outputs[0], len(node.in_shape(0))
        for dim in range(rank - 2):
            relations.equal(x, dim, y, dim)
        pin_axes(relations, node, (x, y), "Trilu compares positions", range(rank - 2, rank))


class Compress(Operator):
    """Positions of ``axis`` (or of all elements in a row) that a condition, known at run time, selects."""

    types = ("Compress",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, condition, y = node.inputs[0], node.inputs[1], node.outputs[0]
        rank, axis = len(node.in_shape(0)), node.attr("axis")
        worked = range(rank) if axis is None else (normalized_axis(int(axis), rank),)
        reason = "positions are selected by Compress"
        pin_axes(relations, node, (x,), reason, worked)
        pin_axes(relations, node, (condition,), reason)
        if axis is None:
            pin_axes(relations, node, (y,), reason)
        elif y in relations.axes:
            pin_axes(relations, node, (y,), reason, worked)
            for dim in set(range(rank)) - set(worked):
                relations.equal(x, dim, y, dim)


class Selected(Held):
    """Operators whose result depends on comparing whole slices: every axis stays."""

    reasons: ClassVar[dict[str, str]] = {
        "NonMaxSuppression": "selects boxes by their position",
        "Unique": "compares all positions",
    }
    types = tuple(reasons)


OPERATORS: tuple[Operator, ...] = (
    GatherND(),
    ScatterND(),
    GatherElements(),
    ScatterElements(),
    Scatter(),
    Trilu(),
    Compress(),
    Selected(),
)
