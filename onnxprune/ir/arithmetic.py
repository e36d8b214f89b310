"""The operators that shape arithmetic mostly consists of, on numpy arrays.

onnx's reference evaluator knows all operators, but takes a tenth of a millisecond to begin with any (its classes by
themselves, kept between calls, still 5 to 10 times what these functions take: a third more time for the analysis of
3,200 nodes of shape arithmetic), and exporters write thousands. What is not the common case here (floats that are
computed with, negative quotients, old forms) is left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxprune.ir.protos import STANDARD_DOMAINS, integer

_Array: TypeAlias = NDArray[Any]
_Operator: TypeAlias = Callable[[NodeProto, Sequence[_Array]], "_Array | None"]

_CAST_TO: Mapping[int, np.dtype[Any]] = {
    int(elem_type): helper.tensor_dtype_to_np_dtype(elem_type)
    for elem_type in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT)
}

_COUNTED = frozenset({np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.bool_)})
_MOVED = _COUNTED | {np.dtype(np.float32), np.dtype(np.float64)}
_LARGEST = 1 << 16
"""Elements; who asks for more than that is refused by the reference evaluator, or by memory, not here."""


def evaluate(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    """The result of a node on integer operands, or None where this is not one of the common cases.

    Operators that only move elements take floats, too.
    """
    operator = _OPERATORS.get(node.op_type)
    if operator is None or node.domain not in STANDARD_DOMAINS or len(operands) != len(node.input):
        return None
    if node.op_type in _MOVES:
        known = all(operand.dtype in _MOVED for operand in operands)
    else:
        known = all(operand.dtype in _COUNTED for operand in operands)
    return operator(node, operands) if known else None


def _binary(function: Callable[[_Array, _Array], Any]) -> _Operator:
    def run(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
        a, b = operands
        return np.asarray(function(a, b)) if not node.attribute and a.dtype == b.dtype != np.bool_ else None

    return run


def _divide(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    a, b = operands
    # Of negative numbers ONNX truncates what numpy rounds down.
    return np.asarray(a // b) if a.dtype == b.dtype and (a >= 0).all() and (b > 0).all() else None


def _remainder(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    a, b = operands
    common = a.dtype == b.dtype != np.bool_ and not integer(node, "fmod", 0) and (b != 0).all()
    return np.asarray(a % b) if common else None


def _equal(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    a, b = operands
    return np.asarray(a == b) if not node.attribute and a.dtype == b.dtype else None


def _not(_: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    (a,) = operands
    return np.asarray(~a) if a.dtype == np.bool_ else None


def _where(_: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    condition, a, b = operands
    return np.where(condition, a, b) if condition.dtype == np.bool_ and a.dtype == b.dtype else None


def _range(_: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    start, limit, delta = operands
    if any(operand.ndim for operand in operands) or not start.dtype == limit.dtype == delta.dtype != np.bool_:
        return None
    if delta == 0 or (int(limit) - int(start)) // int(delta) > _LARGEST:
        return None
    return np.arange(int(start), int(limit), int(delta), dtype=start.dtype)


def _filled(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    shape = operands[0].ravel().tolist()
    if prod(shape) > _LARGEST:
        return None
    value = numpy_helper.to_array(node.attribute[0].t).ravel() if node.attribute else np.zeros(1, dtype=np.float32)
    return np.full(shape, value[0]) if value.dtype in _MOVED else None


def _expand(_: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    data, shape = operands
    extents = np.broadcast_shapes(data.shape, tuple(shape.tolist()))
    # A copy, because others expect what they can pass on as it is: elements that lie one behind the other.
    return np.broadcast_to(data, extents).copy() if prod(extents) <= _LARGEST else None


def _reshape(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    if len(operands) < 2 or integer(node, "allowzero", 0):
        return None  # an attribute up to opset 4; zeros that do not stand for the extent there
    data, shape = operands
    extents = [extent or data.shape[dim] for dim, extent in enumerate(shape.tolist())]
    return data.reshape(extents)


def _squeeze(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    if len(operands) > 1:
        axes = operands[1].ravel().tolist()
    elif node.attribute:
        axes = list(node.attribute[0].ints)
    else:
        return None
    return np.squeeze(operands[0], tuple(axes))


def _cast(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    dtype = _CAST_TO.get(integer(node, "to", 0))
    return None if dtype is None else operands[0].astype(dtype)


def _concat(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    return np.concatenate(operands, axis=integer(node, "axis", 0))


def _gather(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    return np.asarray(np.take(operands[0], operands[1], axis=integer(node, "axis", 0)))


def _unsqueeze(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    axes = operands[1].ravel().tolist() if len(operands) > 1 else list(node.attribute[0].ints)
    return np.expand_dims(operands[0], axes)


def _slice(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    data, *bounds = operands
    if len(bounds) < 2:
        return None  # attributes, up to opset 9
    starts, ends, *rest = [bound.tolist() for bound in bounds]
    axes = rest[0] if rest else range(len(starts))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            return None
        index[axis] = slice(start, end, step)
    return data[tuple(index)]


_OPERATORS: Mapping[str, _Operator] = {
    "Add": _binary(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Div": _divide,
    "Equal": _equal,
    "Expand": _expand,
    "Gather": _gather,
    "Mod": _remainder,
    "Mul": _binary(np.multiply),
    "Not": _not,
    "Range": _range,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
_MOVES = frozenset({"Concat", "Expand", "Gather", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Where"})
