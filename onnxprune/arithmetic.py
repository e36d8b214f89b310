"""The operators that shape arithmetic mostly consists of, on numpy arrays.

onnx's reference evaluator knows all operators, but takes a tenth of a millisecond to begin with any, and exporters
write thousands. What is not the common case here (floats, negative quotients, old forms) is left to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from onnxprune.protos import STANDARD_DOMAINS

_Array: TypeAlias = NDArray[Any]
_Operator: TypeAlias = Callable[[NodeProto, Sequence[_Array]], "_Array | None"]

_CAST_TO: Mapping[int, np.dtype[Any]] = {
    int(elem_type): helper.tensor_dtype_to_np_dtype(elem_type)
    for elem_type in (TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.FLOAT)
}


def evaluate(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    """The result of a node on integer operands, or None where this is not one of the common cases."""
    operator = _OPERATORS.get(node.op_type)
    if operator is None or node.domain not in STANDARD_DOMAINS or len(operands) != len(node.input):
        return None
    if any(operand.dtype not in (np.int64, np.int32, np.bool_) for operand in operands):
        return None
    return operator(node, operands)


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


def _binary(function: Callable[[_Array, _Array], Any]) -> _Operator:
    def run(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
        a, b = operands
        return np.asarray(function(a, b)) if not node.attribute and a.dtype == b.dtype != np.bool_ else None

    return run


def _divide(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    a, b = operands
    # Of negative numbers ONNX truncates what numpy rounds down.
    return np.asarray(a // b) if a.dtype == b.dtype and (a >= 0).all() and (b > 0).all() else None


def _cast(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    dtype = _CAST_TO.get(_integer(node, "to", 0))
    return None if dtype is None else operands[0].astype(dtype)


def _concat(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    return np.concatenate(operands, axis=_integer(node, "axis", 0))


def _gather(node: NodeProto, operands: Sequence[_Array]) -> _Array | None:
    return np.asarray(np.take(operands[0], operands[1], axis=_integer(node, "axis", 0)))


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
    "Div": _divide,
    "Gather": _gather,
    "Mul": _binary(np.multiply),
    "Slice": _slice,
    "Sub": _binary(np.subtract),
    "Unsqueeze": _unsqueeze,
}
