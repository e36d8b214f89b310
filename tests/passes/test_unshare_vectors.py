from __future__ import annotations

import numpy as np

from onnxprune.passes.unshare_vectors import UnshareVectors

V = np.float32([1, 2])


def test_each_user_has_its_own(build, apply) -> None:
    model = build("g (float[2] x) => (float[2] y) { a = Add(x, v)  b = Add(a, v)  y = Mul(v, b) }", weights={"v": V})
    after = apply(UnshareVectors(), model)
    assert [list(node.input) for node in after.graph.node] == [["x", "v"], ["a", "v_1"], ["v_2", "b"]]
    assert list(after.weights) == ["v", "v_1", "v_2"]
    assert [tensor.name for tensor in after.proto.graph.initializer] == ["v", "v_1", "v_2"]
    np.testing.assert_array_equal(after.weights["v_2"].array, V)


def test_two_slots_of_one_node(build, apply) -> None:
    model = build(
        "g (float[1, 2, 3] x) => (float[1, 2, 3] y) { y = BatchNormalization (x, v, v, v, v) }",
        weights={"v": V},
    )
    after = apply(UnshareVectors(), model)
    assert list(after.graph.node[0].input) == ["x", "v", "v_1", "v_2", "v_3"]


def test_all_shapes_with_one_long_axis(build, apply) -> None:
    model = build(
        "g (float[1, 2, 2] x) => (float[1, 2, 2] y) { a = Add(x, v)  y = Add(a, v) }",
        weights={"v": V.reshape(1, 2, 1)},
    )
    assert len(apply(UnshareVectors(), model).weights) == 2


def test_scalars_and_matrices_stay_shared(build, unchanged) -> None:
    model = build(
        "g (float[2, 2] x) => (float[2, 2] y) { a = MatMul(x, m)  b = MatMul(a, m)  y = Clip(b, s, s) }",
        weights={"m": np.ones((2, 2), np.float32), "s": np.float32(1)},
    )
    unchanged(UnshareVectors(), model)


def test_bodies_keep_the_name(build, apply) -> None:
    model = build(
        """g (float[2] x, bool b) => (float[2] z) {
            y = If (b) <then_branch = p () => (float[2] q) { q = Add(x, v) },
                        else_branch = r () => (float[2] s) { s = Neg(x) }>
            z = Add(y, v)
        }""",
        weights={"v": V},
    )
    after = apply(UnshareVectors(), model)
    assert list(after.graph.node[1].input) == ["y", "v_1"]
    assert list(after.weights) == ["v", "v_1"]


def test_names_that_are_taken(build, apply) -> None:
    model = build(
        "g (float[2] x) => (float[2] y) { v_1 = Add(x, v)  y = Add(v_1, v) }", opset=8, ir=3, weights={"v": V}
    )
    draft = model.edit()
    draft.list_inputs(["v"])
    after = apply(UnshareVectors(), draft.finish())
    assert list(after.weights) == ["v", "v_2"]
    assert [value.name for value in after.graph.input] == ["x", "v", "v_2"]


def test_the_bias_of_one_layer_in_several_places_stays_shared(build, apply) -> None:
    model = build(
        """g (float[3, 2] x) => (float[3, 2] y, float[3, 2] z) {
            a = Gemm(x, m, v)  b = Relu(a)  y = Gemm(b, m, v)  z = Gemm(b, other, v)
        }""",
        weights={"v": V, "m": np.ones((2, 2), np.float32), "other": np.eye(2, dtype=np.float32)},
    )
    after = apply(UnshareVectors(), model)
    assert [list(node.input)[2:] for node in after.graph.node] == [["v"], [], ["v"], ["v_1"]]


def test_the_bias_beside_one_matrix_times_a_mask_stays_shared(build, apply) -> None:
    model = build(
        """g (float[3, 2] x, float[2, 1] k) => (float[3, 2] y, float[3, 2] z) {
            n = Mul(m, k)  o = Mul(other, k)  a = Gemm(x, n, v)  b = Relu(a)  y = Gemm(b, n, v)  z = Gemm(b, o, v)
        }""",
        weights={"v": V, "m": np.ones((2, 2), np.float32), "other": np.eye(2, dtype=np.float32)},
    )
    after = apply(UnshareVectors(), model)
    assert [list(node.input)[2:] for node in after.graph.node][2:] == [["v"], [], ["v"], ["v_1"]]
