"""Latency of another machine, predicted from times that were recorded there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.data.samples import Samples
from onnxprune.errors import UsageError
from onnxprune.exploration.auto import auto
from onnxprune.ir.model import load
from onnxprune.latency.predicting import Elsewhere
from onnxprune.latency.times import record_times
from onnxprune.ops.substitutes import Kind
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.plan import Replacement
from onnxprune.pruning.substituting import replaced
from tests.cli.support import done_json, refused
from tests.latency.fakes import FakeMachine

RESIDUAL = Path("models/residual_torchscript.onnx")
SAMPLES = "models/fashion_sample.npz"
BLOCK = ("/stages/stages.0/Relu_1_output_0", "/stages/stages.1/second/second.0/Conv_output_0")


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    record_times(onnxprune.analyze(load(RESIDUAL)), machine=FakeMachine()).save(tmp_path / "times.json")
    # From here on nothing can be measured.
    monkeypatch.setattr("onnxprune.ir.timing.rounds", None, raising=False)
    monkeypatch.setattr("onnxprune.latency.machine.LocalMachine.rounds", None)
    return tmp_path / "times.json"


@pytest.mark.parametrize("kind", ["nothing", "identity", "affine", "pointwise"])
def test_what_is_less_a_region_takes_less(times: Path, kind: Kind) -> None:
    analysis = onnxprune.analyze(load(RESIDUAL))
    there = Elsewhere.load(str(times), analysis)
    full = there.of(analysis).total(analysis.costs.full)
    assert full == pytest.approx(there.unpruned)
    less = onnxprune.analyze(replaced(normalize(load(RESIDUAL)), [Replacement(*BLOCK, kind)]))
    saved = full - there.of(less).total(less.costs.full)
    # The region has a third of all work at most.
    assert 0 < saved < 0.4 * full


def test_other_models_are_refused(times: Path) -> None:
    with pytest.raises(UsageError, match="another model"):
        Elsewhere.load(str(times), onnxprune.analyze(load("models/vgg_torchscript.onnx")))


@pytest.mark.parametrize("levers", ["channels", "channels,regions"])
def test_a_latency_is_met_by_prediction_alone(times: Path, tmp_path: Path, levers: str) -> None:
    told: Any = done_json(
        *("prune", RESIDUAL, "-o", tmp_path / "o.onnx", "--times", times, "--mode", "latency", "--reduce", 0.3),
        *("--levers", levers, "--calibrate", SAMPLES, "--calibration-samples", 48, "--round-to", 1),
    )
    latency = told["latency"]
    assert latency["measured"] is None
    assert latency["times"] == str(times)
    assert latency["predicted"] <= 0.7 * latency["original"]
    assert told["bench"] is None
    result = onnxprune.analyze(load(tmp_path / "o.onnx"))
    assert result.totals["flops"] < 0.9 * told["before"]["flops"]


def test_what_times_cannot_tell_is_refused(times: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    line = refused(2, "prune", RESIDUAL, "-o", out, "--times", times, "--reduce", 0.3)
    assert "ask for one" in line
    line = refused(
        *(2, "prune", RESIDUAL, "-o", out, "--times", times, "--max-latency", "1ms", "--int8", "--calibrate", SAMPLES)
    )
    assert "measured here" in line


def test_auto_predicts_and_says_so(times: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pruning.promising._HALVINGS", 2)
    pictures = np.random.default_rng(0).normal(0.3, 0.3, (300, 1, 28, 28)).astype(np.float32)
    data = Samples({"image": pictures}, None, 1, fixed=True)
    found = auto(
        RESIDUAL, calibration=data, max_loss=0.5, max_latency=1e9, times=str(times), levers="channels,int8", minutes=1
    )
    assert "Predicted, not measured" in " ".join(found.sentences)
    assert "No int8" in " ".join(found.sentences)
    assert found.chosen.seconds == pytest.approx(found.best.plan.after["latency"])
    assert f"--mode latency --times {times}" in found.command(RESIDUAL, Path("o.onnx"))
