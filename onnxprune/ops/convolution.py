"""Conv and ConvTranspose: plain, grouped and depthwise, of any rank."""

from __future__ import annotations

import math

import numpy as np

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator, Rewriter, positions
from onnxprune.ops.relations import Relations


def _groups(node: Node) -> int:
    return int(node.attr("group", 1))


def _shrink_groups(node: Node, rewriter: Rewriter) -> None:
    """Depthwise convolutions have one group per channel; others lose groups only if whole ones go."""
    groups, channels = _groups(node), node.in_shape(0)[1]
    kept = rewriter.kept(node.inputs[0], 1)
    if groups > 1 and kept is not None:
        left = len(np.unique(kept // (channels // groups)))
        if left != groups:
            rewriter.set_attribute(node, "group", left)


class Conv(Operator):
    """X (N, C, d1…), W (M, C/group, k1…), B (M) → Y (N, M, e1…)."""

    types = ("Conv",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
        groups, channels, filters = _groups(node), node.in_shape(0)[1], node.in_shape(1)[0]
        relations.equal(x, 0, y, 0)
        relations.equal(w, 0, y, 1)
        if node.has_input(2):
            relations.equal(node.inputs[2], 0, y, 1)
        if groups == 1:
            relations.equal(x, 1, w, 1)
        elif channels == groups:
            relations.free(w, 1)
            if filters == channels:
                relations.equal(x, 1, y, 1)
            else:
                at = positions(filters)
                relations.map(y, 1, x, 1, at, at // (filters // groups))
        else:
            relations.balance(x, 1, groups, relative=(w, 1))
            relations.balance(y, 1, groups)
        if node.is_constant(1):
            relations.producer(w, 0)

    def cost(self, node: Node) -> Contraction:
        w, y = node.inputs[1], node.outputs[0]
        spatial = [(y, dim) for dim in range(2, len(node.out_shape()))]
        return Contraction(
            kind="depthwise"
            if node.in_shape(0)[1] == _groups(node) > 1
            else "grouped"
            if _groups(node) > 1
            else "dense",
            factor=math.prod(node.in_shape(1)[2:]),
            axes=((y, 0), (w, 0), (w, 1), *spatial),
            weights=tuple(i for i in node.inputs[1:] if i),
            output=y,
            out_dim=1,
        )

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        _shrink_groups(node, rewriter)

    def mask(self, node: Node, masker: Masker) -> None:
        if _groups(node) == 1:
            masker.zero(node, 1, 1)
        elif _groups(node) != node.in_shape(0)[1]:
            # Groups may lose different relative positions, which the weight alone cannot express.
            masker.zero(node, 0, 1)


class ConvTranspose(Operator):
    """X (N, C, d1…), W (C, M/group, k1…), B (M) → Y (N, M, e1…)."""

    types = ("ConvTranspose",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
        groups, channels, filters = _groups(node), node.in_shape(0)[1], node.out_shape()[1]
        relations.equal(x, 0, y, 0)
        relations.equal(x, 1, w, 0)
        if node.has_input(2):
            relations.equal(node.inputs[2], 0, y, 1)
        if groups == 1:
            relations.equal(w, 1, y, 1)
        elif channels == groups:
            relations.free(w, 1)
            at = positions(filters)
            relations.map(y, 1, x, 1, at, at // (filters // groups))
        else:
            relations.balance(x, 1, groups)
            relations.balance(y, 1, groups, relative=(w, 1))
        if node.is_constant(1):
            if groups == 1:
                relations.producer(w, 1)
            else:
                relations.producer(y, 1)

    def cost(self, node: Node) -> Contraction:
        # Every input element meets every filter element once, so the input's positions count, not the output's.
        x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
        spatial = [(x, dim) for dim in range(2, len(node.in_shape(0)))]
        return Contraction(
            kind="transposed",
            factor=math.prod(node.in_shape(1)[2:]),
            axes=((x, 0), (w, 0), (w, 1), *spatial),
            weights=tuple(i for i in node.inputs[1:] if i),
            output=y,
            out_dim=1,
        )

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        _shrink_groups(node, rewriter)

    def mask(self, node: Node, masker: Masker) -> None:
        if _groups(node) == 1:
            masker.zero(node, 1, 0)
        elif _groups(node) != node.in_shape(0)[1]:
            masker.zero(node, 0, 1)


OPERATORS: tuple[Operator, ...] = (Conv(), ConvTranspose())
