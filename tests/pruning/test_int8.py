"""``prune --int8``: the chain from the original to integers, each step with its proof."""

import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.ir.provenance import steps_of
from onnxprune.pruning.options import JobOptions, PlanOptions
from onnxprune.pruning.pipeline import run
from onnxprune.pruning.quantization import quantizing, selecting

from .quantization.networks import network, samples


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (quantizing, selecting):
        monkeypatch.setattr(module, "seconds_of", lambda models, *rest: [1.0, 0.5])
    monkeypatch.setattr(selecting, "layer_seconds", lambda *_: {})


def test_the_chain_has_both_certificates() -> None:
    job = JobOptions(calibration=samples(), int8=True, compensate="none")
    made = run(network(), PlanOptions(channels=0.25), job)
    assert made.certificate
    assert made.quantization is not None
    assert made.quantization.certificate
    assert [step["step"] for step in steps_of(made.model)] == ["prune", "quantize"]
    assert any(node.op_type == "QuantizeLinear" for node in made.model.graph.node)
    assert made.fidelity is not None


def test_int8_needs_data() -> None:
    with pytest.raises(UsageError, match="int8 needs calibration data"):
        onnxprune.compress(network(), channels=0.25, int8=True)


def test_what_becomes_integers_is_told_as_to_quantize() -> None:
    options = {"channels": 0.25, "int8": True, "compensate": "none", "calibration": samples()}
    made = onnxprune.compress(network(), **options, method="minmax", keep_float="*Gemm", max_drop=0.5)
    assert made.quantization is not None
    assert made.quantization.floats == {"node9_Gemm": "asked for"}
    assert made.quantization.method == "minmax"
    with pytest.raises(UsageError, match="layer 'node9_Gem' is not known; did you mean node9_Gemm"):
        onnxprune.compress(network(), **options, keep_float="node9_Gem")
    with pytest.raises(UsageError, match="keep_float, max_drop say how layers become int8"):
        onnxprune.compress(network(), channels=0.25, keep_float="*Gemm", max_drop=0.1)
    strict = onnxprune.compress(network(), **options, max_drop=1e-9)
    assert strict.quantization is not None
    assert not strict.quantization.layers
