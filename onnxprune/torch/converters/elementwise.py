"""Arithmetic, comparison and logic, position by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import elementwise as functions
from onnxprune.torch.functions import host


def calling(function: Callable[..., Any]) -> Callable[[Node, Builder], fx.Node]:
    """Call a function with all operands as tensors."""

    def convert(node: Node, build: Builder) -> fx.Node:
        operands = build.tensors(node)
        if all(build.dtype(name) not in functions.WIDE_UNSIGNED for name in node.inputs):
            return build.call(function, *operands)
        # PyTorch stores these types but hardly computes with them.
        wide = [build.call(functions.cast, operand, torch.int64) for operand in operands]
        result = build.call(function, *wide)
        dtype = build.dtype(node.outputs[0])
        return result if dtype is None else build.call(functions.cast, result, dtype)

    return convert


def _on_numbers(node: Node, build: Builder) -> fx.Node:
    return build.call(host.apply, node.op_type, *(build.host(node, index) for index in range(len(node.inputs))))


def _modulo(node: Node, build: Builder) -> fx.Node:
    return calling(torch.fmod if node.attr("fmod", 0) else torch.remainder)(node, build)


def _power(node: Node, build: Builder) -> fx.Node:
    exponent = build.constant(node, 1)
    if exponent is not None and exponent.size == 1 and exponent.ndim == 0:
        return build.call(functions.power, build.tensor(node, 0), exponent.item())
    return build.call(functions.power, *build.tensors(node))


def _clip_attributes(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.clip, build.tensor(node, 0), node.attr("min"), node.attr("max"))


def _clip(node: Node, build: Builder) -> fx.Node:
    bounds = []
    for index in (1, 2):
        constant = build.constant(node, index)
        bounds.append(build.optional(node, index) if constant is None else constant.item())
    return build.call(functions.clip, build.tensor(node, 0), *bounds)


def _shift(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.shift, *build.tensors(node), node.attr("direction") == "LEFT")


def _is_infinite(node: Node, build: Builder) -> fx.Node:
    positive, negative = bool(node.attr("detect_positive", 1)), bool(node.attr("detect_negative", 1))
    return build.call(functions.is_infinite, build.tensor(node, 0), positive, negative)


_ALSO_ON_NUMBERS: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Ceil": torch.ceil,
    "Div": functions.divide,
    "Equal": torch.eq,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Max": functions.maximum_of,
    "Min": functions.minimum_of,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Sum": functions.add_all,
    "Where": functions.where,
}

_TENSOR: dict[str, Callable[..., Any]] = {
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "And": torch.logical_and,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseNot": torch.bitwise_not,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Det": torch.linalg.det,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mean": functions.mean_of,
    "Or": torch.logical_or,
    "Reciprocal": torch.reciprocal,
    "Round": torch.round,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Tan": torch.tan,
    "Xor": torch.logical_xor,
}

CONVERTERS = (
    *(Converter(op, calling(function), host=_on_numbers) for op, function in _ALSO_ON_NUMBERS.items()),
    *(Converter(op, calling(function)) for op, function in _TENSOR.items()),
    Converter("BitShift", _shift),
    Converter("Clip", _clip_attributes, until=10),
    Converter("Clip", _clip, since=11),
    Converter("IsInf", _is_infinite),
    Converter("Mod", _modulo, host=_on_numbers),
    Converter("Pow", _power),
)
