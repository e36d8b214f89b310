"""What ONNX writes differently from opset to opset, at every opset, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

from onnx import TensorProto

from onnxprune.torch import to_module, write_back
from tests.helpers import GraphBuilder

from .support import assert_same, assert_trainable, feeds, run_module, run_onnx

OPSETS = range(7, 24)


def compare(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]] | None = None, trains: bool = True) -> None:
    module, inputs = to_module(model), feeds(model, shapes)
    assert_same(run_onnx(model, inputs), run_module(module, inputs))
    if trains:
        assert_trainable(module, inputs)
    assert write_back(to_module(model), model).to_proto() == model


@pytest.mark.parametrize("opset", OPSETS)
def test_convolutional(opset: int) -> None:
    g = GraphBuilder(opset)
    x = g.input("x", (2, 3, 12, 12))
    h = g.op("Conv", x, g.weight(8, 3, 3, 3), g.vector(8), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    statistics = g.vector(8, positive=True), g.vector(8), g.vector(8), g.vector(8, positive=True)
    h = g.op("BatchNormalization", h, *statistics)
    h = g.op("Relu", h)
    h = g.pad(h, [0, 0, 1, 2, 0, 0, 0, 1])
    h = g.op("MaxPool", h, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    first, second = g.split(h, 1, [4, 4])
    h = g.op("Concat", g.slice(first, 1, 1, 4), second, axis=1)
    h = g.upsample(h, [1, 1, 2, 2])
    h = g.op("ConvTranspose", h, g.weight(7, 4, 3, 3), kernel_shape=[3, 3], strides=[2, 2], output_padding=[1, 0])
    h = g.op("AveragePool", h, kernel_shape=[3, 3], pads=[0, 1, 1, 0], count_include_pad=1)
    h = g.op("PRelu", h, g.vector(4, 1, 1, positive=True))
    h = g.op("Dropout", h)
    h = g.op("Flatten", g.op("GlobalAveragePool", h))
    y = g.op("Softmax", g.op("Gemm", h, g.weight(4, 5), g.vector(5)), axis=1)
    g.output(y)
    compare(g.model())


@pytest.mark.parametrize("opset", OPSETS)
def test_shapes_and_reductions(opset: int) -> None:
    g = GraphBuilder(opset)
    x = g.input("x", (2, 6, 5))
    mean = g.reduce("ReduceMean", x, -1)
    centred = g.op("Sub", x, mean)
    deviation = g.op("Sqrt", g.reduce("ReduceMean", g.op("Mul", centred, centred), -1))
    h = g.op("Div", centred, g.op("Add", deviation, g.constant(1e-3, dtype=np.float32)))
    h = g.op("MatMul", h, g.weight(5, 4))
    h = g.op("Add", h, g.vector(4))
    h = g.unsqueeze(g.squeeze(g.unsqueeze(h, 0), 0), 1)
    h = g.op("Reshape", h, g.ints(0, -1, 8))
    h = g.op("Transpose", h, perm=[0, 2, 1])
    h = g.reduce("ReduceSum", h, 1, keepdims=0)
    g.output(h)
    compare(g.model())


@pytest.mark.parametrize("opset", [7, 14, 22])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_recurrent(kind: str, direction: str, opset: int) -> None:
    gates, directions = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    g = GraphBuilder(opset)
    x = g.input("x", (5, 2, 3))
    weights = g.weight(directions, gates * 4, 3), g.weight(directions, gates * 4, 4), g.vector(directions, gates * 8)
    attributes = {"linear_before_reset": 1} if kind == "GRU" else {}
    outputs = g.ops(kind, x, *weights, outputs=2, hidden_size=4, direction=direction, **attributes)
    for output in outputs:
        g.output(output, None)
    compare(g.model())


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_sizes_stay_dynamic(opset: int) -> None:
    g = GraphBuilder(opset)
    x = g.input("x", ("n", 3, "h", "w"))
    h = g.op("Conv", x, g.weight(4, 3, 3, 3), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    shape = g.op("Shape", h)
    batch, height = (g.op("Gather", shape, g.constant(i, dtype=np.int64), axis=0) for i in (0, 2))
    pixels = g.op("Mul", height, g.op("Gather", shape, g.constant(3, dtype=np.int64), axis=0))
    target = [g.unsqueeze(batch, 0), g.ints(4), g.unsqueeze(pixels, 0)]
    flat = g.op("Reshape", h, g.op("Concat", *target, axis=0))
    scale = g.op("Cast", pixels, to=TensorProto.FLOAT)
    g.output(g.op("Div", flat, scale), ("n", 4, "p"))
    model = g.model()
    for shapes in ({"x": (1, 3, 8, 8)}, {"x": (3, 3, 5, 7)}):
        compare(model, shapes)


def test_tied_weights_stay_tied() -> None:
    g = GraphBuilder(17)
    x = g.input("x", (6,), TensorProto.INT64)
    table = g.weight(10, 4, base="table")
    g.output(g.op("Gemm", g.op("Gather", table, x), table, transB=1), (6, 10))
    model = g.model()
    module = to_module(model)
    assert len(list(module.parameters())) == 1
    compare(model)
