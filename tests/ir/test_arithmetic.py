"""Shape arithmetic on numpy arrays, against onnx's reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.ir.arithmetic import evaluate

CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Add", [[1, 2], 3], {}),
    ("Sub", [[1, 2], [3, 5]], {}),
    ("Mul", [[1, 2], [3]], {}),
    ("Div", [[7, 9], 2], {}),
    ("Cast", [[1, 0]], {"to": TensorProto.BOOL}),
    ("Cast", [[1, 0]], {"to": TensorProto.FLOAT}),
    ("Concat", [[1], [2, 3]], {"axis": 0}),
    ("Gather", [[4, 5, 6], 2], {"axis": 0}),
    ("Gather", [[4, 5, 6], [-1, 0]], {"axis": 0}),
    ("Gather", [[[1, 2], [3, 4]], [1]], {"axis": 1}),
    ("Unsqueeze", [3, [0]], {}),
    ("Unsqueeze", [[3, 4], [0, -1]], {}),
    ("Slice", [[1, 2, 3, 4], [1], [-1]], {}),
    ("Slice", [[[1, 2, 3], [4, 5, 6]], [-2], [2**63 - 1], [1], [2]], {}),
    ("Mod", [[7, -7, 7, -7], [3, 3, -3, -3]], {}),
    ("Equal", [[1, 2], [1]], {}),
    ("Where", [[True, False], [1], [[3, 4], [5, 6]]], {}),
    ("Where", [[True, False], [1.5, 2.5], 3.5], {}),
    ("Not", [[True, False]], {}),
    ("Range", [1, 8, 3], {}),
    ("Range", [8, 1, -3], {}),
    ("Range", [3, 3, 1], {}),
    ("Range", [3, 1, 1], {}),
    ("ConstantOfShape", [[2, 3]], {}),
    ("ConstantOfShape", [[2]], {"value": numpy_helper.from_array(np.array([7], dtype=np.int64))}),
    ("Expand", [[[1], [2]], [2, 1, 3]], {}),
    ("Expand", [[[1], [2]], [1]], {}),
    ("Expand", [0.5, [2, 2]], {}),
    ("Reshape", [[[1, 2, 3], [4, 5, 6]], [0, -1, 1]], {}),
    ("Reshape", [[1.5, 2.5], [2, 1]], {}),
    ("Squeeze", [[[[1], [2]]], [0, -1]], {}),
    ("Gather", [[1.5, 2.5], [1, 1]], {"axis": 0}),
    ("Slice", [[1.5, 2.5, 3.5], [1], [3]], {}),
]


def _array(value: Any) -> NDArray[Any]:
    """Integers of 64 bits, floats of 32, or booleans."""
    array = np.array(value)
    return array.astype({"f": np.float32, "b": np.bool_}.get(array.dtype.kind, np.int64))


@pytest.mark.parametrize(("op_type", "values", "attributes"), CASES)
def test_results_are_the_reference_evaluators(op_type: str, values: list[Any], attributes: dict[str, Any]) -> None:
    names = [f"x{number}" for number in range(len(values))]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    operands = [_array(value) for value in values]
    (expected,) = ReferenceEvaluator(node, opsets={"": 17}).run(None, dict(zip(names, operands, strict=True)))
    found = evaluate(node, operands)
    assert found is not None
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("op_type", "values"),
    [
        ("Div", [-7, 2]),
        ("Div", [7, 0]),
        ("Add", [1.5, 2.5]),
        ("Slice", [[1, 2, 3], [2], [0], [0], [-1]]),
        ("Pow", [2, 3]),
        ("Mod", [7, 0]),
        ("Equal", [1.5, 1.5]),
        ("Range", [0.0, 1.0, 0.5]),
        ("Range", [0, 1, 0]),
        ("Range", [0, 1 << 40, 1]),
        ("ConstantOfShape", [[1 << 20, 1 << 20]]),
        ("Expand", [[1], [1 << 20, 1 << 20]]),
        ("Squeeze", [[[1]]]),
    ],
)
def test_other_cases_are_left_to_the_reference_evaluator(op_type: str, values: list[Any]) -> None:
    node = helper.make_node(op_type, [f"x{number}" for number in range(len(values))], ["y"])
    assert evaluate(node, [np.array(value) for value in values]) is None
