"""Operators of onnxruntime in float."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from tests.helpers import GraphBuilder
from tests.ops.certifying import certify, certify_often, conv, linear, reasons

_MICROSOFT = (
    "Attention", "BiasGelu", "DecoderMaskedMultiHeadAttention", "DynamicQuantizeLSTM", "EmbedLayerNormalization",
    "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul", "Gelu", "MatMulNBits", "QAttention",
    "QEmbedLayerNormalization", "QuickGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
    "TransposeMatMul",
)  # fmt: skip
COVERS = frozenset(
    {("", "SimplifiedLayerNormalization")} | {("com.microsoft", operator) for operator in _MICROSOFT}
)  # fmt: skip

_ROWS = (2, 5, 6)


def _graph() -> GraphBuilder:
    return GraphBuilder(17, domains={"com.microsoft": 1})


@pytest.mark.parametrize("group", [1, 2, 8])
def test_fused_conv(group: int) -> None:
    g = _graph()
    x = g.input("x", (1, 3, 5, 5))
    h, added = conv(g, x, 3, 8), conv(g, x, 3, 8)
    w, b = g.weight(8, 8 // group, 1, 1), g.vector(8)
    y = g.op("FusedConv", h, w, b, added, domain="com.microsoft", activation="Relu", group=group)
    g.output(conv(g, y, 8, 2), [1, 2, 5, 5])
    result = certify_often(g.model(), prunable=[(w, 0), (added, 1), (h, 1)])
    layer = next(found for found in result.analysis.layers if found.op_type == "FusedConv")
    assert layer.flops == 25 * 8 * 8 // group
    assert layer.params == 8 * 8 // group + 8


def test_fused_gemm() -> None:
    g = _graph()
    h = linear(g, g.input("x", (5, 6)), 6, 8)
    w = g.weight(9, 8)
    y = g.op("FusedGemm", h, w, g.vector(9), domain="com.microsoft", activation="Relu", transB=1)
    g.output(linear(g, y, 9, 2), [5, 2])
    certify_often(g.model(), prunable=[(w, 0), (w, 1)])


@pytest.mark.parametrize("right", [0, 1])
@pytest.mark.parametrize("left", [0, 1])
def test_fused_mat_mul(left: int, right: int) -> None:
    g = _graph()
    h = linear(g, g.input("x", _ROWS), 6, 8)
    h = g.op("Transpose", h, perm=[0, 2, 1]) if left else h
    w = g.weight(9, 8) if right else g.weight(8, 9, fan_in=8)
    y = g.op("FusedMatMul", h, w, domain="com.microsoft", transA=left, transB=right, alpha=0.5)
    g.output(linear(g, y, 9, 2), [2, 5, 2])
    result = certify_often(g.model(), prunable=[(w, 0), (w, 1)])
    layer = next(found for found in result.analysis.layers if found.op_type == "FusedMatMul")
    assert layer.flops == 2 * 5 * 8 * 9


@pytest.mark.parametrize("left", [0, 1])
def test_fused_mat_mul_of_activations_with_the_batch_moved(left: int) -> None:
    g = _graph()
    x = g.input("x", (4, 2, 5, 6))
    a, b = linear(g, x, 6, 8), linear(g, x, 6, 8)
    # Rows first: (4, 2, 5, 8) stands for batches (2, 5) of matrices (4, 8).
    y = g.op("FusedMatMul", a, b, domain="com.microsoft", transBatchA=1, transBatchB=1, transA=left, transB=1 - left)
    extent = 8 if left else 4
    g.output(linear(g, y, extent, 2), [2, 5, extent, 2])
    certify(g.model())


@pytest.mark.parametrize(
    ("op_type", "biased"), [("BiasGelu", True), ("FastGelu", True), ("FastGelu", False), ("QuickGelu", False)]
)
def test_activations(op_type: str, biased: bool) -> None:
    g = _graph()
    w = g.weight(6, 8, fan_in=6)
    bias = [g.vector(8)] if biased else []
    y = g.op(op_type, g.op("MatMul", g.input("x", _ROWS), w), *bias, domain="com.microsoft")
    g.output(linear(g, y, 8, 2), [2, 5, 2])
    certify_often(g.model(), prunable=[(w, 1), *((b, 0) for b in bias)])


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("simplified", [False, True])
def test_skip_normalization(simplified: bool, summed: bool) -> None:
    g = _graph()
    x = g.input("x", _ROWS)
    a, b = linear(g, x, 6, 8), linear(g, x, 6, 8)
    vectors = [g.vector(8) for _ in range(2 if simplified else 3)]
    op_type = "SkipSimplifiedLayerNormalization" if simplified else "SkipLayerNormalization"
    results = g.ops(op_type, a, b, *vectors, outputs=4, domain="com.microsoft")
    g.nodes[-1].output[1] = g.nodes[-1].output[2] = ""
    if not summed:
        del g.nodes[-1].output[1:]
    g.output(linear(g, results[0], 8, 2), [2, 5, 2])
    if summed:
        g.output(linear(g, results[3], 8, 2), [2, 5, 2])
    result = certify_often(g.model(), prunable=[(a, 2), (b, 2), *((v, 0) for v in vectors)])
    assert result.certificate.approximate


def test_blocks_in_one_operator_hold_their_axes() -> None:
    g = _graph()
    h = linear(g, g.input("x", _ROWS), 6, 8)
    y = g.op("Attention", h, g.weight(8, 24), g.vector(24), domain="com.microsoft", num_heads=2)
    g.output(y, [2, 5, 8])
    assert any(r.startswith("Attention packs") for r in reasons(onnxprune.analyze(g.model()), h, 2))


def test_simplified_normalization_is_known() -> None:
    # onnx.checker rejects this operator, which onnxruntime puts into the default domain.
    g = _graph()
    h = linear(g, g.input("x", _ROWS), 6, 8)
    scale = g.vector(8)
    y = g.op("SimplifiedLayerNormalization", h, scale, axis=-1)
    g.output(linear(g, y, 8, 2), [2, 5, 2])
    coupling = onnxprune.analyze(g.model()).coupling
    assert coupling.class_of[coupling.axes.id(scale, 0)] == coupling.class_of[coupling.axes.id(h, 2)]
    assert np.isin(coupling.class_labels(coupling.class_of[coupling.axes.id(h, 2)]), coupling.groups[0].atoms).all()
