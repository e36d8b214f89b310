"""Shape arithmetic on Python numbers and tuples of them, which stays symbolic under ``torch.compile``."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch

Host: TypeAlias = Any
"""A number, or a tuple of numbers; the numbers may be symbolic."""


def as_tensor(value: Host, dtype: torch.dtype, like: torch.Tensor | None) -> torch.Tensor:
    """A tensor of these numbers, on the device of ``like``."""
    return torch.tensor(value, dtype=dtype, device=None if like is None else like.device)


def to_host(tensor: torch.Tensor) -> Host:
    """The numbers in a tensor."""
    return _tuples(tensor.tolist())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def shape(x: torch.Tensor, start: int = 0, end: int | None = None) -> Host:
    """The extents of dimensions ``start`` to ``end`` (numbered as in Python slices)."""
    return tuple(x.shape)[start:end]


def size(x: torch.Tensor) -> Host:
    """The number of elements."""
    return x.numel()


def gather(values: Host, indices: Host) -> Host:
    """One or several of the values."""
    return tuple(values[i] for i in indices) if isinstance(indices, tuple) else values[indices]


def slice_values(values: Host, start: int, end: int, step: int = 1) -> Host:
    """Every ``step``-th value from ``start`` on and before ``end``, clamped as in Python."""
    # ONNX says "all down to the first" with any large negative number, Python with none.
    stop = None if step < 0 and end < -len(values) else end
    return values[start:stop:step]


def concat(*parts: Host) -> Host:
    """All values, one after the other."""
    return tuple(value for part in parts for value in part)


def scalar(value: Host) -> Host:
    """The only value of a tuple, as a number; anything else as it is."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def vector(value: Host) -> Host:
    """A number as a tuple of one; a tuple as it is."""
    return value if isinstance(value, tuple) else (value,)


def fill(shape: Host, value: float) -> Host:
    """A tuple of one value as often as the only extent of ``shape`` says."""
    return (value,) * shape[0] if shape else value


def expand(value: Host, shape: Host) -> Host:
    """A number or a tuple of one, repeated."""
    values = vector(value)
    return values * shape[0] if shape and len(values) == 1 else value


def apply(name: str, *operands: Host) -> Host:
    """A function of numbers (see ``NUMERIC``), for each position of the broadcast operands."""
    function = NUMERIC[name]
    lengths = [len(operand) for operand in operands if isinstance(operand, tuple)]
    if not lengths:
        return function(*operands)
    count = 0 if 0 in lengths else max(lengths)
    columns = [_column(operand, count) for operand in operands]
    return tuple(function(*row) for row in zip(*columns, strict=True))


def _column(operand: Host, count: int) -> Sequence[Any]:
    if not isinstance(operand, tuple):
        return (operand,) * count
    return operand * count if len(operand) == 1 else operand


def divide(a: Any, b: Any) -> Any:
    """Division as ONNX does it: towards zero for integers."""
    if isinstance(a, float) or isinstance(b, float):
        return a / b
    return a // b if (a >= 0) == (b > 0) else -((-a) // b)


def choose(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where the condition holds, else ``b``."""
    return a if condition else b


def floor(a: Any) -> Any:
    """The largest whole number that is not larger, as a float."""
    return float(math.floor(a))


def ceil(a: Any) -> Any:
    """The smallest whole number that is not smaller, as a float."""
    return float(math.ceil(a))


def to_integer(a: Any) -> Any:
    """The number without its fraction."""
    return math.trunc(a) if isinstance(a, float | bool) else a


def product(values: Host) -> Host:
    """All values multiplied."""
    return math.prod(vector(values))


def total(values: Host) -> Host:
    """All values added up."""
    return sum(vector(values))


def greatest(values: Host) -> Host:
    """The largest of the values."""
    return max(vector(values))


def smallest(values: Host) -> Host:
    """The smallest of the values."""
    return min(vector(values))


def _least(*values: Any) -> Any:
    return min(values)


def _most(*values: Any) -> Any:
    return max(values)


def _sum(*values: Any) -> Any:
    return sum(values)


NUMERIC: Mapping[str, Callable[..., Any]] = {
    "Abs": operator.abs,
    "Add": operator.add,
    "Ceil": ceil,
    "Div": divide,
    "Equal": operator.eq,
    "Floor": floor,
    "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
    "Less": operator.lt,
    "LessOrEqual": operator.le,
    "Max": _most,
    "Min": _least,
    "Mod": operator.mod,
    "Mul": operator.mul,
    "Neg": operator.neg,
    "Not": operator.not_,
    "Sqrt": math.sqrt,
    "Sub": operator.sub,
    "Sum": _sum,
    "Where": choose,
    "to bool": bool,
    "to float": float,
    "to integer": to_integer,
}
"""Functions of numbers that ``apply`` knows: operators by their ONNX names, and conversions."""
