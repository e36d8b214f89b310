"""Attention as one operator, and rotary embeddings."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from tests.helpers import GraphBuilder
from tests.ops.certifying import certify_often, linear, reasons

COVERS = frozenset(
    {("", "Attention"), ("", "RotaryEmbedding"), ("com.microsoft", "MultiHeadAttention")}
    | {("com.microsoft", "RotaryEmbedding")}
)

_BATCH, _LENGTH, _WIDTH = 2, 5, 12


def _tokens(g: GraphBuilder) -> str:
    return g.input("x", (_BATCH, _LENGTH, 6))


def _split(g: GraphBuilder, x: str, heads: int, width: int) -> str:
    return g.op("Transpose", g.op("Reshape", x, g.ints(0, 0, heads, width)), perm=[0, 2, 1, 3])


def _scale(model: onnxprune.Model, op_type: str) -> float:
    (node,) = [n for n in model.to_proto().graph.node if n.op_type == op_type]
    return float(next(a.f for a in node.attribute if a.name == "scale"))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("query", "shared"), [(3, 3), (4, 2)])
def test_merged_heads(query: int, shared: int, masked: bool) -> None:
    g = GraphBuilder(23)
    x = _tokens(g)
    each = _WIDTH // query
    q = linear(g, x, 6, _WIDTH)
    k, v = linear(g, x, 6, shared * each), linear(g, x, 6, shared * each)
    mask = [g.vector(_LENGTH, _LENGTH)] if masked else []
    y = g.op("Attention", q, k, v, *mask, q_num_heads=query, kv_num_heads=shared)
    g.output(linear(g, y, _WIDTH, 3))
    result = certify_often(g.model(), prunable=[(q, 2), (k, 2), (v, 2), (y, 2)])
    assert np.isclose(_scale(result.model, "Attention"), each**-0.5)
    layer = next(found for found in result.analysis.layers if found.op_type == "Attention")
    assert layer.flops == 2 * _BATCH * _LENGTH * _LENGTH * _WIDTH


@pytest.mark.parametrize(("query", "shared"), [(3, 3), (4, 2)])
def test_heads_on_their_own_axis(query: int, shared: int) -> None:
    g = GraphBuilder(23)
    x = _tokens(g)
    q = _split(g, linear(g, x, 6, query * 8), query, 8)
    k = _split(g, linear(g, x, 6, shared * 8), shared, 8)
    v = _split(g, linear(g, x, 6, shared * 4), shared, 4)
    y = g.op("Attention", q, k, v, g.vector(1, 1, _LENGTH, _LENGTH), scale=0.3)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
    g.output(linear(g, y, query * 4, 3))
    result = certify_often(g.model())
    assert len(result.plan.removed) > 4
    assert np.isclose(_scale(result.model, "Attention"), 0.3)


def test_a_state_holds_the_heads() -> None:
    g = GraphBuilder(23)
    x = _tokens(g)
    q, k, v = (_split(g, linear(g, x, 6, _WIDTH), 3, 4) for _ in range(3))
    y, present, _ = g.ops("Attention", q, k, v, outputs=3)
    g.nodes[-1].output[2] = ""
    g.output(y)
    g.output(present, [_BATCH, 3, _LENGTH, 4])
    analysis = onnxprune.analyze(g.model())
    assert any("state" in reason for layer in analysis.layers for reason in layer.pinned)


@pytest.mark.parametrize("biased", [False, True])
def test_multi_head_attention_of_onnxruntime(biased: bool) -> None:
    g = GraphBuilder(17, domains={"com.microsoft": 1})
    x = _tokens(g)
    q, k, v = (linear(g, x, 6, _WIDTH) for _ in range(3))
    bias = [g.vector(3 * _WIDTH)] if biased else []
    y = g.op("MultiHeadAttention", q, k, v, *bias, domain="com.microsoft", num_heads=3)
    g.output(linear(g, y, _WIDTH, 3), [_BATCH, _LENGTH, 3])
    result = certify_often(g.model(), prunable=[(tensor, 2) for tensor in (q, k, v)] + [(b, 0) for b in bias])
    assert np.isclose(_scale(result.model, "MultiHeadAttention"), 0.5)


@pytest.mark.parametrize("merged", [False, True])
def test_rotary_embedding_holds_head_width(merged: bool) -> None:
    g = GraphBuilder(23)
    h = linear(g, _tokens(g), 6, _WIDTH)
    tables = [g.vector(_BATCH, _LENGTH, 2), g.vector(_BATCH, _LENGTH, 2)]
    if merged:
        y = g.op("RotaryEmbedding", h, *tables, num_heads=3)
        g.output(linear(g, y, _WIDTH, 3))
        assert any("pairs" in reason for reason in reasons(onnxprune.analyze(g.model()), h, 2))
        return
    y = g.op("RotaryEmbedding", _split(g, h, 3, 4), *tables)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
    g.output(linear(g, y, _WIDTH, 3))
    certify_often(g.model())


def test_the_model_stays_checked() -> None:
    g = GraphBuilder(23)
    x = _tokens(g)
    q, k, v = (linear(g, x, 6, _WIDTH) for _ in range(3))
    g.output(linear(g, g.op("Attention", q, k, v, q_num_heads=3, kv_num_heads=3, is_causal=1), _WIDTH, 3))
    onnx.checker.check_model(certify_often(g.model(), prunable=[(q, 2)]).model.to_proto(), full_check=True)
