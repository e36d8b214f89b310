from __future__ import annotations

import numpy as np

from onnxprune.passes.drop_initializer_inputs import DropInitializerInputs

TEXT = "g (float[2] w, float[2] x) => (float[2] y) { y = Add(x, w) }"
WEIGHTS = {"w": np.float32([1, 2])}


def test_weights_are_no_inputs(build, apply) -> None:
    after = apply(DropInitializerInputs(), build(TEXT, ir=4, weights=WEIGHTS))
    assert [value.name for value in after.graph.input] == ["x"]


def test_ir_3_wants_them_listed(build, unchanged) -> None:
    unchanged(DropInitializerInputs(), build(TEXT, opset=8, ir=3, weights=WEIGHTS))


def test_inputs_without_weights_stay(build, unchanged) -> None:
    unchanged(DropInitializerInputs(), build(TEXT, ir=8))
