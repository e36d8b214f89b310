"""``prune --int8``: the chain from the original to integers, each step with its proof."""

import pytest

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.ir.provenance import steps_of
from onnxprune.pruning.options import JobOptions, PlanOptions
from onnxprune.pruning.pipeline import run
from onnxprune.pruning.quantization import quantizing, selecting

from .quantization.networks import network, samples


def test_the_chain_has_both_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (quantizing, selecting):
        monkeypatch.setattr(module, "seconds_of", lambda models, *rest: [1.0, 0.5])
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
