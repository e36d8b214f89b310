"""Quantised arithmetic, exactly as integers would have it: sums are made in double precision, which holds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from onnxprune.ir.graph import Node, UnknownShapeError
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.ops.convolution import convolve, pad_same, padded, window
from onnxprune.torch.tensors import torch_dtype

Tensor = torch.Tensor


def convert_quantize(node: Node, build: Builder) -> fx.Node:
    """A call of :func:`quantize`."""
    elem_type = node.attr("output_dtype", 0)
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2)
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    return build.call(quantize, *operands, axis, block, torch_dtype(elem_type) if elem_type else None)


def convert_dequantize(node: Node, build: Builder) -> fx.Node:
    """A call of :func:`dequantize`."""
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2)
    return build.call(dequantize, *operands, node.attr("axis", 1), node.attr("block_size", 0))


def _quantize_dynamically(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    every = build.call(quantize_dynamically, build.tensor(node, 0))
    return tuple(build.item(every, index) for index in range(3))


def _multiply_integers(node: Node, build: Builder) -> fx.Node:
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2), build.optional(node, 3)
    return build.call(multiply, *operands)


def _convolve_integers(node: Node, build: Builder) -> fx.Node:
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2), build.optional(node, 3)
    return build.call(convolve_integers, *operands, _settings(node, 1))


def _quantized_multiply(node: Node, build: Builder) -> fx.Node:
    return build.call(quantized_multiply, build.tensors(node))


def _quantized_convolve(node: Node, build: Builder) -> fx.Node:
    operands = [build.optional(node, index) for index in range(len(node.inputs))]
    return build.call(quantized_convolve, operands, _settings(node, 3))


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


def along(values: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point in a shape that broadcasts with ``x``: one, one per position of an axis, or per block."""
    if values.dim() == 0 or (values.numel() == 1 and not block):
        return values.reshape(())
    if block:
        return values.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def quantize(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: int, dtype: torch.dtype | None) -> Tensor:
    """Rounded to integers of a scale, halves to even."""
    target = zero.dtype if zero is not None else (dtype or torch.uint8)
    steps = x / along(scale, x, axis, block)
    if target.is_floating_point:
        limit = torch.finfo(target).max
        return steps.clamp(-limit, limit).to(target)
    offset = 0 if zero is None else along(zero, x, axis, block).to(torch.float32)
    return _saturated(torch.round(steps) + offset, target)


def _saturated(values: Tensor, dtype: torch.dtype) -> Tensor:
    limits = torch.iinfo(dtype)
    return values.clamp(limits.min, limits.max).to(dtype)


def dequantize(x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: int) -> Tensor:
    """The numbers that the integers stand for."""
    values = x.to(scale.dtype)
    if zero is not None:
        values = values - along(zero, x, axis, block).to(scale.dtype)
    return values * along(scale, x, axis, block)


def quantize_dynamically(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """8-bit integers, with the scale and zero point that the values ask for."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.round((0 - low) / scale).clamp(0, 255)
    y = (torch.round(x / scale) + zero).clamp(0, 255).to(torch.uint8)
    return y, scale, zero.to(torch.uint8)


def _centred(x: Tensor, zero: Tensor | None, axis: int) -> Tensor:
    wide = x.to(torch.float64)
    return wide if zero is None else wide - along(zero, x, axis, 0).to(torch.float64)


def multiply(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    """The product of integer matrices, as int32; zero points of ``a`` are per row, of ``b`` per column."""
    rows = max(a.dim() - 2, 0)
    return (_centred(a, a_zero, rows) @ _centred(b, b_zero, b.dim() - 1)).to(torch.int32)


def convolve_integers(
    x: Tensor, weight: Tensor, x_zero: Tensor | None, w_zero: Tensor | None, settings: dict[str, Any]
) -> Tensor:
    """A convolution of integers, as int32; ``settings``: begins, ends (or None), upper, strides, dilations, group."""
    return _convolve(_centred(x, x_zero, 0), _centred(weight, w_zero, 0), settings).to(torch.int32)


def _convolve(x: Tensor, weight: Tensor, settings: dict[str, Any]) -> Tensor:
    kernel = tuple(weight.shape[2:])
    if settings["begins"] is None:
        x = pad_same(x, kernel, settings["strides"], settings["dilations"], settings["upper"])
    else:
        x = padded(x, settings["begins"], settings["ends"])
    return convolve(x, weight, None, settings["strides"], settings["dilations"], settings["group"])


def _requantized(sums: Tensor, factor: Tensor, y_zero: Tensor) -> Tensor:
    return _saturated(torch.round(sums * factor) + y_zero.to(torch.float64), y_zero.dtype)


def quantized_multiply(operands: Sequence[Tensor]) -> Tensor:
    """QLinearMatMul: a, its scale and zero point, the same of b, scale and zero point of the result."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = operands
    rows, columns = max(a.dim() - 2, 0), b.dim() - 1
    sums = _centred(a, a_zero, rows) @ _centred(b, b_zero, columns)
    # In single precision, as onnxruntime rounds.
    factor = along(a_scale, a, rows, 0) * along(b_scale, b, columns, 0) / y_scale
    return _requantized(sums, factor.to(torch.float64), y_zero)


def quantized_convolve(operands: Sequence[Tensor | None], settings: dict[str, Any]) -> Tensor:
    """QLinearConv: x, its scale and zero point, the same of the weight, of the result, and an int32 bias."""
    given: list[Any] = [*operands, *[None] * (9 - len(operands))]
    x, x_scale, x_zero, weight, w_scale, w_zero, y_scale, y_zero, bias = given
    sums = _convolve(_centred(x, x_zero, 0), _centred(weight, w_zero, 0), settings)
    channels = (-1, *[1] * (x.dim() - 2))
    if bias is not None:
        sums = sums + bias.to(torch.float64).reshape(channels)
    factor = x_scale * w_scale / y_scale
    return _requantized(sums, factor.to(torch.float64).reshape(channels if factor.numel() > 1 else ()), y_zero)


CONVERTERS = (
    Converter("ConvInteger", _convolve_integers, refuse=_refuse_unknown_kernel),
    Converter("DequantizeLinear", convert_dequantize),
    Converter("DynamicQuantizeLinear", _quantize_dynamically),
    Converter("MatMulInteger", _multiply_integers),
    Converter("QLinearConv", _quantized_convolve, refuse=_refuse_unknown_kernel),
    Converter("QLinearMatMul", _quantized_multiply),
    Converter("QuantizeLinear", convert_quantize),
)
