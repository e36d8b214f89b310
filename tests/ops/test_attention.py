"""Attention as one operator, and rotary embeddings."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from tests.helpers import GraphBuilder, run
from tests.ops.certifying import certify_often, linear, reasons

COVERS = frozenset(
    {("", "Attention"), ("", "RotaryEmbedding"), ("com.microsoft", "MultiHeadAttention")}
    | {("com.microsoft", "RotaryEmbedding"), ("com.microsoft", "GroupQueryAttention")}
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


def _state(g: GraphBuilder, name: str, heads: int, width: int, times: int = 4) -> str:
    """Keys or values of before, which somebody makes whose channels may go."""
    x = g.input(name, (_BATCH, times, 6))
    return _split(g, linear(g, x, 6, heads * width), heads, width)


def _summed(g: GraphBuilder, present: str, heads: int, width: int) -> str:
    """A reader of a state whose channels may go: (B, 1, 3)."""
    merged = g.op("Reshape", g.op("Transpose", present, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
    return g.reduce("ReduceMean", linear(g, merged, heads * width, 3), 1)


@pytest.mark.parametrize(("query", "shared"), [(3, 3), (4, 2)])
@pytest.mark.parametrize("merged", [False, True])
def test_states_shrink_with_their_heads(query: int, shared: int, merged: bool) -> None:
    g = GraphBuilder(23)
    x = _tokens(g)
    operands = [linear(g, x, 6, heads * 8) for heads in (query, shared, shared)]
    if not merged:
        operands = [_split(g, h, n, 8) for h, n in zip(operands, (query, shared, shared), strict=True)]
    past = [_state(g, name, shared, 8) for name in ("before_k", "before_v")]
    counts = {"q_num_heads": query, "kv_num_heads": shared} if merged else {}
    y, *present = g.ops("Attention", *operands, "", *past, outputs=3, **counts)
    if not merged:
        y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
    y = linear(g, y, query * 8, 3)
    for state in present:
        y = g.op("Add", y, _summed(g, state, shared, 8))
    g.output(y)
    result = certify_often(g.model(), prunable=[(past[0], 3), (past[1], 3), (operands[0], 2 if merged else 3)])
    assert np.isclose(_scale(result.model, "Attention"), 8**-0.5)


def test_a_state_at_the_border_holds_the_heads() -> None:
    g = GraphBuilder(23)
    x = _tokens(g)
    q, k, v = (_split(g, linear(g, x, 6, _WIDTH), 3, 4) for _ in range(3))
    past = [g.input(name, (_BATCH, 3, 2, 4)) for name in ("past_k", "past_v")]
    y, *present = g.ops("Attention", q, k, v, "", *past, outputs=3)
    g.output(y)
    for state in present:
        g.output(state, [_BATCH, 3, _LENGTH + 2, 4])
    analysis = onnxprune.analyze(g.model())
    for one in (q, k, v):
        assert {"is part of graph input", "reaches graph output"} & {
            r.partition(" '")[0] for r in reasons(analysis, one, 3)
        }


def _tables(g: GraphBuilder, domain: str, width: int) -> tuple[str, ...]:
    """Operands of RotaryEmbedding behind X: positions and tables, with those of the positions where it wants them."""
    tables = [g.vector(16, width // 2), g.vector(16, width // 2)]
    at = g.constant(np.tile(np.arange(_LENGTH), (_BATCH, 1)), dtype=np.int64)
    return (*tables, at) if domain == "" else (at, *tables)


@pytest.mark.parametrize("domain", ["", "com.microsoft"])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turning", [8, 4])
def test_rotary_embedding_of_heads(domain: str, interleaved: int, turning: int) -> None:
    """Pairs go, and each place that does not turn by itself."""
    g = GraphBuilder(23, domains={domain: 1} if domain else {})
    h = linear(g, _tokens(g), 6, 24)
    partial = {"rotary_embedding_dim": turning, "num_heads": 3} if turning < 8 else {}
    x = _split(g, h, 3, 8)
    operands = _tables(g, domain, turning)
    y = g.op("RotaryEmbedding", x, *operands, domain=domain, interleaved=interleaved, **partial)
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), g.ints(0, 0, -1))
    g.output(linear(g, y, 24, 3), [_BATCH, _LENGTH, 3])
    certify_often(g.model(), prunable=[(x, 3), (operands[1], 1), (h, 2)])


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turning", [8, 4])
def test_rotary_embedding_of_merged_heads(interleaved: int, turning: int) -> None:
    g = GraphBuilder(23)
    q, k, v = (linear(g, _tokens(g) if i == 0 else "x", 6, 24) for i in range(3))
    operands = _tables(g, "", turning)
    partial = {"rotary_embedding_dim": turning} if turning < 8 else {}
    attributes = {"num_heads": 3, "interleaved": interleaved, **partial}
    turned = [g.op("RotaryEmbedding", one, *operands, **attributes) for one in (q, k)]
    y = g.op("Attention", *turned, v, q_num_heads=3, kv_num_heads=3)
    g.output(linear(g, y, 24, 3))
    certify_often(g.model(), prunable=[(q, 2), (k, 2), (v, 2), (operands[0], 1)])


@pytest.mark.parametrize("heads", [{}, {"num_heads": 3}])
def test_merged_heads_that_onnxruntime_turns_go_as_wholes(heads: dict[str, int]) -> None:
    g = GraphBuilder(17, domains={"com.microsoft": 1})
    h = linear(g, _tokens(g), 6, 24)
    y = g.op("RotaryEmbedding", h, *_tables(g, "com.microsoft", 8), domain="com.microsoft", **heads)
    g.output(linear(g, y, 24, 3), [_BATCH, _LENGTH, 3])
    result = certify_often(g.model(), prunable=[(h, 2)])
    assert len(result.plan.removed[h][2]) % 8 == 0


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


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rotary", [False, True])
def test_heads_of_grouped_queries(packed: bool, rotary: bool) -> None:
    """Six heads of the query share two of the key, whose state comes from and goes to the graph's border."""
    g = _grouped_graph(6, 2, packed=packed, rotary=rotary)
    grouped = next(n for n in g.nodes if n.op_type == "GroupQueryAttention")
    result = certify_often(g.model(), prunable=[(grouped.output[0], 2), (grouped.input[0], 2)])
    node = next(n for n in result.model.graph.node if n.op_type == "GroupQueryAttention")
    counts = {a.name: a.i for a in node.attribute}
    assert counts["num_heads"] in (2, 4)
    assert counts["kv_num_heads"] == 2
    layer = next(found for found in result.analysis.layers if found.op_type == "GroupQueryAttention")
    assert layer.flops == 2 * 3 * 7 * 6 * 16


def test_heads_that_share_no_key_keep_their_state() -> None:
    g = _grouped_graph(3, 3, packed=False, rotary=False)
    analysis = onnxprune.analyze(g.model())
    query = next(n for n in g.nodes if n.op_type == "GroupQueryAttention").input[0]
    assert any("is part of graph input 'past_k'" in reason for reason in reasons(analysis, query, 2))


def _grouped_graph(query: int, shared: int, *, packed: bool, rotary: bool) -> GraphBuilder:
    """Three tokens after four; constants say how many there are."""
    g = GraphBuilder(21, domains={"com.microsoft": 1})
    x = g.input("x", (1, 3, 6))
    if packed:
        operands = [linear(g, x, 6, (query + 2 * shared) * 16), "", ""]
    else:
        operands = [linear(g, x, 6, heads * 16) for heads in (query, shared, shared)]
    past = [g.input(name, (1, shared, 4, 16)) for name in ("past_k", "past_v")]
    lengths = [g.constant([6], dtype=np.int32), g.constant(7, dtype=np.int32)]
    tables = [g.vector(16, 8), g.vector(16, 8)] if rotary else []
    y, *present = g.ops(
        "GroupQueryAttention", *operands, *past, *lengths, *tables, outputs=3, domain="com.microsoft",
        num_heads=query, kv_num_heads=shared, do_rotary=int(rotary),
    )  # fmt: skip
    g.output(linear(g, y, query * 16, 3), [1, 3, 3])
    for name in present:
        g.output(name, [1, shared, 7, 16])
    return g


def test_the_model_stays_checked() -> None:
    g = GraphBuilder(23)
    x = _tokens(g)
    q, k, v = (linear(g, x, 6, _WIDTH) for _ in range(3))
    g.output(linear(g, g.op("Attention", q, k, v, q_num_heads=3, kv_num_heads=3, is_causal=1), _WIDTH, 3))
    onnx.checker.check_model(certify_often(g.model(), prunable=[(q, 2)]).model.to_proto(), full_check=True)


def test_heads_go_with_their_state_where_it_is_asked_for() -> None:
    """Against the original whose last layer does not see the heads that go; caches are fed without them."""
    g = _grouped_graph(3, 3, packed=False, rotary=True)
    node = next(n for n in g.nodes if n.op_type == "GroupQueryAttention")
    model = g.model()
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith("past") or value.name in node.output:
            value.type.tensor_type.shape.dim[2].dim_param = "past" if value.name.startswith("past") else "total"
    shapes = dict.fromkeys(("past_k", "past_v"), (1, 3, 4, 16))
    state = {"past_k": node.output[1], "past_v": node.output[2]}
    analysis = onnxprune.analyze(model, shapes, state=state)
    plan = onnxprune.plan(analysis, channels=0.34)
    gone = list(plan.removed[node.output[0]][2])
    assert len(gone) == 16
    assert list(plan.removed["past_k"][1]) == [gone[0] // 16]
    pruned = onnxprune.apply(model, plan).to_proto()
    reader = next(n for n in model.graph.node if node.output[0] in n.input).input[1]
    last = next(tensor for tensor in model.graph.initializer if tensor.name == reader)
    blind = onnx.numpy_helper.to_array(last).copy()
    blind[gone] = 0
    last.CopyFrom(onnx.numpy_helper.from_array(blind, reader))
    rng = np.random.default_rng(0)
    feeds = {"x": (1, 3, 6), **shapes}
    inputs = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in feeds.items()}
    wanted = run(model, inputs)
    found = run(pruned, {n: np.delete(v, gone[0] // 16, axis=1) if n in shapes else v for n, v in inputs.items()})
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-4, atol=1e-5)
    for before, after in zip(wanted[1:], found[1:], strict=True):
        np.testing.assert_allclose(after, np.delete(before, gone[0] // 16, axis=1), rtol=1e-4, atol=1e-5)
