"""Quantised operators: scales and zero points ride on the axis whose positions they belong to."""

from __future__ import annotations

import math
from typing import ClassVar

from onnxprune.ir.graph import Node
from onnxprune.ops.base import (
    Contraction,
    Masker,
    Operator,
    Rewriter,
    broadcast_axes,
    normalized_axis,
    positions,
    same_axes,
)
from onnxprune.ops.generators import pin_axes
from onnxprune.ops.relations import Relations


class Quantization(Operator):
    """x, scale, zero point → y like x; scales for the whole tensor, for each position of ``axis``, or for blocks."""

    types = ("DequantizeLinear", "QuantizeLinear")
    in_place = True
    packs = True

    def relate(self, node: Node, relations: Relations) -> None:
        x, y, rank = node.inputs[0], node.outputs[0], len(node.in_shape(0))
        same_axes(relations, node, x, y)
        for parameter in node.inputs[1:3]:
            if not parameter or math.prod(node.shape(parameter)) == 1:
                continue
            axis = normalized_axis(int(node.attr("axis", 1)), rank)
            if len(node.shape(parameter)) == 1:
                relations.equal(parameter, 0, y, axis)
                continue
            for dim in range(rank):
                if dim != axis:
                    relations.equal(parameter, dim, y, dim)
            pin_axes(
                relations, node, (x, parameter), f"{node.op_type} shares scales between blocks of the axis", (axis,)
            )


class DynamicQuantization(Operator):
    """x → y like x, scale and zero point, which the smallest and the largest of all elements decide."""

    types = ("DynamicQuantizeLinear",)
    since = 11

    def relate(self, node: Node, relations: Relations) -> None:
        same_axes(relations, node, node.inputs[0], node.outputs[0])
        for dim in range(len(node.in_shape(0))):
            relations.approximate(node.inputs[0], dim, "DynamicQuantizeLinear takes its scale from all positions")

    def mask(self, node: Node, masker: Masker) -> None:
        x = node.inputs[0]
        for dim in range(len(node.in_shape(0))):
            if masker.removed(x, dim) is not None:
                masker.keep_only(node, 0, dim)
                masker.restore(node, 0, dim, (x, dim))


class IntegerConv(Operator):
    """x (N, C, d1…), w (M, C/group, k1…), zero points → y (N, M, e1…).

    ``weight`` is the place of w among the operands, ``per_filter`` are those with one element for every filter (or
    one for all). Zeros are not neutral where the zero point is another number, so that the masked original leaves
    removed channels out instead of zeroing their weights.
    """

    types = ("ConvInteger",)
    weight: ClassVar[int] = 1
    per_filter: ClassVar[tuple[int, ...]] = (3,)

    def _channel(self, node: Node) -> int:
        """The channel dimension of x and y; onnxruntime has a form with channels last."""
        return len(node.in_shape(0)) - 1 if node.attr("channels_last", 0) else 1

    def relate(self, node: Node, relations: Relations) -> None:
        x, w, y, channel = node.inputs[0], node.inputs[self.weight], node.outputs[0], self._channel(node)
        groups, channels, filters = int(node.attr("group", 1)), node.in_shape(0)[channel], node.shape(w)[0]
        relations.equal(x, 0, y, 0)
        relations.equal(w, 0, y, channel)
        for index in self.per_filter:
            if node.has_input(index) and node.in_shape(index):
                relations.equal(node.inputs[index], 0, y, channel)
        if groups == 1:
            relations.equal(x, channel, w, 1)
        elif channels == groups:
            relations.free(w, 1)
            at = positions(filters)
            relations.map(y, channel, x, channel, at, at // (filters // groups))
        else:
            reason = f"{node.op_type} has groups of several channels"
            pin_axes(relations, node, (x, y), reason, (channel,))
            pin_axes(relations, node, (w,), reason, (1,))
        if node.is_constant(self.weight):
            relations.producer(w, 0)

    def cost(self, node: Node) -> Contraction:
        w, y, channel = node.inputs[self.weight], node.outputs[0], self._channel(node)
        groups, channels = int(node.attr("group", 1)), node.in_shape(0)[channel]
        places = (self.weight, *self.per_filter)
        return Contraction(
            kind="dense" if groups == 1 else "depthwise" if groups == channels else "grouped",
            factor=math.prod(node.shape(w)[2:]),
            axes=((w, 0), (w, 1), *((y, dim) for dim in range(len(node.out_shape())) if dim != channel)),
            weights=tuple(node.inputs[i] for i in places if node.has_input(i)),
            output=y,
            out_dim=channel,
        )

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        x, channel = node.inputs[0], self._channel(node)
        if int(node.attr("group", 1)) == node.in_shape(0)[channel] > 1 and rewriter.kept(x, channel) is not None:
            rewriter.set_attribute(node, "group", rewriter.extent(x, channel))

    def mask(self, node: Node, masker: Masker) -> None:
        if int(node.attr("group", 1)) == 1:
            masker.keep_only(node, 0, self._channel(node))
            masker.keep_only(node, self.weight, 1)


class QLinearConv(IntegerConv):
    """Like ConvInteger, with scales of x, w and y, and a bias (M)."""

    types = ("QLinearConv",)
    weight = 3
    per_filter = (4, 5, 8)


class IntegerMatMul(Operator):
    """A (…, M, K) times B (…, K, N) → Y (…, M, N), with scales and zero points for rows of A and columns of B.

    ``right`` is the place of B among the operands, ``per_row`` and ``per_column`` those of the scales, zero points
    and bias that belong to rows and to columns of the result (or to all of it).
    """

    types = ("MatMulInteger",)
    right: ClassVar[int] = 1
    per_row: ClassVar[tuple[int, ...]] = (2,)
    per_column: ClassVar[tuple[int, ...]] = (3,)

    def relate(self, node: Node, relations: Relations) -> None:
        a, b, y = node.inputs[0], node.inputs[self.right], node.outputs[0]
        rank_a, rank_b, rank_y = len(node.shape(a)), len(node.shape(b)), len(node.out_shape())
        if rank_a < 2 or rank_b < 2:
            pin_axes(relations, node, (a, b, y), f"{node.op_type} of a vector")
            return
        relations.equal(a, rank_a - 1, b, rank_b - 2)
        relations.equal(a, rank_a - 2, y, rank_y - 2)
        relations.equal(b, rank_b - 1, y, rank_y - 1)
        for tensor, rank in ((a, rank_a), (b, rank_b)):
            for dim in range(rank - 2):
                relations.equal(tensor, dim, y, dim + rank_y - rank)
        for index in self.per_column:
            if node.has_input(index):
                broadcast_axes(relations, node, node.inputs[index], y)
        for index in self.per_row:
            if node.has_input(index) and len(node.in_shape(index)) == 1:
                relations.equal(node.inputs[index], 0, y, rank_y - 2)
            elif node.has_input(index):
                broadcast_axes(relations, node, node.inputs[index], y)
        if node.is_constant(self.right):
            relations.producer(b, rank_b - 1)

    def cost(self, node: Node) -> Contraction:
        a, y, rank = node.inputs[0], node.outputs[0], len(node.out_shape())
        places = (0, self.right, *self.per_column)
        weights = tuple(node.inputs[i] for i in places if node.is_constant(i))
        return Contraction(
            kind="dense" if weights else "activations",
            factor=1,
            axes=(*((y, dim) for dim in range(rank)), (a, len(node.in_shape(0)) - 1)),
            weights=weights,
            output=y,
            out_dim=rank - 1,
        )

    def mask(self, node: Node, masker: Masker) -> None:
        masker.keep_only(node, 0, len(node.in_shape(0)) - 1)
        masker.keep_only(node, self.right, len(node.in_shape(self.right)) - 2)


class QLinearMatMul(IntegerMatMul):
    """Like MatMulInteger, with scales of A, B and Y."""

    types = ("QLinearMatMul",)
    right = 3
    per_row = (1, 2, 6, 7)
    per_column = (4, 5)


OPERATORS: tuple[Operator, ...] = (
    Quantization(),
    DynamicQuantization(),
    IntegerConv(),
    QLinearConv(),
    IntegerMatMul(),
    QLinearMatMul(),
)
