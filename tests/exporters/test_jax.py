"""Models that JAX exported (``make_jax.py``): channels last, attention by products of activations."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxprune

FOLDER = Path(__file__).parent


@pytest.mark.parametrize(("name", "most_left"), [("jax_cnn", 0.28), ("jax_attention", 0.30)])
def test_half_of_all_channels_go(name: str, most_left: float) -> None:
    model = onnxprune.load(FOLDER / f"{name}.onnx")
    analysis = onnxprune.analyze(model)
    assert not analysis.unknown
    plan = onnxprune.plan(analysis, channels=0.5)
    assert plan.after["flops"] <= most_left * plan.before["flops"]
    assert onnxprune.verify(model, onnxprune.apply(model, plan), plan).passed


@pytest.mark.parametrize("mode", ["params", "flops", "memory"])
@pytest.mark.parametrize("name", ["jax_cnn", "jax_attention"])
def test_budgets_are_met(name: str, mode: str) -> None:
    result = onnxprune.compress(FOLDER / f"{name}.onnx", mode=mode, reduce=0.4)
    assert result.plan.after[mode] <= 0.6 * result.plan.before[mode]
    assert result.certificate is not None
    assert result.certificate.passed
