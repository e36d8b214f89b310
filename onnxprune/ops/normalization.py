"""Normalisations: per channel (exact) and across channels (approximate)."""

from __future__ import annotations

from typing import ClassVar

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Masker, Operator, Rewriter, normalized_axis, same_axes
from onnxprune.ops.relations import Relations


class BatchNormalization(Operator):
    """X (N, C, …) with vectors scale, bias, mean and variance (C) → Y like X."""

    types = ("BatchNormalization",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        same_axes(relations, node, x, y)
        channel = 1 if len(node.in_shape(0)) > 1 else 0
        for vector in (*node.inputs[1:5], *node.outputs[1:]):
            if vector and vector in relations.axes and node.shape(vector):
                relations.equal(vector, 0, y, channel)


class InstanceNormalization(Operator):
    """X (N, C, d1…), scale (C), bias (C): every channel is normalised over its spatial axes."""

    types = ("InstanceNormalization",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        same_axes(relations, node, x, y)
        for vector in node.inputs[1:3]:
            relations.equal(vector, 0, y, 1)
        for dim in range(2, len(node.in_shape(0))):
            relations.approximate(x, dim, "InstanceNormalization over the axis")

    def mask(self, node: Node, masker: Masker) -> None:
        for dim in range(2, len(node.in_shape(0))):
            if masker.removed(node.inputs[0], dim) is not None:
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
            relations.approximate(x, dim, f"{node.op_type} over the axis")

    def mask(self, node: Node, masker: Masker) -> None:
        x, rank = node.inputs[0], len(node.in_shape(0))
        for dim in range(normalized_axis(int(node.attr("axis", -1)), rank), rank):
            if masker.removed(x, dim) is None:
                continue
            masker.keep_only(node, 0, dim)
            for index in range(1, len(node.inputs)):
                if node.has_input(index):
                    own = dim - rank + len(node.in_shape(index))
                    if own >= 0 and masker.removed(node.inputs[index], own) is not None:
                        masker.keep_only(node, index, own)
            masker.restore(node, 0, dim, (x, dim))


class AcrossChannels(Operator):
    """LRN, LpNormalization and MeanVarianceNormalization: kept positions see fewer neighbours."""

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
            relations.approximate(node.inputs[0], dim, f"{node.op_type} over the axis")

    def mask(self, node: Node, masker: Masker) -> None:
        for dim in self._axes(node):
            if masker.removed(node.inputs[0], dim) is not None:
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
            relations.approximate(x, 1, "GroupNormalization over the channels of a group")
            if self._groups(node) > 1:
                relations.balance(x, 1, self._groups(node))
        for dim in range(2, len(node.in_shape(0))):
            relations.approximate(x, dim, "GroupNormalization over the axis")

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if self._per_channel(node):
            rewriter.set_attribute(node, "num_groups", rewriter.extent(node.inputs[0], 1))

    def mask(self, node: Node, masker: Masker) -> None:
        x = node.inputs[0]
        for dim in range(1, len(node.in_shape(0))):
            if masker.removed(x, dim) is None or (dim == 1 and self._per_channel(node)):
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
