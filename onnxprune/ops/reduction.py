"""Reductions, and operators that compare or normalise positions along an axis."""

from __future__ import annotations

import math

from onnx import TensorProto

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Masker, Operator, Rewriter, normalized_axis
from onnxprune.ops.relations import Relations

_FLOATS = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE})


class Reduce(Operator):
    """Reduction over axes; what is reduced loses its axis, all other axes go through."""

    types = (
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
        "ReduceProd", "ReduceSum", "ReduceSumSquare",
    )  # fmt: skip

    #: Adding the terms of kept positions only is what the masked original does, too.
    _additive = frozenset({"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSum", "ReduceSumSquare"})

    def _axes(self, node: Node) -> set[int] | None:
        rank = len(node.in_shape(0))
        if not node.has_input(1) and node.attr("axes") is None:
            return set() if node.attr("noop_with_empty_axes", 0) else set(range(rank))
        axes = node.ints(1, "axes")
        if axes is None:
            return None
        if not axes:
            return set() if node.attr("noop_with_empty_axes", 0) else set(range(rank))
        return {normalized_axis(a, rank) for a in axes}

    def relate(self, node: Node, relations: Relations) -> None:
        axes = self._axes(node)
        if axes is None:
            return
        x, y = node.inputs[0], node.outputs[0]
        place = 0
        for dim in range(len(node.in_shape(0))):
            if dim in axes:
                if node.op_type in self._additive:
                    relations.free(x, dim)
                else:
                    relations.approximate(x, dim, f"{node.op_type} over the axis", mendable=self._mendable(node))
                place += int(node.attr("keepdims", 1))
            else:
                relations.equal(x, dim, y, place)
                place += 1

    def _mendable(self, node: Node) -> bool:
        """Whether a factor makes the result that of all positions, the removed ones zero."""
        return node.op_type == "ReduceMean" and node.graph.shapes.elem_types.get(node.outputs[0]) in _FLOATS

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if rewriter.exact_norm and self._mendable(node):
            x, shape = node.inputs[0], node.in_shape(0)
            share = math.prod(rewriter.extent(x, dim) / shape[dim] for dim in self._axes(node) or ())
            if share < 1:
                rewriter.scale_result(node, 0, share)

    def mask(self, node: Node, masker: Masker) -> None:
        for dim in self._axes(node) or ():
            if masker.exact_norm and self._mendable(node):
                masker.zero(node, 0, dim)
            elif masker.removed(node.inputs[0], dim) is not None:
                masker.keep_only(node, 0, dim)


class Softmax(Operator):
    """Softmax and its kin compare all positions of an axis (before opset 13: of all axes from ``axis`` on)."""

    types = ("Softmax", "LogSoftmax", "Hardmax")

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        compared = self._compared(node)
        for dim in range(len(node.in_shape(0))):
            if dim in compared:
                relations.pin(x, dim, f"{node.op_type} over the axis")
                relations.pin(y, dim, f"{node.op_type} over the axis")
            else:
                relations.equal(x, dim, y, dim)

    def compares(self, node: Node) -> int | None:
        first, *others = self._compared(node)
        return first if all(node.in_shape(0)[dim] == 1 for dim in others) else None

    def _compared(self, node: Node) -> range:
        rank = len(node.in_shape(0))
        axis = normalized_axis(int(node.attr("axis", -1 if node.version >= 13 else 1)), rank)
        return range(axis, axis + 1) if node.version >= 13 else range(axis, rank)


class Ranking(Operator):
    """ArgMax, ArgMin and TopK: positions of one axis are compared, and returned as numbers."""

    types = ("ArgMax", "ArgMin", "TopK")

    def relate(self, node: Node, relations: Relations) -> None:
        x, rank = node.inputs[0], len(node.in_shape(0))
        topk = node.op_type == "TopK"
        axis = normalized_axis(int(node.attr("axis", -1 if topk else 0)), rank)
        dropped = not topk and not node.attr("keepdims", 1)
        for dim in range(rank):
            if dim == axis:
                relations.pin(x, dim, f"{node.op_type} over the axis")
                continue
            for y in node.outputs:
                if y:
                    relations.equal(x, dim, y, dim - 1 if dropped and dim > axis else dim)


class CumSum(Operator):
    """Running sums along one axis: later positions depend on earlier ones."""

    types = ("CumSum",)

    def relate(self, node: Node, relations: Relations) -> None:
        axis = node.value(1)
        if axis is None:
            return
        rank = len(node.in_shape(0))
        worked = normalized_axis(int(axis.reshape(-1)[0]), rank)
        for dim in range(rank):
            if dim != worked:
                relations.equal(node.inputs[0], dim, node.outputs[0], dim)


OPERATORS: tuple[Operator, ...] = (Reduce(), Softmax(), Ranking(), CumSum())
