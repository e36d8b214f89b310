"""Quantisation, and arithmetic on quantised tensors."""

from __future__ import annotations

from typing import Any

from torch import fx

from onnxprune.ir.graph import Node, UnknownShapeError
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.converters.convolution import window
from onnxprune.torch.functions import quantized as functions
from onnxprune.torch.tensors import torch_dtype


def _quantize(node: Node, build: Builder) -> fx.Node:
    elem_type = node.attr("output_dtype", 0)
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2)
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    return build.call(functions.quantize, *operands, axis, block, torch_dtype(elem_type) if elem_type else None)


def _dequantize(node: Node, build: Builder) -> fx.Node:
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2)
    return build.call(functions.dequantize, *operands, node.attr("axis", 1), node.attr("block_size", 0))


def _quantize_dynamically(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    every = build.call(functions.quantize_dynamically, build.tensor(node, 0))
    return tuple(build.item(every, index) for index in range(3))


def _multiply_integers(node: Node, build: Builder) -> fx.Node:
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2), build.optional(node, 3)
    return build.call(functions.multiply, *operands)


def _convolve_integers(node: Node, build: Builder) -> fx.Node:
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2), build.optional(node, 3)
    return build.call(functions.convolve_integers, *operands, _settings(node, 1))


def _quantized_multiply(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.quantized_multiply, build.tensors(node))


def _quantized_convolve(node: Node, build: Builder) -> fx.Node:
    operands = [build.optional(node, index) for index in range(len(node.inputs))]
    return build.call(functions.quantized_convolve, operands, _settings(node, 3))


def _settings(node: Node, weight: int) -> dict[str, Any]:
    found = window(node, tuple(node.attr("kernel_shape") or node.in_shape(weight)[2:]))
    return {
        "begins": found.begins,
        "ends": found.ends,
        "upper": found.upper,
        "strides": found.strides,
        "dilations": found.dilations,
        "group": node.attr("group", 1),
    }


def _refuse_unknown_kernel(node: Node) -> str | None:
    try:
        _settings(node, 1 if node.op_type == "ConvInteger" else 3)
    except UnknownShapeError:
        return "the shape of its weight is not known"
    return None


CONVERTERS = (
    Converter("ConvInteger", _convolve_integers, refuse=_refuse_unknown_kernel),
    Converter("DequantizeLinear", _dequantize),
    Converter("DequantizeLinear", _dequantize, domain="com.microsoft"),
    Converter("DynamicQuantizeLinear", _quantize_dynamically),
    Converter("MatMulInteger", _multiply_integers),
    Converter("QLinearConv", _quantized_convolve, refuse=_refuse_unknown_kernel),
    Converter("QLinearMatMul", _quantized_multiply),
    Converter("QuantizeLinear", _quantize),
    Converter("QuantizeLinear", _quantize, domain="com.microsoft"),
)
