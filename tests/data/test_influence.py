"""What an error in a tensor does to the outputs: known answers, and what is not known."""

import numpy as np
import onnx
import pytest

from onnxprune.data.influence import influences
from onnxprune.data.samples import Samples, collect
from onnxprune.ir.model import Model, as_model
from onnxprune.passes.normalize import normalize


def _model(batch: str = "N") -> Model:
    """y = a + 0.1·b for two unit layers a and b that read x, and a third branch that nothing of y depends on."""
    model = onnx.parser.parse_model(f"""
    <ir_version: 8, opset_import: ["": 17]>
    small (float[{batch}, 3] x) => (float[{batch}, 3] y) <float[1] tenth = {{0.1}}> {{
        a = MatMul(x, eye)
        b = MatMul(x, eye2)
        c = MatMul(x, eye3)
        less = Mul(b, tenth)
        nothing = Sub(c, c)
        sum = Add(a, less)
        y = Add(sum, nothing)
    }}
    """)
    for name in ("eye", "eye2", "eye3"):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), name))
    return normalize(as_model(model))


def _samples(model: Model, count: int = 32) -> Samples:
    # Far from probabilities, and of one width: not read as classes that win or lose.
    return collect({"x": np.random.default_rng(0).normal(5, 1, (count, 3)).astype(np.float32)}, model, count, step=8)


def test_influence_follows_what_later_nodes_make_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.data.influence.compare_outputs", _errors_only)
    model = _model()
    found = influences(model, _samples(model), {"a": 1, "b": 1, "c": 1})
    # y spreads 1.1 times as far as a: an error in it is 1/1.21 of it there, and one in b a hundredth of that.
    assert found["a"] == pytest.approx(1 / 1.21, rel=0.25)
    assert found["b"] == pytest.approx(found["a"] / 100, rel=1e-3)
    assert found["c"] == 0.0


def _errors_only(name: str, a: np.ndarray, b: np.ndarray):  # type: ignore[no-untyped-def]
    from onnxprune.data.fidelity import OutputFidelity

    return OutputFidelity(name, 1.0, float(np.square(a - b).mean() / np.square(a - a.mean(axis=0)).mean()))


def test_a_model_for_one_sample_at_once_gets_errors_from_other_samples() -> None:
    model = _model("1")
    assert influences(model, _samples(model), {"a": 1})["a"] > 0


def test_a_single_sample_tells_nothing() -> None:
    model = _model()
    assert influences(model, _samples(model, 1), {"a": 1}) == {}


def test_an_output_of_the_graph_counts_itself() -> None:
    model = _model()
    assert influences(model, _samples(model), {"y": 1})["y"] > 0
