"""Concat and Split."""

from __future__ import annotations

import numpy as np

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator, Rewriter, normalized_axis, positions
from onnxprune.ops.relations import IntArray, Relations


class Concat(Operator):
    """Operands one behind the other along an axis: each has its offset in the result."""

    types = ("Concat",)

    def relate(self, node: Node, relations: Relations) -> None:
        y, rank = node.outputs[0], len(node.out_shape())
        axis = normalized_axis(int(node.attr("axis", 1)), rank)
        places: dict[str, list[IntArray]] = {}
        offset = 0
        for operand in node.inputs:
            extent = node.shape(operand)[axis]
            places.setdefault(operand, []).append(np.arange(offset, offset + extent, dtype=np.int64))
            offset += extent
        for operand, runs in places.items():
            relations.equal_all(operand, y, rank, but=axis)
            at = positions(node.shape(operand)[axis])
            if len(runs) == 1:
                relations.map(operand, axis, y, axis, at, runs[0])
            else:
                relations.map(operand, axis, y, axis, np.tile(at, len(runs)), np.concatenate(runs))

    def source(self, node: Node, position: int) -> tuple[int, int] | None:
        for index, operand in enumerate(node.inputs):
            (extent,) = node.shape(operand)
            if position < extent:
                return index, position
            position -= extent
        return None


class Split(Operator):
    """The operand cut along an axis; each part has its offset."""

    types = ("Split",)
    selects = True

    def relate(self, node: Node, relations: Relations) -> None:
        x, rank = node.inputs[0], len(node.in_shape(0))
        axis = normalized_axis(int(node.attr("axis", 0)), rank)
        offset = 0
        for index, part in enumerate(node.outputs):
            extent = node.out_shape(index)[axis] if part else 0
            relations.equal_all(x, part, rank, but=axis)
            at = positions(extent)
            relations.map(x, axis, part, axis, at + offset, at)
            offset += extent

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        axis = normalized_axis(int(node.attr("axis", 0)), len(node.in_shape(0)))
        if rewriter.kept(node.inputs[0], axis) is None:
            return
        sizes = [rewriter.extent(part, axis) for part in node.outputs]
        if node.version < 13:
            rewriter.set_attribute(node, "split", sizes)
        else:
            # Sizes are always spelled out: equal parts before need not be equal parts after.
            rewriter.set_attribute(node, "num_outputs", None)
            rewriter.set_operand(node, 1, np.array(sizes, dtype=np.int64))


OPERATORS: tuple[Operator, ...] = (Concat(), Split())
