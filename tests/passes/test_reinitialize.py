from __future__ import annotations

from pathlib import Path

import numpy as np

import onnxprune
from onnxprune.passes.manager import Check
from onnxprune.passes.reinitialize import Reinitialize

MODELS = Path(__file__).parents[2] / "models"
ONES = {
    "w": np.ones((64, 32, 3, 3), np.float32),
    "k": np.ones(64, np.float32),
    "s": np.full(64, 3, np.float32),
    "b": np.full(64, 3, np.float32),
    "m": np.full(64, 3, np.float32),
    "v": np.full(64, 3, np.float32),
    "d": np.ones((64, 10), np.float32),
    "e": np.ones(10, np.float32),
    "mean": np.ones((1, 32, 1, 1), np.float32),
}
TEXT = """g (float[1, 32, 8, 8] x) => (float[1, 6, 6, 10] y) {
    p = Sub(x, mean)  c = Conv(p, w, k)  n = BatchNormalization (c, s, b, m, v)  r = Relu(n)
    t = Transpose <perm = [0, 2, 3, 1]> (r)  l = MatMul(t, d)  y = Add(l, e)
}"""


def test_values_by_kind(build, apply) -> None:
    after = apply(Reinitialize(), build(TEXT, weights=ONES), Check.RUNTIME)
    values = {name: weight.array for name, weight in after.weights.items()}
    assert abs(values["w"].std() / np.sqrt(2 / (32 * 9)) - 1) < 0.05
    assert np.abs(values["d"]).max() <= np.sqrt(6 / 74)
    assert values["d"].std() > 0.1
    for name in "kbme":
        assert not values[name].any()
    for name in "sv":
        np.testing.assert_array_equal(values[name], 1)
    np.testing.assert_array_equal(values["mean"], 1)


def test_seed_and_names_decide(build) -> None:
    model = build(TEXT, weights=ONES)
    first, same, other = (Reinitialize(seed)(model).model.weights["w"].array for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_reference_model_changes_all_layers() -> None:
    model = onnxprune.load(MODELS / "residual_dynamo.onnx")
    fresh = Reinitialize()(model).model
    for name, weight in model.weights.items():
        if len(weight.shape) > 1:
            assert not np.array_equal(weight.array, fresh.weights[name].array), name
    assert list(fresh.graph.node) == list(model.graph.node)
