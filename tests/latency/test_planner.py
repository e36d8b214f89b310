"""What activations take in onnxruntime, by the rules of its planner."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.analysis.arena import arena
from onnxprune.errors import ShapeError
from onnxprune.latency.planner import taken
from tests.benchmarks.ram import measured

MODELS = Path("models")


def built(body: str, outputs: str = "float[1, 8, 64, 64] y") -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
    small (float[1, 8, 64, 64] x) => ({outputs}) <float[8, 8, 3, 3] w> {{ {body} }}""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "w"))
    return model


SIZE = 4 * 8 * 64 * 64


@pytest.mark.parametrize(
    ("body", "tensors"),
    [
        # Softmax does not write over what it reads; Exp does, but not over what is read again, nor over inputs.
        ("a = Softmax(x) b = Exp(a) y = Softmax(b)", 2),
        ("a = Softmax(x) b = Exp(a) c = Add(a, b) y = Softmax(c)", 2),
        # What is free is taken again by what is alike, and so is not given back before.
        ("a = Softmax(x) b = Softmax(a) c = Softmax(b) d = Softmax(c) y = Softmax(d)", 2),
        # Another view of the same.
        ("s = Constant<value_ints = [1, 8, 4096]>() a = Softmax(x) b = Reshape(a, s) z = Softmax(b)", 2),
    ],
)
def test_tensors_are_held_as_onnxruntime_holds_them(body: str, tensors: int) -> None:
    outputs = "float[1, 8, 4096] z" if "z =" in body else "float[1, 8, 64, 64] y"
    assert taken(built(body, outputs)).size == tensors * SIZE


def test_a_shape_that_depends_on_data_is_refused() -> None:
    with pytest.raises(ShapeError, match="depends on data"):
        taken(built("i = NonZero(x) y = Cast<to = 1>(i)", "float[4, n] y"))


def test_an_open_batch_is_bound() -> None:
    model = built("y = Softmax(x)")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    assert taken(model, {"x": (2, 8, 64, 64)}).size == 2 * SIZE


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("body", ["a = Softmax(x) b = Softmax(a) y = Add(a, b)"])
def test_a_process_takes_as_much(tmp_path: Path, body: str) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
    small (float[1, 8, 512, 512] x) => (float[1, 8, 512, 512] y) {{ {body} }}""")
    onnx.save(model, tmp_path / "m.onnx")
    row = measured(tmp_path / "m.onnx")
    assert row["onnxruntime"] == pytest.approx(row["foreseen"], rel=0.1)


def test_a_model_of_depthwise_layers_is_planned_in_its_blocked_layout() -> None:
    path = MODELS / "depthwise_dynamo.onnx"
    model = onnxprune.load(path)
    assert 0.5 * arena(model).size < taken(model).size < 4 * arena(model).size
