"""Quantised operators of onnxruntime (domain com.microsoft): what its quantiser and optimiser write."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator, broadcast_axes, normalized_axis, positions
from onnxprune.ops.contrib import DOMAIN
from onnxprune.ops.generators import pin_axes
from onnxprune.ops.quantized import IntegerMatMul, QLinearConv, Quantization
from onnxprune.ops.relations import IntArray, Relations


class MicrosoftQuantization(Quantization):
    """QuantizeLinear and DequantizeLinear with more element types."""

    domain = DOMAIN


class MicrosoftQLinearConv(QLinearConv):
    """QLinearConv, perhaps with channels last."""

    domain = DOMAIN


class QLinearElementwise(Operator):
    """Operands with a scale and zero point each, broadcast against each other; then those of the result."""

    domain = DOMAIN
    operands: ClassVar[dict[str, tuple[int, ...]]] = {
        "QLinearAdd": (0, 3),
        "QLinearLeakyRelu": (0,),
        "QLinearMul": (0, 3),
        "QLinearSigmoid": (0,),
        "QLinearWhere": (0, 1, 4),
    }
    types = tuple(operands)

    def relate(self, node: Node, relations: Relations) -> None:
        for operand in dict.fromkeys(node.inputs[i] for i in self.operands[node.op_type]):
            broadcast_axes(relations, node, operand, node.outputs[0])


class QLinearPooling(Operator):
    """X (N, C, d1…), or with channels last → Y likewise."""

    types = ("NhwcMaxPool", "QLinearAveragePool", "QLinearGlobalAveragePool")
    domain = DOMAIN

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        last = node.op_type == "NhwcMaxPool" or node.attr("channels_last", 0)
        channel = len(node.in_shape(0)) - 1 if last else 1
        relations.equal(x, 0, y, 0)
        relations.equal(x, channel, y, channel)


class QLinearConcat(Operator):
    """Scale and zero point of the result, then operands with a scale and zero point each, joined along ``axis``."""

    types = ("QLinearConcat",)
    domain = DOMAIN

    def relate(self, node: Node, relations: Relations) -> None:
        y, rank = node.outputs[0], len(node.out_shape())
        axis = normalized_axis(int(node.attr("axis")), rank)
        places: dict[str, list[IntArray]] = {}
        offset = 0
        for operand in node.inputs[2::3]:
            extent = node.shape(operand)[axis]
            places.setdefault(operand, []).append(positions(extent) + offset)
            offset += extent
        for operand, runs in places.items():
            for dim in range(rank):
                if dim != axis:
                    relations.equal(operand, dim, y, dim)
            at = np.tile(positions(node.shape(operand)[axis]), len(runs))
            relations.map(operand, axis, y, axis, at, np.concatenate(runs))


class QLinearSoftmax(Operator):
    """X, scales and zero points → Y: positions of ``axis`` (before opset 13: of all axes from it on) are compared."""

    types = ("QLinearSoftmax",)
    domain = DOMAIN

    def relate(self, node: Node, relations: Relations) -> None:
        x, y, rank = node.inputs[0], node.outputs[0], len(node.in_shape(0))
        axis = normalized_axis(int(node.attr("axis", -1)), rank)
        compared = range(axis, axis + 1 if int(node.attr("opset", 13)) >= 13 else rank)
        pin_axes(relations, node, (x, y), "QLinearSoftmax over the axis", compared)
        for dim in set(range(rank)) - set(compared):
            relations.equal(x, dim, y, dim)


class QGemm(Operator):
    """A, scale, zero point, B, scale, zero point, C, scale, zero point → Y (M, N); A and B may come transposed."""

    types = ("QGemm",)
    domain = DOMAIN

    def _dims(self, node: Node) -> tuple[int, int, int, int]:
        """The dimensions of A that hold M and K, and those of B that hold K and N."""
        m, k_a = (1, 0) if node.attr("transA", 0) else (0, 1)
        k_b, n = (1, 0) if node.attr("transB", 0) else (0, 1)
        return m, k_a, k_b, n

    def relate(self, node: Node, relations: Relations) -> None:
        a, b, y = node.inputs[0], node.inputs[3], node.outputs[0]
        m, k_a, k_b, n = self._dims(node)
        relations.equal(a, m, y, 0)
        relations.equal(a, k_a, b, k_b)
        relations.equal(b, n, y, 1)
        for index in (4, 5, 6):
            if node.has_input(index):
                broadcast_axes(relations, node, node.inputs[index], y)
        if node.is_constant(3):
            relations.producer(b, n)

    def cost(self, node: Node) -> Contraction:
        b, y = node.inputs[3], node.outputs[0]
        return Contraction(
            kind="dense",
            factor=1,
            axes=((y, 0), (y, 1), (b, self._dims(node)[2])),
            weights=tuple(node.inputs[i] for i in (3, 4, 5, 6) if node.is_constant(i)),
            output=y,
            out_dim=1,
        )

    def mask(self, node: Node, masker: Masker) -> None:
        _, k_a, k_b, _ = self._dims(node)
        masker.keep_only(node, 0, k_a)
        masker.keep_only(node, 3, k_b)


class MatMulIntegerToFloat(IntegerMatMul):
    """MatMulInteger, then scales and a bias."""

    types = ("MatMulIntegerToFloat",)
    domain = DOMAIN
    per_row = (2, 4)
    per_column = (3, 5, 6)


class DynamicQuantizeMatMul(IntegerMatMul):
    """A in float, quantised by its smallest and largest element; B, its scales and zero points, bias."""

    types = ("DynamicQuantizeMatMul",)
    domain = DOMAIN
    per_row = ()
    per_column = (2, 3, 4)

    def relate(self, node: Node, relations: Relations) -> None:
        super().relate(node, relations)
        a, last = node.inputs[0], len(node.in_shape(0)) - 1
        reason = "DynamicQuantizeMatMul takes its scale from all positions"
        relations.approximate(a, last, reason)
        pin_axes(relations, node, (a,), reason, range(last))


OPERATORS: tuple[Operator, ...] = (
    MicrosoftQuantization(),
    MicrosoftQLinearConv(),
    QLinearElementwise(),
    QLinearPooling(),
    QLinearConcat(),
    QLinearSoftmax(),
    QGemm(),
    MatMulIntegerToFloat(),
    DynamicQuantizeMatMul(),
)
