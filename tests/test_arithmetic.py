"""Shape arithmetic on numpy arrays, against onnx's reference evaluator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxprune.arithmetic import evaluate

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
]


@pytest.mark.parametrize(("op_type", "values", "attributes"), CASES)
def test_results_are_the_reference_evaluators(op_type: str, values: list[Any], attributes: dict[str, Any]) -> None:
    names = [f"x{number}" for number in range(len(values))]
    node = helper.make_node(op_type, names, ["y"], **attributes)
    operands = [np.array(value, dtype=np.int64) for value in values]
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
    ],
)
def test_other_cases_are_left_to_the_reference_evaluator(op_type: str, values: list[Any]) -> None:
    node = helper.make_node(op_type, [f"x{number}" for number in range(len(values))], ["y"])
    assert evaluate(node, [np.array(value) for value in values]) is None
