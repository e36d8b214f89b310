"""Factors between layers: where they may be, that nothing changes in floats, and that integers are closer then."""

from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.analysis.analyzing import analyze
from onnxprune.data.fidelity import outputs_of
from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model
from onnxprune.pruning.quantization import equalising, quantizing, selecting
from onnxprune.pruning.quantization.equalising import stretches, with_equalised_channels
from onnxprune.pruning.quantization.options import QuantizeOptions
from onnxprune.pruning.quantization.preparing import prepare

from .networks import samples


def chain(between: str = "Relu(c)") -> Model:
    """A convolution, something, a depthwise one, another; channels of very different size in between."""
    proto = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
    net (float[N, 3, 12, 12] x) => (float[N, 5, 12, 12] y) {{
        c = Conv<kernel_shape = [1, 1]>(x, w1, b1)
        r = {between}
        d = Conv<pads = [1, 1, 1, 1], kernel_shape = [3, 3], group = 16>(r, w2, b2)
        e = Relu(d)
        y = Conv<kernel_shape = [1, 1]>(e, w3, b3)
    }}""")
    rng = np.random.default_rng(0)
    sizes = 2.0 ** rng.integers(-5, 6, 16)
    values: dict[str, Any] = {
        "w1": rng.standard_normal((16, 3, 1, 1)) * sizes[:, None, None, None],
        "b1": rng.standard_normal(16) * sizes,
        "w2": rng.standard_normal((16, 1, 3, 3)),
        "b2": rng.standard_normal(16) * sizes,
        "w3": rng.standard_normal((5, 16, 1, 1)) / sizes[None, :, None, None],
        "b3": rng.standard_normal(5),
        "half": np.full(1, 0.5),
    }
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()
    )
    return onnxprune.load(proto)


@pytest.mark.parametrize(
    ("between", "count"),
    [
        ("Relu(c)", 2),
        ("LeakyRelu(c)", 2),
        ("MaxPool<kernel_shape = [1, 1]>(c)", 2),
        ("Add(c, c)", 2),
        ("Max(c, half)", 1),
        ("Sigmoid(c)", 1),
        ("Clip(c, half)", 1),
        ("Mul(c, c)", 1),
    ],
)
def test_factors_go_where_nothing_minds(between: str, count: int) -> None:
    model = prepare(chain(between), samples())
    assert len([*stretches(analyze(model))]) == count
    even, found = with_equalised_channels(model, samples())
    assert found == count
    before, after = (outputs_of(one, samples(), "it")["y"] for one in (model, even))
    # Powers of two: equal to the bit.
    np.testing.assert_array_equal(before, after)
    assert any((even.weights[n].array != model.weights[n].array).any() for n in ("w1", "w2", "w3"))


def test_sums_and_pooling_take_the_factors_of_all() -> None:
    proto = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    net (float[N, 3, 12, 12] x) => (float[N, 5, 1, 1] y) {
        a = Conv<kernel_shape = [1, 1]>(x, w1)
        b = Conv<kernel_shape = [1, 1]>(x, w2)
        s = Add(a, b)
        r = Relu(s)
        p = GlobalAveragePool(r)
        y = Conv<kernel_shape = [1, 1]>(p, w3)
    }""")
    rng = np.random.default_rng(1)
    for name, shape in {"w1": (16, 3, 1, 1), "w2": (16, 3, 1, 1), "w3": (5, 16, 1, 1)}.items():
        values = (rng.standard_normal(shape) * 2.0 ** rng.integers(-4, 5, shape)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    model = prepare(onnxprune.load(proto), samples())
    (stretch,) = stretches(analyze(model))
    assert (len(stretch.writers), len(stretch.readers)) == (2, 1)
    even, count = with_equalised_channels(model, samples())
    assert count == 1
    before, after = (outputs_of(one, samples(), "it")["y"] for one in (model, even))
    np.testing.assert_array_equal(before, after)


def test_what_somebody_else_reads_stays() -> None:
    model = prepare(chain(), samples())
    draft = model.edit()
    draft.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info("r", 1, ["N", 16, 12, 12]))
    assert len([*stretches(analyze(draft.finish()))]) == 1


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (quantizing, selecting):
        monkeypatch.setattr(module, "seconds_of", lambda models, *rest: [1.0, 0.5])
    monkeypatch.setattr(selecting, "layer_seconds", lambda *_: {})


@pytest.mark.usefixtures("faster")
def test_integers_are_closer_where_channels_differ_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    options = QuantizeOptions(method="minmax")
    made = quantizing.quantise_model(chain(), samples(), samples(1), options)
    assert made.equalised == 2
    assert made.certificate
    monkeypatch.setattr(quantizing, "with_equalised_channels", lambda model, _: (model, 0))
    plain = quantizing.quantise_model(chain(), samples(), samples(1), options)
    assert plain.equalised == 0
    assert made.loss.sqnr["y"] > plain.loss.sqnr["y"] + 3


@pytest.mark.usefixtures("faster")
def test_factors_that_change_the_model_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = equalising._scale

    def wrong(draft: Any, graph: Any, stretch: equalising.Stretch, factors: Any) -> None:
        real(draft, graph, equalising.Stretch(stretch.writers, ()), factors)

    monkeypatch.setattr(equalising, "_scale", wrong)
    with pytest.raises(VerificationError, match="equal ranges of channels would change the float model"):
        quantizing.quantise_model(chain(), samples(), samples(1), QuantizeOptions(method="minmax"))
