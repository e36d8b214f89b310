from __future__ import annotations

import numpy as np

from onnxprune.passes.eliminate_identity import EliminateIdentity

W = np.float32([1, 2])


def ops(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_chains_and_weights(build, apply) -> None:
    model = build(
        """g (float[2] x) => (float[2] y) <float[2] a> {
            a = Identity(x)
            b = Identity(a)
            v = Identity(w)
            u = Identity(v)
            c = Add(b, v)
            d = Add(c, u)
            y = Relu(d)
        }""",
        weights={"w": W},
    )
    after = apply(EliminateIdentity(), model)
    assert ops(after) == ["Add", "Add", "Relu"]
    assert [list(node.input) for node in after.graph.node] == [["x", "w"], ["c", "w"], ["d"]]
    assert not after.graph.value_info


def test_outputs_keep_their_names(build, apply) -> None:
    model = build(
        """g (float[2] x) => (float[2] y, float[2] z) {
            a = Relu(x)
            b = Identity(a)
            y = Identity(b)
            c = Neg(b)
            z = Identity(a)
        }"""
    )
    after = apply(EliminateIdentity(), model)
    assert ops(after) == ["Relu", "Neg", "Identity"]
    assert list(after.graph.node[0].output) == ["y"]
    assert [list(node.input) for node in after.graph.node[1:]] == [["y"], ["y"]]


def test_from_input_or_weight_to_output(build, unchanged) -> None:
    model = build("g (float[2] x) => (float[2] y, float[2] z) { y = Identity(x)  z = Identity(w) }", weights={"w": W})
    unchanged(EliminateIdentity(), model)


def test_names_that_bodies_read(build, apply) -> None:
    model = build(
        """g (float[2] x, bool b) => (float[2] y) {
            t = Relu(x)
            u = Identity(t)
            v = Identity(x)
            y = If (b) <then_branch = p () => (float[2] q) { q = Neg(u) },
                        else_branch = r () => (float[2] s) { s = Neg(v) }>
        }"""
    )
    after = apply(EliminateIdentity(), model)
    assert ops(after) == ["Relu", "Identity", "If"]
    assert list(after.graph.node[0].output) == ["u"]
    assert list(after.graph.node[1].output) == ["v"]


def test_dropout_stays(build, unchanged) -> None:
    unchanged(EliminateIdentity(), build("g (float[2] x) => (float[2] y) { y = Dropout(x) }"))
