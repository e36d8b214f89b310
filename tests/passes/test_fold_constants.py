from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from onnxprune.ir.graph import Graph
from onnxprune.passes import _folding
from onnxprune.passes.fold_constants import FoldConstants
from onnxprune.passes.manager import Check

BIG = np.random.default_rng(0).standard_normal((64, 128)).astype(np.float32)


def ops(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_weights_of_constant_of_shape(build, apply) -> None:
    model = build(
        """g (float[1, 64] x) => (float[1, 512] y) {
            w = ConstantOfShape <value = float[1] {0.5}> (shape)
            y = MatMul(x, w)
        }""",
        weights={"shape": [64, 512]},
    )
    after = apply(FoldConstants(), model)
    assert ops(after) == ["MatMul"]
    np.testing.assert_array_equal(after.weights["w"].array, np.full((64, 512), 0.5, np.float32))


def test_weight_standardisation(build, apply) -> None:
    model = build(
        """g (float[1, 64] x) => (float[1, 128] y) {
            mean = ReduceMean <axes = [0], keepdims = 1> (w)
            centred = Sub(w, mean)
            y = MatMul(x, centred)
        }""",
        weights={"w": BIG},
    )
    after = apply(FoldConstants(), model)
    assert ops(after) == ["MatMul"]
    np.testing.assert_allclose(after.weights["centred"].array, BIG - BIG.mean(0), atol=1e-6)


def test_shape_arithmetic_in_one_session(build, apply, monkeypatch) -> None:
    sessions = []
    real = _folding.Session
    monkeypatch.setattr(_folding, "Session", lambda *a, **k: sessions.append(1) or real(*a, **k))
    model = build(
        """g (float[6] x) => (float[2, 3] y) {
            s = Concat <axis = 0> (two, three)
            t = Mul(s, one)
            y = Reshape(x, t)
        }""",
        weights={"two": [2], "three": [3], "one": [1]},
    )
    after = apply(FoldConstants(), model, Check.NONE)
    assert ops(after) == ["Reshape"]
    assert len(sessions) == 2  # apply runs the pass twice on the unfolded model


def test_tied_matrices_stay_tied(build, unchanged) -> None:
    model = build(
        """g (float[1, 64] x) => (float[1, 64] y) {
            a = MatMul(x, w)
            wt = Transpose <perm = [1, 0]> (w)
            y = MatMul(a, wt)
        }""",
        weights={"w": BIG},
    )
    unchanged(FoldConstants(), model)


def test_a_lone_transpose_is_folded(build, apply) -> None:
    model = build(
        "g (float[1, 128] x) => (float[1, 64] y) { t = Transpose <perm = [1, 0]> (w)  y = MatMul(x, t) }",
        weights={"w": BIG},
    )
    assert ops(apply(FoldConstants(), model)) == ["MatMul"]


def test_what_grows_stays_but_what_leads_there_is_folded(build, apply) -> None:
    model = build(
        """g (float[300, 300] x) => (float[300, 300] y) {
            s = Concat <axis = 0> (n, n)
            e = Expand(one, s)
            f = Neg(e)
            y = Mul(x, f)
        }""",
        weights={"n": [300], "one": np.float32([1.0])},
    )
    after = apply(FoldConstants(), model)
    assert ops(after) == ["Expand", "Neg", "Mul"]
    assert "s" in after.weights


def test_what_grows_is_not_even_evaluated(build, monkeypatch) -> None:
    """Its shape, which depends on a computed value, tells that it is not worth it."""
    evaluated = []
    real = _folding.evaluate
    monkeypatch.setattr(_folding, "evaluate", lambda m, w, nodes: evaluated.extend(nodes) or real(m, w, nodes))
    model = build(
        """g (float[300, 300] x) => (float[300, 300] y) {
            s = Concat <axis = 0> (n, n)
            m = Mul(s, one)
            e = Expand(w, m)
            f = Neg(e)
            y = Mul(x, f)
        }""",
        weights={"n": [300], "one": [1], "w": np.float32([1.0])},
    )
    after = FoldConstants()(model).model
    assert evaluated == [0, 1]
    assert ops(after) == ["Expand", "Neg", "Mul"]
    assert set(after.weights) >= {"w", "m"}


def test_nodes_that_contradict_each_other_stay(build) -> None:
    model = build(
        "g (float[2] x) => (float[2] y) { a = Add(two, three)  b = Neg(two)  y = Sum(x, a, b) }",
        weights={"two": np.ones(2, np.float32), "three": np.ones(3, np.float32)},
    )
    assert ops(FoldConstants()(model).model) in (["Add", "Sum"], ["Add", "Neg", "Sum"])


@pytest.mark.parametrize("seed", range(20))
def test_parts_are_the_connected_components(build, seed) -> None:
    rng = np.random.default_rng(seed)
    nodes = [f"t{i} = Sum({', '.join(f't{j}' for j in rng.choice(i, 2))})" for i in range(4, 30)]
    large = {f"t{i}": BIG for i in range(2)}
    small = {f"t{i}": np.float32([1.0]) for i in range(2, 4)}
    text = f"g () => (float[64, 128] t29) {{ {'  '.join(nodes)} }}"
    model = build(text, weights={**large, **small})
    graph = model.derived(Graph)
    chosen = sorted(rng.choice(26, 12, replace=False).tolist())
    expected = nx.Graph()
    expected.add_nodes_from(chosen)
    made = {graph.nodes[index].outputs[0]: index for index in chosen}
    for index in chosen:
        for name in graph.nodes[index].inputs:
            if name in made or name in large:
                expected.add_edge(made.get(name, name), index)
    parts = [sorted(node for node in part if isinstance(node, int)) for part in nx.connected_components(expected)]
    assert _folding._parts(model, graph, chosen) == sorted(parts)


@pytest.mark.parametrize(
    "text",
    [
        "g () => (float[2] y) { r = RandomNormalLike(w)  y = Neg(r) }",
        "g () => (float[2] y) { r = Bernoulli(w)  y = Neg(r) }",
        "g () => (float[2] y) { r = Dropout(w)  y = Neg(r) }",
        "g () => (float[2] y) { r = my.Custom(w)  y = Neg(r) }",
        "g () => (float[2] y) { d = DequantizeLinear(q, s)  y = Neg(d) }",
        "g () => (float[2] y) { d = Cast <to = 1> (h)  y = Neg(d) }",
        "g (float[2] w) => (float[2] y) { d = Neg(w)  y = Neg(d) }",
        "g () => (float[2] y) { y = Neg(w) }",
    ],
)
def test_what_is_never_folded(build, unchanged, text) -> None:
    weights = {
        "w": np.float32([0, 1]),
        "q": np.int8([1, 2]),
        "s": np.float32(0.5),
        "h": np.float16([1, 2]),
    }
    unchanged(FoldConstants(), build(text, weights=weights))


def test_what_onnxruntime_lacks_does_not_stop_the_rest(build, apply) -> None:
    model = build(
        """g (float[2] x) => (float[2] y, bfloat16[2] z) {
            a = Neg(w)
            y = Add(x, a)
            c = Cast <to = 16> (w)
            d = Neg(c)
            z = Abs(d)
        }""",
        weights={"w": np.float32([1, 2])},
    )
    after = apply(FoldConstants(), model, Check.NONE)
    assert "a" in after.weights
    assert "Neg" in ops(after)


def test_results_that_bodies_read(build, apply) -> None:
    model = build(
        """g (float[2] x, bool b) => (float[2] y) {
            n = Neg(w)
            y = If (b) <then_branch = p () => (float[2] q) { q = Add(x, n) },
                        else_branch = r () => (float[2] s) { s = Neg(x) }>
        }""",
        weights={"w": np.float32([1, 2])},
    )
    after = apply(FoldConstants(), model)
    assert ops(after) == ["If"]
    assert "n" in after.weights


def test_ir_3(build, apply) -> None:
    model = build(
        "g (float[2] x, float[2] w) => (float[2] y) { a = Neg(w)  y = Add(x, a) }",
        opset=8,
        ir=3,
        weights={"w": np.float32([1, 2])},
    )
    after = apply(FoldConstants(), model)
    assert [value.name for value in after.graph.input] == ["x", "w", "a"]
