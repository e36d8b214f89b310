"""Resize and Upsample: axes they do not scale stay as they are."""

from __future__ import annotations

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator, Rewriter, normalized_axis
from onnxprune.ops.relations import Relations


class Resize(Operator):
    """X, roi, scales, sizes → Y (opset 10: X, scales); Upsample: X, scales."""

    types = ("Resize", "Upsample")

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        for dim, (before, after) in enumerate(zip(node.in_shape(0), node.out_shape(), strict=True)):
            if before == after:
                relations.equal(x, dim, y, dim)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if not node.has_input(3):
            return
        rank = len(node.in_shape(0))
        axes = [normalized_axis(int(a), rank) for a in node.attr("axes", range(rank))]
        y = node.outputs[0]
        fresh = {place: rewriter.extent(y, dim) for place, dim in enumerate(axes) if rewriter.kept(y, dim) is not None}
        if fresh:
            rewriter.set_elements(node, 3, fresh)


OPERATORS: tuple[Operator, ...] = (Resize(),)
