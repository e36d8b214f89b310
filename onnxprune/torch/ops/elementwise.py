"""Activations, arithmetic, comparison, logic and types, position by position; modules where ``torch.nn`` has them."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.layouts import Reshaped
from onnxprune.torch.tensors import torch_dtype

Tensor = torch.Tensor

WIDE_UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})
"""Types that PyTorch stores but hardly computes with."""
_SELU_ALPHA = 1.67326319217681884765625
_SELU_GAMMA = 1.05070102214813232421875
_SIXTH = 1 / 6


def applying(make: Callable[[Node], nn.Module]) -> Convert:
    """Apply a module without weights to the first operand."""

    def convert(node: Node, build: Builder) -> fx.Node:
        return build.module(node, make(node), build.tensor(node, 0))

    return convert


def _hard_sigmoid(node: Node, build: Builder) -> fx.Node:
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    # A float32 attribute is never exactly a sixth.
    if math.isclose(alpha, _SIXTH, rel_tol=1e-5) and beta == 0.5:
        return build.module(node, nn.Hardsigmoid(), build.tensor(node, 0))
    return build.call(hard_sigmoid, build.tensor(node, 0), alpha, beta)


def _selu(node: Node, build: Builder) -> fx.Node:
    alpha, gamma = node.attr("alpha", _SELU_ALPHA), node.attr("gamma", _SELU_GAMMA)
    if np.allclose((alpha, gamma), (_SELU_ALPHA, _SELU_GAMMA), rtol=1e-6):
        return build.module(node, nn.SELU(), build.tensor(node, 0))
    return build.call(selu, build.tensor(node, 0), alpha, gamma)


def _swish(node: Node, build: Builder) -> fx.Node:
    alpha = node.attr("alpha", 1.0)
    if alpha == 1.0:
        return build.module(node, nn.SiLU(), build.tensor(node, 0))
    return build.call(swish, build.tensor(node, 0), alpha)


def _shrink(node: Node, build: Builder) -> fx.Node:
    return build.call(shrink, build.tensor(node, 0), node.attr("bias", 0.0), node.attr("lambd", 0.5))


def _prelu(node: Node, build: Builder) -> fx.Node:
    """``nn.PReLU`` where the slope is one number, or one per channel; a broadcast product elsewhere."""
    slope, rank = build.constant(node, 1), build.rank(node)
    if slope is not None and rank is not None and rank >= 2:
        layout = Reshaped(slope.shape, (slope.size,))
        per_channel = slope.ndim >= rank - 1 and slope.size == slope.shape[1 - rank]
        if (slope.size == 1 or per_channel) and build.fits(node, 1, layout):
            module = nn.PReLU(slope.size)
            return build.module(node, module, build.tensor(node, 0), weights={"weight": (node.inputs[1], layout)})
    return build.call(prelu, *build.tensors(node))


def _dropout(ratio: Callable[[Node, Builder], float]) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node | tuple[fx.Node, ...]:
        x = build.tensor(node, 0)
        dropped = build.module(node, nn.Dropout(ratio(node, build)), x)
        if not node.has_output(1):
            return dropped
        # The mask of evaluation: everything is kept.
        return dropped, build.call(torch.ones_like, x, dtype=torch.bool)

    return convert


def _ratio_operand(node: Node, build: Builder) -> float:
    ratio = build.constant(node, 1)
    return 0.5 if ratio is None else float(ratio)


def _refuse_training(node: Node) -> str | None:
    if node.has_input(2) and node.graph.shapes.value(node.inputs[2]) is None:
        return "whether it drops is computed at run time; make training_mode a constant"
    return None


def _target(node: Node) -> torch.dtype:
    dtype = torch_dtype(node.attr("to"))
    assert dtype is not None, "_refuse has seen to it"
    return dtype


def _refuse(node: Node) -> str | None:
    if torch_dtype(node.attr("to")) is None:
        return f"PyTorch has no type number {node.attr('to')} of ONNX"
    return None


def _cast(node: Node, build: Builder) -> fx.Node:
    return build.call(cast, build.tensor(node, 0), _target(node))


def _host_cast(node: Node, build: Builder) -> fx.Node | None:
    dtype = _target(node)
    if dtype == torch.bool:
        return build.call(on_numbers, "to bool", build.host(node, 0))
    return build.call(on_numbers, "to float" if dtype.is_floating_point else "to integer", build.host(node, 0))


def _cast_like(node: Node, build: Builder) -> fx.Node:
    return build.call(cast_like, *build.tensors(node))


def _identity(node: Node, build: Builder) -> fx.Node:
    return build.tensor(node, 0)


def _host_identity(node: Node, build: Builder) -> fx.Node:
    value: fx.Node = build.host(node, 0)
    return value


def calling(function: Callable[..., Any]) -> Callable[[Node, Builder], fx.Node]:
    """Call a function with all operands as tensors."""

    def convert(node: Node, build: Builder) -> fx.Node:
        operands = build.tensors(node)
        if all(build.dtype(name) not in WIDE_UNSIGNED for name in node.inputs):
            return build.call(function, *operands)
        # PyTorch stores these types but hardly computes with them.
        wide = [build.call(cast, operand, torch.int64) for operand in operands]
        result = build.call(function, *wide)
        dtype = build.dtype(node.outputs[0])
        return result if dtype is None else build.call(cast, result, dtype)

    return convert


def _on_numbers(node: Node, build: Builder) -> fx.Node:
    return build.call(on_numbers, node.op_type, *(build.host(node, index) for index in range(len(node.inputs))))


def _modulo(node: Node, build: Builder) -> fx.Node:
    return calling(torch.fmod if node.attr("fmod", 0) else torch.remainder)(node, build)


def _divide(node: Node, build: Builder) -> fx.Node:
    dtype = build.dtype(node.inputs[0])
    return calling(torch.true_divide if dtype is not None and dtype.is_floating_point else divide)(node, build)


def _power(node: Node, build: Builder) -> fx.Node:
    exponent = build.constant(node, 1)
    if exponent is not None and exponent.size == 1 and exponent.ndim == 0:
        return build.call(power, build.tensor(node, 0), exponent.item())
    return build.call(power, *build.tensors(node))


def _clip_attributes(node: Node, build: Builder) -> fx.Node:
    return _clipped(node, build, node.attr("min"), node.attr("max"))


def _clip(node: Node, build: Builder) -> fx.Node:
    bounds = []
    for index in (1, 2):
        constant = build.constant(node, index)
        bounds.append(build.optional(node, index) if constant is None else constant.item())
    return _clipped(node, build, *bounds)


def _clipped(node: Node, build: Builder, low: Any, high: Any) -> fx.Node:
    """``nn.Hardtanh`` between two numbers, whose gradient is one kernel instead of the four of clamp."""
    dtype = build.dtype(node.inputs[0])
    plain = isinstance(low, float) and isinstance(high, float) and low <= high
    if plain and dtype is not None and dtype.is_floating_point:
        module = nn.ReLU6() if (low, high) == (0.0, 6.0) else nn.Hardtanh(low, high)
        return build.module(node, module, build.tensor(node, 0))
    return build.call(clip, build.tensor(node, 0), low, high)


def _shift(node: Node, build: Builder) -> fx.Node:
    return build.call(shift, *build.tensors(node), node.attr("direction") == "LEFT")


def _is_infinite(node: Node, build: Builder) -> fx.Node:
    positive, negative = bool(node.attr("detect_positive", 1)), bool(node.attr("detect_negative", 1))
    return build.call(is_infinite, build.tensor(node, 0), positive, negative)


def _bernoulli(node: Node, build: Builder) -> fx.Node:
    return build.call(bernoulli, build.tensor(node, 0), torch_dtype(node.attr("dtype", 0)))


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Division; of integers towards zero."""
    if a.is_floating_point() or b.is_floating_point():
        return torch.true_divide(a, b)
    return torch.div(a, b, rounding_mode="trunc")


def power(base: Tensor, exponent: Tensor | float) -> Tensor:
    """A power, of the type of the base."""
    if isinstance(exponent, Tensor) and exponent.is_floating_point() and not base.is_floating_point():
        return torch.pow(base.to(exponent.dtype), exponent).to(base.dtype)
    if isinstance(exponent, float) and not base.is_floating_point():
        return torch.pow(base.double(), exponent).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


def add_all(*operands: Tensor) -> Tensor:
    """The sum of all operands, broadcast."""
    return functools.reduce(operator.add, operands)


def mean_of(*operands: Tensor) -> Tensor:
    """The mean of all operands, broadcast."""
    return add_all(*operands) / len(operands)


def maximum_of(*operands: Tensor) -> Tensor:
    """The largest of all operands, broadcast."""
    return functools.reduce(torch.maximum, operands)


def minimum_of(*operands: Tensor) -> Tensor:
    """The smallest of all operands, broadcast."""
    return functools.reduce(torch.minimum, operands)


def clip(x: Tensor, low: Any, high: Any) -> Tensor:
    """Values within the bounds, of which either may be None."""
    if low is None and high is None:
        return x
    if x.dtype in WIDE_UNSIGNED:
        return clip(x.to(torch.int64), low, high).to(x.dtype)
    if isinstance(low, Tensor) != isinstance(high, Tensor):
        # clamp wants both bounds in the same form.
        low, high = (None if b is None else torch.as_tensor(b, dtype=x.dtype, device=x.device) for b in (low, high))
    return torch.clamp(x, low, high)


def shift(x: Tensor, amount: Tensor, left: bool) -> Tensor:
    """Bits shifted, zeros coming in."""
    if x.dtype == torch.uint8:
        moved = x.to(torch.int64) << amount.to(torch.int64) if left else x >> amount
        return moved.to(x.dtype)
    wide, by = x.to(torch.int64), amount.to(torch.int64)
    return (wide << by if left else wide >> by).to(x.dtype)


def is_infinite(x: Tensor, positive: bool, negative: bool) -> Tensor:
    """Where the value is infinite, with one of the signs asked for."""
    if positive and negative:
        return torch.isinf(x)
    if positive:
        return torch.isposinf(x)
    return torch.isneginf(x) if negative else torch.zeros_like(x, dtype=torch.bool)


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``a`` where the condition holds, else ``b``."""
    return torch.where(condition.bool(), a, b)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """A straight line from 0 to 1."""
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    """Selu with factors of its own."""
    return gamma * (torch.clamp(x, min=0) + alpha * torch.expm1(torch.clamp(x, max=0)))


def swish(x: Tensor, alpha: float) -> Tensor:
    """x · sigmoid(alpha · x)."""
    return x * torch.sigmoid(alpha * x)


def shrink(x: Tensor, bias: float, threshold: float) -> Tensor:
    """Values nearer to zero than the threshold become zero, others move by the bias towards it."""
    above, below = x > threshold, x < -threshold
    return torch.where(above, x - bias, torch.where(below, x + bias, torch.zeros_like(x))).to(x.dtype)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Negative values times a slope that broadcasts."""
    return torch.where(x < 0, slope * x, x)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Another type; floats lose their fraction, and what is not zero is true."""
    if dtype in WIDE_UNSIGNED or dtype == torch.uint8:
        return (x.to(torch.int64) if x.is_floating_point() else x).to(dtype)
    return x.to(dtype)


def cast_like(x: Tensor, other: Tensor) -> Tensor:
    """The type of another tensor."""
    return cast(x, other.dtype)


def bernoulli(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    """One with the probability that the tensor gives, else zero."""
    return torch.bernoulli(x.float()).to(dtype or x.dtype)


def on_numbers(name: str, *operands: Any) -> Any:
    """A function of numbers (see ``_NUMERIC``), for each position of the broadcast operands."""
    function = _NUMERIC[name]
    lengths = [len(operand) for operand in operands if isinstance(operand, tuple)]
    if not lengths:
        return function(*operands)
    count = 0 if 0 in lengths else max(lengths)
    columns = [_column(operand, count) for operand in operands]
    return tuple(function(*row) for row in zip(*columns, strict=True))


def _column(operand: Any, count: int) -> Sequence[Any]:
    if not isinstance(operand, tuple):
        return (operand,) * count
    return operand * count if len(operand) == 1 else operand


def _divide_numbers(a: Any, b: Any) -> Any:
    """Division as ONNX does it: towards zero for integers."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return a // b if (a >= 0) == (b > 0) else -((-a) // b)


_NUMERIC: Mapping[str, Callable[..., Any]] = {
    "Abs": operator.abs,
    "Add": operator.add,
    "Ceil": lambda a: float(math.ceil(a)),
    "Div": _divide_numbers,
    "Equal": operator.eq,
    "Floor": lambda a: float(math.floor(a)),
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Max": lambda *values: max(values),
    "Min": lambda *values: min(values),
    "Mod": operator.mod,
    "Mul": operator.mul,
    "Neg": operator.neg,
    "Not": operator.not_,
    "Sqrt": math.sqrt,
    "Sub": operator.sub,
    "Sum": lambda *values: sum(values),
    "Where": lambda condition, a, b: a if condition else b,
    "to bool": bool,
    "to float": float,
    "to integer": lambda a: math.trunc(a) if isinstance(a, float | bool) else a,
}
"""Functions of numbers that :func:`on_numbers` knows: operators by their ONNX names, and conversions."""


_ALSO_ON_NUMBERS: dict[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "Ceil": torch.ceil,
    "Equal": torch.eq,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Max": maximum_of,
    "Min": minimum_of,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Sum": add_all,
    "Where": where,
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
    "Erf": torch.erf,
    "Exp": torch.exp,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mean": mean_of,
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
    Converter("Div", _divide, host=_on_numbers),
    Converter("Bernoulli", _bernoulli),
    Converter("BitShift", _shift),
    Converter("Cast", _cast, host=_host_cast, refuse=_refuse),
    Converter("CastLike", _cast_like),
    Converter("Celu", applying(lambda node: nn.CELU(node.attr("alpha", 1.0)))),
    Converter("Clip", _clip_attributes, until=10),
    Converter("Clip", _clip, since=11),
    Converter("Dropout", _dropout(lambda node, _: float(node.attr("ratio", 0.5))), until=11),
    Converter("Dropout", _dropout(_ratio_operand), since=12, refuse=_refuse_training),
    Converter("Elu", applying(lambda node: nn.ELU(node.attr("alpha", 1.0)))),
    Converter("Gelu", applying(lambda node: nn.GELU(node.attr("approximate", "none")))),
    Converter("HardSigmoid", _hard_sigmoid),
    Converter("HardSwish", applying(lambda _: nn.Hardswish())),
    Converter("Identity", _identity, host=_host_identity),
    Converter("IsInf", _is_infinite),
    Converter("LeakyRelu", applying(lambda node: nn.LeakyReLU(node.attr("alpha", 0.01)))),
    Converter("Mish", applying(lambda _: nn.Mish())),
    Converter("Mod", _modulo, host=_on_numbers),
    Converter("PRelu", _prelu),
    Converter("Pow", _power),
    Converter("Relu", applying(lambda _: nn.ReLU())),
    Converter("Selu", _selu),
    Converter("Shrink", _shrink),
    Converter("Sigmoid", applying(lambda _: nn.Sigmoid())),
    Converter("Softplus", applying(lambda _: nn.Softplus())),
    Converter("Softsign", applying(lambda _: nn.Softsign())),
    Converter("Swish", _swish),
    Converter("Tanh", applying(lambda _: nn.Tanh())),
    Converter("ThresholdedRelu", applying(lambda node: nn.Threshold(node.attr("alpha", 1.0), 0.0))),
)
