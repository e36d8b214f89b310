"""Quantised operators, alone and in models that onnxruntime's quantiser makes of the reference models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

import onnxprune
from tests.helpers import GraphBuilder
from tests.ops.certifying import certify, certify_often, conv, linear, reasons

COVERS = frozenset(
    [("", o) for o in ("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv")]
    + [("", o) for o in ("QLinearMatMul", "QuantizeLinear")]
    + [
        ("com.microsoft", o)
        for o in (
            "DequantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "NhwcMaxPool", "QGemm", "QLinearAdd",
            "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu",
            "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear",
        )
    ]
)  # fmt: skip

FOLDER = Path(__file__).parents[2] / "models"


def _scale(g: GraphBuilder, *shape: int) -> str:
    return g.constant(g.rng.uniform(0.01, 0.02, shape), dtype=np.float32)


def _int8(g: GraphBuilder, *shape: int) -> str:
    return g.constant(g.rng.integers(-100, 100, shape), dtype=np.int8)


def _uint8(g: GraphBuilder, *shape: int) -> str:
    return g.constant(g.rng.integers(100, 140, shape), dtype=np.uint8)


@pytest.mark.parametrize("opset", [13, 19, 21, 23])
def test_weights_behind_dequantization(opset: int) -> None:
    g = GraphBuilder(opset)
    h = conv(g, g.input("x", (1, 3, 5, 5)), 3, 8)
    w, scale, zero = _int8(g, 6, 8, 3, 3), _scale(g, 6), _int8(g, 6)
    q = g.op("QuantizeLinear", h, _scale(g), g.constant(120, dtype=np.uint8))
    x = g.op("DequantizeLinear", q, _scale(g), g.constant(120, dtype=np.uint8))
    y = g.op("Conv", x, g.op("DequantizeLinear", w, scale, zero, axis=0), kernel_shape=[3, 3])
    g.output(conv(g, y, 6, 2))
    result = certify(g.model(), rounding=True, prunable=[(w, 0), (w, 1), (scale, 0), (zero, 0)])
    stored = {i.name: i for i in result.model.to_proto().graph.initializer}
    assert tuple(stored[w].dims) == (3, 4, 3, 3)
    assert stored[w].data_type == TensorProto.INT8


@pytest.mark.parametrize("axis", [1, -3])
def test_channels_with_their_own_scales(axis: int) -> None:
    g = GraphBuilder(13)
    h = conv(g, g.input("x", (1, 3, 5, 5)), 3, 8)
    scale, zero = _scale(g, 8), _uint8(g, 8)
    y = g.op("DequantizeLinear", g.op("QuantizeLinear", h, scale, zero, axis=axis), scale, zero, axis=axis)
    g.output(conv(g, y, 8, 2))
    certify(g.model(), rounding=True, prunable=[(scale, 0), (zero, 0)])


def test_blocks_of_an_axis_hold_it() -> None:
    g = GraphBuilder(21)
    h = linear(g, g.input("x", (4, 6)), 6, 8)
    w, scale = _int8(g, 8, 10), _scale(g, 2, 10)
    y = g.op("MatMul", h, g.op("DequantizeLinear", w, scale, axis=0, block_size=4))
    g.output(linear(g, y, 10, 3))
    result = certify(g.model(), prunable=[(w, 1), (scale, 1)])
    assert any("blocks" in reason for reason in reasons(result.analysis, h, 1))


def _dynamic(g: GraphBuilder, x: str) -> list[str]:
    return g.ops("DynamicQuantizeLinear", x, outputs=3)


@pytest.mark.parametrize("group", [1, 2, 8])
def test_conv_integer(group: int) -> None:
    g = GraphBuilder(13)
    q, scale, zero = _dynamic(g, conv(g, g.input("x", (1, 3, 5, 5)), 3, 8))
    w = _uint8(g, 8, 8 // group, 3, 3)
    y = g.op("ConvInteger", q, w, zero, g.constant(117, dtype=np.uint8), kernel_shape=[3, 3], group=group)
    g.output(conv(g, g.op("Mul", g.op("Cast", y, to=1), scale), 8, 2))
    result = certify_often(g.model(), prunable=[(w, 0)] if group == 1 else [])
    assert result.certificate.approximate == (group != 2)
    if group == 2:
        assert any("groups" in reason for reason in reasons(result.analysis, q, 1))
    layer = next(found for found in result.analysis.layers if found.op_type == "ConvInteger")
    assert layer.flops == 9 * 9 * 8 * 8 // group


@pytest.mark.parametrize("columns", [(), (9,)])
def test_mat_mul_integer(columns: tuple[int, ...]) -> None:
    g = GraphBuilder(13)
    q, scale, zero = _dynamic(g, linear(g, g.input("x", (2, 5, 6)), 6, 8))
    w, w_zero = _uint8(g, 8, 9), _uint8(g, *columns)
    y = g.op("MatMulInteger", q, w, zero, w_zero)
    g.output(linear(g, g.op("Mul", g.op("Cast", y, to=1), scale), 9, 3))
    certify_often(g.model(), prunable=[(w, 0), (w, 1)])


@pytest.mark.parametrize("opset", [10, 21])
@pytest.mark.parametrize("columns", [(), (9,)])
def test_q_linear_mat_mul(columns: tuple[int, ...], opset: int) -> None:
    g = GraphBuilder(opset)
    q = g.op("QuantizeLinear", linear(g, g.input("x", (5, 6)), 6, 8), _scale(g), _uint8(g))
    w = _uint8(g, 8, 9)
    operands = [_scale(g), _uint8(g), w, _scale(g, *columns), _uint8(g, *columns), _scale(g), _uint8(g)]
    y = g.op("DequantizeLinear", g.op("QLinearMatMul", q, *operands), _scale(g), _uint8(g))
    g.output(linear(g, y, 9, 3))
    certify(g.model(), rounding=True, prunable=[(w, 0), (w, 1)])


def _contrib(opset: int = 13) -> GraphBuilder:
    return GraphBuilder(opset, domains={"com.microsoft": 1})


def _quantized(g: GraphBuilder, x: str) -> str:
    return g.op("QuantizeLinear", x, _scale(g), _uint8(g))


def _read(g: GraphBuilder, y: str, channels: int) -> onnx.ModelProto:
    g.output(conv(g, g.op("DequantizeLinear", y, _scale(g), _uint8(g)), channels, 2), [1, 2, 6, 6])
    return g.model()


@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearWhere"])
def test_elementwise(op_type: str) -> None:
    g = _contrib()
    x = g.input("x", (1, 3, 6, 6))
    a, b = (_quantized(g, conv(g, x, 3, 8)) for _ in range(2))
    scale, zero = _scale(g), _uint8(g)
    operands = (
        [a, scale, zero] if op_type in ("QLinearSigmoid", "QLinearLeakyRelu") else [a, scale, zero, b, scale, zero]
    )
    attributes = {"alpha": 0.1} if op_type == "QLinearLeakyRelu" else {}
    if op_type == "QLinearWhere":
        operands.insert(0, g.constant(np.arange(8).reshape(8, 1, 1) % 2, dtype=np.bool_))
    y = g.op(op_type, *operands, scale, zero, domain="com.microsoft", **attributes)
    certify(_read(g, y, 8), rounding=True, prunable=[(g.nodes[0].input[1], 0)])


def test_concatenation() -> None:
    g = _contrib()
    x = g.input("x", (1, 3, 6, 6))
    parts = []
    for filters in (5, 8):
        parts += [_quantized(g, conv(g, x, 3, filters)), _scale(g), _uint8(g)]
    y = g.op("QLinearConcat", _scale(g), _uint8(g), *parts, domain="com.microsoft", axis=1)
    certify(_read(g, y, 13), rounding=True, prunable=[(g.nodes[0].input[1], 0)])


@pytest.mark.parametrize("transposed", [0, 1])
def test_q_gemm(transposed: int) -> None:
    g = _contrib()
    q = _quantized(g, linear(g, g.input("x", (5, 6)), 6, 8))
    w = _uint8(g, 9, 8) if transposed else _uint8(g, 8, 9)
    bias = g.constant(g.rng.integers(-500, 500, 9), dtype=np.int32)
    scale, zero = _scale(g), _uint8(g)
    y = g.op("QGemm", q, scale, zero, w, _scale(g, 9), _uint8(g, 9), bias, domain="com.microsoft", transB=transposed)
    g.output(linear(g, y, 9, 3), [5, 3])
    certify(g.model(), rounding=True, prunable=[(w, 0), (w, 1), (bias, 0)])


def test_mat_mul_integer_to_float() -> None:
    g = _contrib()
    q, scale, zero = _dynamic(g, linear(g, g.input("x", (5, 6)), 6, 8))
    w = _uint8(g, 8, 9)
    operands = [q, w, scale, _scale(g, 9), zero, _uint8(g, 9), g.vector(9)]
    g.output(linear(g, g.op("MatMulIntegerToFloat", *operands, domain="com.microsoft"), 9, 3), [5, 3])
    certify(g.model(), prunable=[(w, 0), (w, 1)])


def test_dynamic_quantize_mat_mul() -> None:
    g = _contrib()
    h = linear(g, g.input("x", (5, 6)), 6, 8)
    w = _uint8(g, 8, 9)
    y = g.op("DynamicQuantizeMatMul", h, w, _scale(g, 9), _uint8(g, 9), g.vector(9), domain="com.microsoft")
    g.output(linear(g, y, 9, 3), [5, 3])
    result = certify(g.model(), prunable=[(w, 0), (w, 1)])
    assert result.certificate.approximate


def test_channels_last() -> None:
    g = _contrib()
    h = g.op("Transpose", _quantized(g, conv(g, g.input("x", (1, 3, 6, 6)), 3, 8)), perm=[0, 2, 3, 1])
    h = g.op("NhwcMaxPool", h, domain="com.microsoft", kernel_shape=[3, 3], pads=[1] * 4)
    scale, zero, w = _scale(g), _uint8(g), _int8(g, 9, 8, 1, 1)
    w_zero = g.constant(0, dtype=np.int8)
    y = g.op("QLinearConv", h, scale, zero, w, scale, w_zero, scale, zero, domain="com.microsoft", channels_last=1)
    y = g.op(
        "QLinearAveragePool", y, scale, zero, scale, zero,
        domain="com.microsoft", channels_last=1, kernel_shape=[3, 3], pads=[1] * 4,
    )  # fmt: skip
    model = _read(g, g.op("Transpose", y, perm=[0, 3, 1, 2]), 9)
    certify(model, rounding=True, prunable=[(w, 0), (w, 1)])


class _Samples:
    """Random images for the calibration."""

    def __init__(self, path: Path) -> None:
        (info,) = onnx.load(path).graph.input
        shape = [dim.dim_value or 1 for dim in info.type.tensor_type.shape.dim]
        rng = np.random.default_rng(0)
        self._left = iter([{info.name: rng.standard_normal(shape).astype(np.float32)} for _ in range(2)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


@pytest.mark.parametrize("name", ["residual_torchscript", "depthwise_torchscript", "unet_keras_tensorflow"])
@pytest.mark.parametrize("form", ["qdq", "qdq per channel", "qoperator", "dynamic"])
def test_models_of_the_quantiser(name: str, form: str, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    source, target = FOLDER / f"{name}.onnx", tmp_path / "quantized.onnx"
    if form == "dynamic":
        quantization.quantize_dynamic(source, target)
    else:
        layout = quantization.QuantFormat.QOperator if form == "qoperator" else quantization.QuantFormat.QDQ
        samples = _Samples(source)
        quantization.quantize_static(
            source, target, samples, quant_format=layout, per_channel=form == "qdq per channel"
        )  # fmt: skip
    model = onnx.load(target)
    result = certify(model, rounding=form != "dynamic")
    assert not result.analysis.coupling.unknown
    before, after = (onnxprune.analyze(m).totals["flops"] for m in (model, result.model))
    assert after < 0.35 * before


@pytest.mark.parametrize("name", ["residual_torchscript", "unet_keras_tensorflow"])
def test_models_of_the_optimiser(name: str, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(str(FOLDER / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
    model = onnx.load(tmp_path / "optimised.onnx")
    assert any(node.op_type == "FusedConv" for node in model.graph.node)
    result = certify(model)
    assert not result.analysis.coupling.unknown
