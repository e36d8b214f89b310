from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.passes.manager import Check, PassManager

MODELS = Path(__file__).parents[2] / "models"


def vectors(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "s": rng.uniform(0.5, 2, count).astype(np.float32),
        "b": rng.standard_normal(count).astype(np.float32),
        "m": rng.standard_normal(count).astype(np.float32),
        "v": rng.uniform(0.5, 2, count).astype(np.float32),
    }


def weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def ops(model) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_conv_without_bias(build, apply) -> None:
    model = build(
        """g (float[1, 3, 5, 5] x) => (float[1, 4, 3, 3] y) <float[1, 4, 3, 3] c> {
            c = Conv(x, w)  n = BatchNormalization <epsilon = 0.01> (c, s, b, m, v)  y = Relu(n)
        }""",
        weights={"w": weight(4, 3, 3, 3), **vectors(4)},
    )
    after = apply(FoldBatchnorm(), model)
    assert ops(after) == ["Conv", "Relu"]
    assert list(after.weights) == ["w", "w.bias"]
    assert not after.graph.value_info


def test_grouped_conv_with_bias_into_output(build, apply) -> None:
    model = build(
        """g (float[1, 4, 5, 5] x) => (float[1, 8, 3, 3] y) {
            c = Conv <group = 4> (x, w, k)  y = BatchNormalization (c, s, b, m, v)
        }""",
        weights={"w": weight(8, 1, 3, 3), "k": weight(8), **vectors(8)},
    )
    after = apply(FoldBatchnorm(), model)
    assert list(after.graph.node[0].output) == ["y"]
    assert list(after.weights) == ["w", "k"]


def test_grouped_transposed_conv(build, apply) -> None:
    model = build(
        """g (float[1, 4, 5, 5] x) => (float[1, 6, 7, 7] y) {
            c = ConvTranspose <group = 2> (x, w)  y = BatchNormalization (c, s, b, m, v)
        }""",
        weights={"w": weight(4, 3, 3, 3), **vectors(6)},
    )
    assert ops(apply(FoldBatchnorm(), model)) == ["ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_row_as_bias(build, apply, transposed: int) -> None:
    model = build(
        f"""g (float[2, 3] x) => (float[2, 4] y) {{
            c = Gemm <transB = {transposed}, alpha = 0.5> (x, w, k)  y = BatchNormalization (c, s, b, m, v)
        }}""",
        weights={"w": weight(4, 3) if transposed else weight(3, 4), "k": weight(1, 4), **vectors(4)},
    )
    assert ops(apply(FoldBatchnorm(), model)) == ["Gemm"]


def test_shared_weight_is_copied(build, apply) -> None:
    model = build(
        """g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y) {
            c = Conv(x, w)  n = BatchNormalization (c, s, b, m, v)  y = Conv(n, w)
        }""",
        weights={"w": weight(4, 4, 1, 1), **vectors(4)},
    )
    after = apply(FoldBatchnorm(), model)
    assert after.graph.node[0].input[1] != after.graph.node[1].input[1] == "w"


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w)  n = BatchNormalization (c, s, b, m, v)  y = Add(c, n)",
        "c = Relu(x)  y = BatchNormalization (c, s, b, m, v)",
        "c = Conv(x, w)  k = Relu(s)  y = BatchNormalization (c, k, b, m, v)",
    ],
    ids=["another reader", "no layer", "computed scale"],
)
def test_what_stays(build, unchanged, body: str) -> None:
    text = f"g (float[1, 4, 5, 5] x) => (float[1, 4, 5, 5] y) {{ {body} }}"
    unchanged(FoldBatchnorm(), build(text, weights={"w": weight(4, 4, 1, 1), **vectors(4)}))


def test_reference_model_is_the_same_function() -> None:
    model = onnxprune.load(MODELS / "depthwise_torchscript.onnx")
    result = PassManager([FoldBatchnorm()], Check.EQUALITY).run(model)
    assert "BatchNormalization" not in ops(result.model)
