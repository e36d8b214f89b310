from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.ir.model import load
from onnxprune.passes.constants_to_initializers import ConstantsToInitializers


@pytest.mark.parametrize(
    ("attribute", "kind", "value"),
    [
        ("value = float[2] {1.5, 2.5}", "float", np.array([1.5, 2.5], np.float32)),
        ("value_float = 1.5", "float", np.array(1.5, np.float32)),
        ("value_floats = [1.5, 2.5]", "float", np.array([1.5, 2.5], np.float32)),
        ("value_int = 3", "int64", np.array(3, np.int64)),
        ("value_ints = [3, 4]", "int64", np.array([3, 4], np.int64)),
    ],
)
def test_every_form(build, apply, attribute, kind, value) -> None:
    model = build(f"g ({kind}[2] x) => ({kind}[2] y) {{ c = Constant <{attribute}> ()  y = Add(x, c) }}")
    after = apply(ConstantsToInitializers(), model)
    assert [node.op_type for node in after.graph.node] == ["Add"]
    assert list(after.weights) == ["c"]
    np.testing.assert_array_equal(after.weights["c"].array, value)
    assert after.weights["c"].array.dtype == value.dtype


def test_ir_3_lists_them_as_inputs(build, apply) -> None:
    model = build("g (float[2] x) => (float[2] y) { c = Constant <value = float {1.0}> ()  y = Add(x, c) }", 8, 3)
    after = apply(ConstantsToInitializers(), model)
    assert [value.name for value in after.graph.input] == ["x", "c"]


def test_what_stays(build, unchanged) -> None:
    model = build(
        'g () => (string s, int64 c) { s = Constant <value_string = "a"> () c = Constant <value_int = 1> () }'
    )
    unchanged(ConstantsToInitializers(), model)


def test_names_and_order_of_the_rest(build, apply) -> None:
    model = build(
        """g (float[2] x) => (float[2] y) {
            a = Constant <value = float t {1.0}> ()
            b = Add(x, a)
            c = Constant <value = float t {2.0}> ()
            y = Mul(b, c)
        }"""
    )
    after = apply(ConstantsToInitializers(), model)
    assert [node.op_type for node in after.graph.node] == ["Add", "Mul"]
    assert [tensor.name for tensor in after.proto.graph.initializer] == ["a", "c"]


def test_constants_used_by_bodies() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["t"])], "body", [], [helper.make_tensor_value_info("t", 1, [2])]
    )
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.float32([1, 2])))
    branch = helper.make_node("If", ["b"], ["y"], then_branch=inner, else_branch=inner)
    inputs = [
        helper.make_tensor_value_info("x", 1, [2]),
        helper.make_tensor_value_info("b", TensorProto.BOOL, []),
    ]
    graph = helper.make_graph([constant, branch], "g", inputs, [helper.make_tensor_value_info("y", 1, [2])])
    after = ConstantsToInitializers()(load(helper.make_model(graph))).model
    assert list(after.weights) == ["c"]
