"""Attention as one operator: head width and, where heads have an axis of their own, heads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator, Rewriter, positions, same_axes
from onnxprune.ops.generators import pin_axes
from onnxprune.ops.relations import IntArray, Relations


@dataclass(frozen=True)
class Heads:
    """How query, key and value are laid out: heads on an axis of their own (B, H, S, d), or merged (B, S, H · d)."""

    query: int
    key: int
    merged: bool

    def served(self, width: int) -> IntArray:
        """For each position of the query's heads (or merged heads of this width), that of the key's or value's."""
        each = width // self.query if self.merged else 1
        head, place = positions(width) // each, positions(width) % each
        return (head // (self.query // self.key)) * each + place


def relate_attention(relations: Relations, node: Node, heads: Heads) -> None:
    """Query, key and value (the first three operands) and the result (the first output)."""
    (q, k, v), y = node.inputs[:3], node.outputs[0]
    width = 2 if heads.merged else 3
    time = 1 if heads.merged else 2
    for tensor in (q, k, v):
        relations.equal(tensor, 0, y, 0)
    relations.equal(q, time, y, time)
    pin_axes(relations, node, (k, v), f"{node.op_type} compares positions", (time,))
    if heads.merged:
        # Heads are slices of the width: each keeps as many positions as the others.
        _tie(relations, q, k, width, heads)
        _tie(relations, y, v, width, heads)
        for tensor, count in ((q, heads.query), (k, heads.key), (y, heads.query), (v, heads.key)):
            relations.balance(tensor, width, count)
        return
    relations.equal(q, width, k, width)
    relations.equal(v, width, y, width)
    relations.equal(q, 1, y, 1)
    _tie(relations, q, k, 1, heads)
    _tie(relations, y, v, 1, heads)


def _tie(relations: Relations, many: str, few: str, dim: int, heads: Heads) -> None:
    if heads.query == heads.key:
        relations.equal(many, dim, few, dim)
        return
    extent = relations.axes.extents[relations.axes.id(many, dim)]
    relations.map(many, dim, few, dim, positions(extent), heads.served(extent))


def keep_scale(node: Node, rewriter: Rewriter, heads: Heads) -> None:
    """The scale that follows from the head width by default stays what it was."""
    q, width = node.inputs[0], 2 if heads.merged else 3
    if rewriter.kept(q, width) is not None and not node.attr("scale", 0.0):
        extent = node.in_shape(0)[width] // (heads.query if heads.merged else 1)
        rewriter.set_attribute(node, "scale", 1.0 / math.sqrt(extent))


def attention_cost(node: Node, heads: Heads) -> Contraction:
    """The products of queries with keys, and of their weights with values."""
    q, k, v, y = *node.inputs[:3], node.outputs[0]
    width, time = (2, 1) if heads.merged else (3, 2)
    rows = ((q, 0), (q, time), (k, time))
    # Every query head meets the width of one key head, and of one value head.
    keys = ((q, 2),) if heads.merged else ((q, 1), (q, 3))
    values = ((v, 2),) if heads.merged else ((q, 1), (v, 3))
    return Contraction(
        kind="activations",
        factor=1,
        axes=(*rows, *keys),
        also=((heads.query / heads.key if heads.merged else 1, (*rows, *values)),),
        weights=(),
        output=y,
        out_dim=width,
    )


class Attention(Operator):
    """Q, K, V, mask, past key, past value → Y, present key, present value, products; see :class:`Heads`."""

    types = ("Attention",)
    since = 23

    def _heads(self, node: Node) -> Heads:
        if len(node.in_shape(0)) == 3:
            return Heads(int(node.attr("q_num_heads")), int(node.attr("kv_num_heads")), merged=True)
        return Heads(node.in_shape(0)[1], node.in_shape(1)[1], merged=False)

    def relate(self, node: Node, relations: Relations) -> None:
        heads = self._heads(node)
        relate_attention(relations, node, heads)
        if node.has_input(3) and len(node.in_shape(3)) == 4 and not heads.merged:
            relations.equal(node.inputs[3], 1, node.outputs[0], 1)
        for operand, past, present in ((1, 4, 1), (2, 5, 2)):
            for state in (node.inputs[past : past + 1], node.outputs[present : present + 1]):
                if any(state):
                    self._relate_state(relations, node, node.inputs[operand], state[0], heads)
        if node.has_output(3):
            products = node.outputs[3]
            relations.equal(products, 0, node.outputs[0], 0)
            if not heads.merged:
                relations.equal(products, 1, node.outputs[0], 1)

    def _relate_state(self, relations: Relations, node: Node, operand: str, state: str, heads: Heads) -> None:
        """Keys or values of before (B, H, S, d), or of before and now: what shrinks in one shrinks in the other."""
        relations.equal(state, 0, node.outputs[0], 0)
        pin_axes(relations, node, (state,), f"{node.op_type} compares positions", (2,))
        if heads.merged:
            width, extent = node.shape(state)[3], node.shape(operand)[2]
            relations.map(operand, 2, state, 3, positions(extent), positions(extent) % width)
            pin_axes(relations, node, (state,), f"{node.op_type} keeps merged heads", (1,))
        else:
            relations.equal(operand, 1, state, 1)
            relations.equal(operand, 3, state, 3)

    def cost(self, node: Node) -> Contraction:
        return attention_cost(node, self._heads(node))

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        keep_scale(node, rewriter, self._heads(node))

    def mask(self, node: Node, masker: Masker) -> None:
        # The query, which meets the keys of now and of before.
        masker.zero(node, 0, 2 if self._heads(node).merged else 3)


class RotaryEmbedding(Operator):
    """X (B, H, S, d) or (B, S, H · d), tables of cosines and sines → Y like X: positions of a head turn in pairs.

    Each pair has a column of the tables, which all heads share.
    """

    types = ("RotaryEmbedding",)
    since = 23
    #: The operands that are tables.
    tables: ClassVar[tuple[int, int]] = (1, 2)

    def _width(self, node: Node) -> int:
        """The width of a head."""
        shape = node.in_shape(0)
        if len(shape) == 4:
            return shape[3]
        heads = int(node.attr("num_heads", 0))
        return shape[2] // heads if heads else 2 * node.in_shape(self.tables[0])[-1]

    def _relate_pairs(self, node: Node, relations: Relations) -> None:
        """Positions of heads and their columns; those that do not turn are free."""
        x, last = node.inputs[0], len(node.in_shape(0)) - 1
        columns, width = node.in_shape(self.tables[0])[-1], self._width(node)
        place = positions(node.in_shape(0)[last]) % width
        turning = np.flatnonzero(place < 2 * columns)
        column = place[turning] // 2 if node.attr("interleaved", 0) else place[turning] % columns
        for index in self.tables:
            relations.map(x, last, node.inputs[index], len(node.in_shape(index)) - 1, turning, column)
        if last == 2 and width > 2 * columns:
            relations.balance(x, last, node.in_shape(0)[last] // width)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y, rank = node.inputs[0], node.outputs[0], len(node.in_shape(0))
        same_axes(relations, node, x, y)
        pin_axes(relations, node, (x, y), f"{node.op_type} numbers positions", (rank - 2,))
        self._relate_pairs(node, relations)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        table = node.inputs[self.tables[0]]
        if node.attr("rotary_embedding_dim", 0):
            columns = rewriter.extent(table, len(node.in_shape(self.tables[0])) - 1)
            rewriter.set_attribute(node, "rotary_embedding_dim", 2 * columns)


OPERATORS: tuple[Operator, ...] = (Attention(), RotaryEmbedding())
