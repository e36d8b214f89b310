"""The memory of activations, as an arena planner lays it out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.analysis.arena import _ORDERS, _Buffer, _planned, arena
from onnxprune.errors import ShapeError

MODELS = Path(__file__).parents[2] / "models"


def _chain(middle: str | None) -> int:
    """x [1, 4, 8, 8] → Conv → (Relu) → Conv with 8 and 2 channels: bytes of the arena."""
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    chain (float[1, 4, 8, 8] x) => (float[1, 2, 8, 8] y) <float[8, 4, 1, 1] a, float[2, 8, 1, 1] b> {{
        h = Conv(x, a)
        {"g = " + middle + "(h)" if middle else ""}
        y = Conv({"g" if middle else "h"}, b)
    }}"""
    model = onnx.parser.parse_model(text)
    for name, shape in {"a": (8, 4, 1, 1), "b": (2, 8, 1, 1)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return arena(model).size


def test_input_and_result_of_a_layer_are_there_at_one_time() -> None:
    assert _chain(None) == 4 * 64 * (4 + 8)


def test_elementwise_results_are_written_over_what_they_read() -> None:
    assert _chain("Relu") == _chain(None)
    assert _chain("Softmax") == 4 * 64 * (8 + 8)


def test_what_is_read_later_is_not_written_over() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    later (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y, float[1, 4, 8, 8] z) {
        h = Neg(x)
        g = Relu(h)
        y = Softmax(g)
        z = Neg(h)
    }""")
    assert arena(model).live == 4 * 64 * 4 * 3


def test_gaps_are_filled() -> None:
    # 10 bytes over all steps; 6 and 4 after each other fit into the same place.
    assert _planned([_Buffer(10, 0, 9), _Buffer(6, 0, 3), _Buffer(4, 4, 9)], _ORDERS[0]) == 16
    assert _planned([_Buffer(10, 0, 9), _Buffer(6, 0, 4), _Buffer(4, 4, 9)], _ORDERS[0]) == 20


@pytest.mark.parametrize("name", ["residual_dynamo", "vgg_torchscript"])
def test_the_arena_holds_what_is_alive_and_little_more(name: str) -> None:
    found = arena(MODELS / f"{name}.onnx")
    assert 0 < found.live <= found.size <= 1.3 * found.live
    assert found.live <= onnxprune.analyze(MODELS / f"{name}.onnx").totals["peak_activations"]


def test_integers_and_what_is_rounded_to_them_are_one_buffer_of_bytes() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    packed (float[1, 4, 8, 8] x) => (float[1, 2, 8, 8] y)
    <float[16, 4, 1, 1] a, float[16, 16, 1, 1] c, float[2, 16, 1, 1] b, float s = {1.0}, uint8 z = {0}> {
        h = Conv(x, a)
        r = Relu(h)
        q = QuantizeLinear(r, s, z)
        d = DequantizeLinear(q, s, z)
        i = Conv(d, c)
        t = QuantizeLinear(i, s, z)
        u = DequantizeLinear(t, s, z)
        o = Conv(u, b)
        p = QuantizeLinear(o, s, z)
        y = DequantizeLinear(p, s, z)
    }""")
    for name, shape in {"a": (16, 4, 1, 1), "c": (16, 16, 1, 1), "b": (2, 16, 1, 1)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    # The input in floats beside 16 channels of bytes; two times 16 channels of bytes are the same.
    assert arena(model).live == 64 * max(4 * 4 + 16, 16 + 16, 16 + 2, 2 + 4 * 2)


@pytest.mark.parametrize(
    "nodes",
    [
        # Rounded at last, but read as floats before.
        "h = Softmax(x) g = Softmax(h) w = ReduceSum(g) q = QuantizeLinear(h, s, z) y = Cast<to = 1>(q)",
        # Integers that are read as floats, by something that hands on floats, or takes others.
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Softmax(d) w = ReduceSum(y)",
        """q = QuantizeLinear(x, s, z) f = Softmax(x) d = DequantizeLinear(q, s, z) a = Add(d, f)
        p = QuantizeLinear(a, s, z) y = Cast<to = 1>(p) w = ReduceSum(y)""",
    ],
)
def test_floats_that_are_read_as_floats_are_there_as_floats(nodes: str) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
    floats (float[400] x) => (float[400] y, float[1] w) <float s = {{1.0}}, uint8 z = {{0}}> {{ {nodes} }}""")
    assert arena(model, without=["x"]).live >= 2 * 1600


def test_a_shape_that_depends_on_data_is_refused_by_name() -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    unknown (float[400] x) => (float[1, n] y) { at = NonZero(x) y = Cast<to = 1>(at) }""")
    with pytest.raises(ShapeError, match="shape of 'at'"):
        arena(model)
