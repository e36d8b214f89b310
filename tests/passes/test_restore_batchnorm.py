from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import PassError
from onnxprune.ir.session import Session
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.passes.manager import Check, PassManager
from onnxprune.passes.restore_batchnorm import RestoreBatchnorm

MODELS = Path(__file__).parents[2] / "models"
W = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
K = np.float32([1, -2, 3, 0.5])
TEXT = "g (float[2, 3, 6, 6] x) => (float[2, 4, 4, 4] y) { c = Conv(x, w, k)  y = Relu(c) }"


def ops(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_fresh_statistics(build, apply) -> None:
    after = apply(RestoreBatchnorm(), build(TEXT, weights={"w": W, "k": K}))
    assert ops(after) == ["Conv", "BatchNormalization", "Relu"]
    assert list(after.graph.node[0].input) == ["x", "w"]
    assert "k" not in after.weights
    np.testing.assert_array_equal(after.weights["w.bn.bias"].array, K)
    np.testing.assert_array_equal(after.weights["w.bn.mean"].array, 0)
    np.testing.assert_array_equal(after.weights["w.bn.var"].array, 1)


def test_measured_statistics(build, apply) -> None:
    x = np.random.default_rng(0).standard_normal((8, 3, 6, 6)).astype(np.float32)
    model = build(TEXT.replace("[2,", "[n,"), weights={"w": W, "k": K})
    after = apply(RestoreBatchnorm({"x": x}), model)
    draft = after.edit()
    draft.graph.output.add().name = after.graph.node[0].output[0]
    before_norm = Session(draft.finish(), "test", threads=1).run({"x": x})[after.graph.node[0].output[0]]
    np.testing.assert_allclose(after.weights["w.bn.mean"].array, before_norm.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(after.weights["w.bn.var"].array, before_norm.var((0, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w, k)  n = BatchNormalization (c, k, k, k, v)  y = Relu(n)",
        "c = Conv(x, w)  a = Add(c, k4)  n = BatchNormalization (a, k, k, k, v)  y = Relu(n)",
        "y = Conv(x, w, k)",
        "p = GlobalAveragePool(x)  q = Conv(p, w1)  r = Relu(q)  c = Relu(x)  y = Add(q, k4)",
    ],
    ids=["normalised", "after a bias", "output", "single position"],
)
def test_what_stays(build, unchanged, body: str) -> None:
    weights = {"w": W, "w1": W[:, :, :1, :1], "k": K, "k4": K.reshape(4, 1, 1), "v": np.abs(K)}
    unchanged(
        RestoreBatchnorm(), build(f"g (float[2, 3, 6, 6] x) => (float[2, 4, n, n] y) {{ {body} }}", weights=weights)
    )


def test_old_opset(build) -> None:
    with pytest.raises(PassError, match="opset 6"):
        RestoreBatchnorm()(build(TEXT, opset=6, ir=3, weights={"w": W, "k": K}))


@pytest.mark.parametrize("name", ["residual_dynamo", "depthwise_dynamo", "vgg_keras_tensorflow"])
def test_restored_and_folded_again_is_the_same_function(name: str) -> None:
    model = onnxprune.load(MODELS / f"{name}.onnx")
    passes = [RestoreBatchnorm(), FoldBatchnorm()]
    restored = RestoreBatchnorm()(model).model
    result = PassManager(passes, Check.EQUALITY).run(model)
    assert "BatchNormalization" in ops(restored)
    assert "BatchNormalization" not in ops(result.model)
    assert len(result.model.graph.node) == len(model.graph.node)
