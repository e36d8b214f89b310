"""Operators that compute each element from the elements at the same place, with numpy's broadcasting."""

from __future__ import annotations

import numpy as np

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator, broadcast_axes, same_axes
from onnxprune.ops.relations import IntArray, Relations


class Unary(Operator):
    """One tensor in, the same places out; further inputs (Clip's bounds, Dropout's ratio) are scalars."""

    types = (
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Bernoulli", "BitwiseNot", "Cast", "Ceil", "Celu",
        "Clip", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish",
        "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round",
        "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
        "ThresholdedRelu",
    )  # fmt: skip
    draws = frozenset({"Bernoulli"})
    comparing = frozenset({"Sign"})
    in_place = True
    homogeneous = frozenset({"Dropout", "Identity", "LeakyRelu", "Relu"})
    placewise = True
    bending = frozenset(
        {
            "Celu", "Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu", "Selu",
            "Shrink", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
        }
    )  # fmt: skip

    def reads(self, node: Node, index: int, wanted: IntArray) -> IntArray | None:
        return wanted if index == 0 else None

    def varies(self, node: Node) -> tuple[float, float] | None:
        if node.op_type == "Relu":
            return 0.0, np.inf
        if node.op_type == "HardSwish":
            return -3.0, np.inf
        if node.op_type == "HardSigmoid":
            slope, start = float(node.attr("alpha", 0.2)), float(node.attr("beta", 0.5))
            return (-start / slope, (1 - start) / slope) if slope > 0 else None
        return _clipped(node) if node.op_type == "Clip" else None

    def relate(self, node: Node, relations: Relations) -> None:
        same_axes(relations, node, node.inputs[0], node.outputs[0])
        # Dropout's mask; a mask that nobody reads may have no shape.
        for output in node.outputs[1:]:
            if output in relations.axes:
                same_axes(relations, node, node.inputs[0], output)
            elif output in node.graph.outputs:
                for dim in range(len(node.in_shape(0))):
                    relations.pin(node.inputs[0], dim, f"reaches graph output '{output}'")


def _clipped(node: Node) -> tuple[float, float] | None:
    """The bounds of a Clip, attributes before opset 11; None where they are computed."""
    bounds = []
    for index, name, without in ((1, "min", -np.inf), (2, "max", np.inf)):
        value = node.value(index) if node.has_input(index) else node.attr(name, without)
        if value is None or np.size(value) != 1:
            return None
        bounds.append(float(np.reshape(value, ())))
    return bounds[0], bounds[1]


class CastLike(Operator):
    """Like Cast; of the second input only the element type counts."""

    types = ("CastLike",)

    def relate(self, node: Node, relations: Relations) -> None:
        same_axes(relations, node, node.inputs[0], node.outputs[0])
        for dim in range(len(node.in_shape(1))):
            relations.free(node.inputs[1], dim)


class Broadcasting(Operator):
    """Any number of operands, broadcast against each other."""

    types = (
        "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
        "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub",
        "Sum", "Where", "Xor",
    )  # fmt: skip
    in_place = True
    homogeneous = joining = frozenset({"Add", "Max", "Mean", "Min", "Sub", "Sum"})
    placewise = True
    bending = frozenset({"PRelu"})
    comparing = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual"})

    def relate(self, node: Node, relations: Relations) -> None:
        for operand in dict.fromkeys(node.inputs):
            if operand:
                broadcast_axes(relations, node, operand, node.outputs[0])


OPERATORS: tuple[Operator, ...] = (Unary(), CastLike(), Broadcasting())
