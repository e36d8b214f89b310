"""Attention as one operator: head width and, where heads have an axis of their own, heads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator, Rewriter, normalized_axis, positions
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
        if any(node.has_input(i) for i in (4, 5)) or any(node.outputs[1:]):
            pin_axes(relations, node, (*node.inputs, *node.outputs), "Attention hands its state on")
            return
        heads = self._heads(node)
        relate_attention(relations, node, heads)
        if node.has_input(3) and len(node.in_shape(3)) == 4 and not heads.merged:
            relations.equal(node.inputs[3], 1, node.outputs[0], 1)

    def cost(self, node: Node) -> Contraction:
        return attention_cost(node, self._heads(node))

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        keep_scale(node, rewriter, self._heads(node))

    def mask(self, node: Node, masker: Masker) -> None:
        masker.zero(node, 1, 2 if self._heads(node).merged else 3)


class RotaryEmbedding(Operator):
    """X (B, H, S, d) or (B, S, H · d), tables of cosines and sines → Y like X: positions of a head turn in pairs."""

    types = ("RotaryEmbedding",)
    since = 23

    def relate(self, node: Node, relations: Relations) -> None:
        x, y, rank = node.inputs[0], node.outputs[0], len(node.in_shape(0))
        relations.equal(x, 0, y, 0)
        if rank == 4:
            relations.equal(x, 1, y, 1)
        last = normalized_axis(-1, rank)
        pin_axes(relations, node, (x, y), f"{node.op_type} turns positions of a head in pairs", (last,))


OPERATORS: tuple[Operator, ...] = (Attention(), RotaryEmbedding())
