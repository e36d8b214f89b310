from __future__ import annotations

import numpy as np

from onnxprune.passes.manager import Check
from onnxprune.passes.remove_unused import RemoveUnused

W = np.float32([1, 2])


def test_dead_nodes_and_weights_go(build, apply) -> None:
    model = build(
        """g (float[2] x, float[2] unused) => (float[2] y) {
            dead1 = Add(x, w)
            dead2 = Relu(dead1)
            y = Add(x, v)
        }""",
        weights={"w": W, "v": W, "u": W},
    )
    after = apply(RemoveUnused(), model)
    assert [node.op_type for node in after.graph.node] == ["Add"]
    assert list(after.weights) == ["v"]
    assert [value.name for value in after.graph.input] == ["x", "unused"]


def test_an_unused_weight_does_not_become_an_input(build, apply) -> None:
    model = build("g (float[2] x, float[2] w) => (float[2] y) { y = Relu(x) }", 8, 3, {"w": W})
    after = apply(RemoveUnused(), model)
    assert [value.name for value in after.graph.input] == ["x"]


def test_what_bodies_read_is_used(build, unchanged) -> None:
    model = build(
        """g (float[2] x, bool b) => (float[2] y) {
            t = Relu(x)
            y = If (b) <then_branch = a () => (float[2] p) { p = Add(t, w) },
                        else_branch = c () => (float[2] q) {
                q = If (b) <then_branch = d () => (float[2] r) { r = Neg(v) },
                            else_branch = e () => (float[2] u) { u = Identity(x) }>
            }>
        }""",
        weights={"w": W, "v": W},
    )
    unchanged(RemoveUnused(), model)


def test_a_node_with_one_used_output_stays(build, apply) -> None:
    model = build("g (float[4] x) => (float[2] y) { y, z = Split <axis = 0> (x)  d = Relu(z) }", opset=13)
    after = apply(RemoveUnused(), model)
    assert list(after.graph.node[0].output) == ["y", "z"]


def test_weights_of_annotations_and_outputs_stay(build, apply) -> None:
    draft = build(
        "g (float[2] x) => (float[2] y, float[2] o) { y = Relu(x) }", weights={"o": W, "scale": W, "gone": W}
    ).edit()
    annotation = draft.graph.quantization_annotation.add(tensor_name="x")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scale")
    after = apply(RemoveUnused(), draft.finish(), Check.RUNTIME)
    assert list(after.weights) == ["o", "scale"]
