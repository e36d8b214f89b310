"""Normalisations: per channel (exact) and across channels (approximate, or exact on request: ``exact_norm``).

Exact means: as if all positions were there and the removed ones zero. A mean of squares of n kept of N positions needs
no more for that than a factor sqrt(N / n) on the scale and N / n on epsilon. Where a mean is subtracted, zeros take the
place of the removed positions (Pad before, Slice behind): their part of the variance, and the mean over N, come by
themselves, where any formula over kept positions takes some eight nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Masker, Operator, Rewriter, normalized_axis, positions, same_axes
from onnxprune.ops.linear import Affine
from onnxprune.ops.relations import Relations

_EPSILON = 1e-5


class BatchNormalization(Operator):
    """X (N, C, …) with vectors scale, bias, mean and variance (C) → Y like X."""

    types = ("BatchNormalization",)
    in_place = True

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        same_axes(relations, node, x, y)
        channel = 1 if len(node.in_shape(0)) > 1 else 0
        for vector in (*node.inputs[1:5], *node.outputs[1:]):
            if vector and vector in relations.axes and node.shape(vector):
                relations.equal(vector, 0, y, channel)

    def affine(self, node: Node) -> Affine:
        epsilon, fixed = float(node.attr("epsilon", _EPSILON)), not node.attr("training_mode", 0)
        return Affine(node, scale=1, shift=2, mean=3, variance=4, epsilon=epsilon, fixed=fixed)


def lost(node: Node, rewriter: Rewriter, dims: Iterable[int]) -> dict[int, int]:
    """How many positions go from these dimensions of the first operand, where any do."""
    x, shape = node.inputs[0], node.in_shape(0)
    return {dim: shape[dim] - rewriter.extent(x, dim) for dim in dims if rewriter.kept(x, dim) is not None}


def fill_up(
    node: Node,
    rewriter: Rewriter,
    gone: Mapping[int, int],
    operands: Iterable[int] = (0,),
    results: Iterable[int] = (0,),
) -> None:
    """Let the node work on the original extents: zeros behind what is kept, and results without their places.

    Operands are aligned from the last dimension, as numpy broadcasts.
    """
    rank = len(node.in_shape(0))
    for index in operands if gone else ():
        offset = rank - len(node.in_shape(index)) if node.has_input(index) else rank
        shape = node.in_shape(index) if node.has_input(index) else ()
        counts = {dim - offset: n for dim, n in gone.items() if dim >= offset and shape[dim - offset] > 1}
        if counts:
            rewriter.pad(node, index, counts)
    for index in results if gone else ():
        if node.has_output(index):
            extents = {dim: rewriter.extent(node.inputs[0], dim) for dim in gone}
            rewriter.pick_result(node, index, {dim: positions(extent) for dim, extent in extents.items()})


def mend_mean_square(
    node: Node, rewriter: Rewriter, gone: Mapping[int, int], scale: int, default_epsilon: float, deviation: int
) -> None:
    """Let a root of a mean of squares be that of all positions: ``scale`` is an operand, ``deviation`` a result."""
    if not gone:
        return
    share = math.prod(node.in_shape(0)[dim] / (node.in_shape(0)[dim] - n) for dim, n in gone.items())
    rewriter.set_attribute(node, "epsilon", float(node.attr("epsilon", default_epsilon)) * share)
    weight = rewriter.constant(node, scale)
    if weight is not None:
        rewriter.set_operand(node, scale, weight * np.asarray(math.sqrt(share), dtype=weight.dtype))
    else:
        rewriter.scale_result(node, 0, math.sqrt(share))
    if node.has_output(deviation):
        rewriter.scale_result(node, deviation, math.sqrt(share))


class InstanceNormalization(Operator):
    """X (N, C, d1…), scale (C), bias (C): every channel is normalised over its spatial axes."""

    types = ("InstanceNormalization",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        same_axes(relations, node, x, y)
        for vector in node.inputs[1:3]:
            relations.equal(vector, 0, y, 1)
        for dim in range(2, len(node.in_shape(0))):
            relations.approximate(x, dim, "InstanceNormalization over the axis", mendable=True)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if rewriter.exact_norm:
            fill_up(node, rewriter, lost(node, rewriter, range(2, len(node.in_shape(0)))))

    def mask(self, node: Node, masker: Masker) -> None:
        for dim in range(2, len(node.in_shape(0))):
            if masker.exact_norm:
                masker.zero(node, 0, dim)
            elif masker.removed(node.inputs[0], dim) is not None:
                masker.keep_only(node, 0, dim)
                masker.restore(node, 0, dim, (node.inputs[0], dim))


class TrailingNormalization(Operator):
    """LayerNormalization and RMSNormalization over all axes from ``axis`` on."""

    types: ClassVar[tuple[str, ...]] = ("LayerNormalization", "RMSNormalization")

    def relate(self, node: Node, relations: Relations) -> None:
        x, y, rank = node.inputs[0], node.outputs[0], len(node.in_shape(0))
        axis = normalized_axis(int(node.attr("axis", -1)), rank)
        same_axes(relations, node, x, y)
        for vector in node.inputs[1:]:
            if vector:
                offset = rank - len(node.shape(vector))
                for dim in range(len(node.shape(vector))):
                    relations.equal(vector, dim, y, dim + offset)
        for statistic in node.outputs[1:]:
            if statistic:
                for dim in range(axis):
                    relations.equal(x, dim, statistic, dim)
        for dim in range(axis, rank):
            relations.approximate(x, dim, f"{node.op_type} over the axis", mendable=True)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if not rewriter.exact_norm:
            return
        rank = len(node.in_shape(0))
        gone = lost(node, rewriter, range(normalized_axis(int(node.attr("axis", -1)), rank), rank))
        if node.op_type == "LayerNormalization":
            fill_up(node, rewriter, gone, range(len(node.inputs)))
        else:
            mend_mean_square(node, rewriter, gone, 1, _EPSILON, 1)

    def mask(self, node: Node, masker: Masker) -> None:
        x, rank = node.inputs[0], len(node.in_shape(0))
        for dim in range(normalized_axis(int(node.attr("axis", -1)), rank), rank):
            if masker.removed(x, dim) is None:
                continue
            if masker.exact_norm:
                masker.zero(node, 0, dim)
                continue
            masker.keep_only(node, 0, dim)
            for index in range(1, len(node.inputs)):
                if node.has_input(index):
                    own = dim - rank + len(node.in_shape(index))
                    if own >= 0 and masker.removed(node.inputs[index], own) is not None:
                        masker.keep_only(node, index, own)
            masker.restore(node, 0, dim, (x, dim))


class AcrossChannels(Operator):
    """LRN, LpNormalization and MeanVarianceNormalization: kept positions see fewer neighbours.

    For LpNormalization that makes no difference: what is zero adds nothing to a norm.
    """

    types = ("LRN", "LpNormalization", "MeanVarianceNormalization")

    def _axes(self, node: Node) -> set[int]:
        rank = len(node.in_shape(0))
        if node.op_type == "LRN":
            return {1}
        if node.op_type == "LpNormalization":
            return {normalized_axis(int(node.attr("axis", -1)), rank)}
        return {normalized_axis(int(a), rank) for a in node.attr("axes", (0, 2, 3))}

    def relate(self, node: Node, relations: Relations) -> None:
        same_axes(relations, node, node.inputs[0], node.outputs[0])
        for dim in self._axes(node):
            if node.op_type != "LpNormalization":
                mendable = node.op_type == "MeanVarianceNormalization"
                relations.approximate(node.inputs[0], dim, f"{node.op_type} over the axis", mendable=mendable)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if rewriter.exact_norm and node.op_type == "MeanVarianceNormalization":
            fill_up(node, rewriter, lost(node, rewriter, sorted(self._axes(node))))

    def mask(self, node: Node, masker: Masker) -> None:
        for dim in self._axes(node):
            if masker.exact_norm and node.op_type == "MeanVarianceNormalization":
                masker.zero(node, 0, dim)
            elif masker.removed(node.inputs[0], dim) is not None:
                masker.keep_only(node, 0, dim)
                masker.restore(node, 0, dim, (node.inputs[0], dim))


class GroupNormalization(Operator):
    """X (N, C, d1…), scale (C), bias (C): every group of channels is normalised.

    Its form of opset 18, which onnx has withdrawn and onnx.checker rejects, is left alone.
    """

    types = ("GroupNormalization",)
    since = 21

    def _groups(self, node: Node) -> int:
        return int(node.attr("num_groups"))

    def _per_channel(self, node: Node) -> bool:
        return self._groups(node) == node.in_shape(0)[1]

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        same_axes(relations, node, x, y)
        for vector in node.inputs[1:3]:
            relations.equal(vector, 0, y, 1)
        if not self._per_channel(node):
            relations.approximate(x, 1, "GroupNormalization over the channels of a group", mendable=True)
            if self._groups(node) > 1:
                relations.balance(x, 1, self._groups(node))
        for dim in range(2, len(node.in_shape(0))):
            relations.approximate(x, dim, "GroupNormalization over the axis", mendable=True)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if self._per_channel(node):
            rewriter.set_attribute(node, "num_groups", rewriter.extent(node.inputs[0], 1))
        if not rewriter.exact_norm:
            return
        kept = rewriter.kept(node.inputs[0], 1)
        if kept is not None and not self._per_channel(node):
            count = node.in_shape(0)[1] - len(kept)
            single = self._groups(node) == 1
            for index, dim in ((0, 1), (1, 0), (2, 0)):
                if single:
                    rewriter.pad(node, index, {dim: count})
                else:
                    rewriter.spread(node, index, dim)  # the zeros of each group in that group
            rewriter.pick_result(node, 0, {1: positions(len(kept)) if single else kept})
        fill_up(node, rewriter, lost(node, rewriter, range(2, len(node.in_shape(0)))))

    def mask(self, node: Node, masker: Masker) -> None:
        x = node.inputs[0]
        for dim in range(1, len(node.in_shape(0))):
            if masker.removed(x, dim) is None or (dim == 1 and self._per_channel(node)):
                continue
            if masker.exact_norm:
                masker.zero(node, 0, dim)
                continue
            masker.keep_only(node, 0, dim)
            for index in (1, 2) if dim == 1 else ():
                masker.keep_only(node, index, 0)
            masker.restore(node, 0, dim, (x, dim))


OPERATORS: tuple[Operator, ...] = (
    BatchNormalization(),
    GroupNormalization(),
    InstanceNormalization(),
    TrailingNormalization(),
    AcrossChannels(),
)
