"""``auto``: levers searched together, and only what keeps all promises is given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.data.samples import Samples
from onnxprune.errors import AnswersError, BudgetError, DataError, UsageError
from onnxprune.exploration.auto import auto
from onnxprune.pruning.options import AutoOptions

VGG = Path(__file__).parents[2] / "models" / "vgg_dynamo.onnx"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pruning.promising._HALVINGS", 3)


def images(count: int = 400) -> Samples:
    pictures = np.random.default_rng(0).normal(0.3, 0.3, (count, 1, 28, 28)).astype(np.float32)
    return Samples({"image": pictures}, None, 1, fixed=True)


def test_the_best_keeps_all_promises() -> None:
    size = onnxprune.load(VGG).file_size
    found = auto(VGG, calibration=images(), max_loss=0.2, max_flash=0.9 * size, levers="channels", minutes=1)
    assert found.kept.bound.upper <= 0.2
    assert found.model.file_size <= 0.9 * size
    assert found.best.certificate
    assert not found.chosen.over(found.options)
    tested = [trial for trial in found.kept.trials if trial.bound is not None]
    assert found.chosen.seconds == min(t.made.seconds for t in tested if t.bound and t.bound.upper <= 0.2)
    assert f"--reduce {found.chosen.reduce:.6g}" in found.command(VGG, Path("out.onnx"))
    json.dumps(found.to_dict())


def test_without_a_loss_the_budget_holds_and_the_loss_is_measured() -> None:
    size = onnxprune.load(VGG).file_size
    found = auto(VGG, calibration=images(), max_flash=0.7 * size, levers="channels", minutes=1)
    assert found.model.file_size <= 0.7 * size
    assert "Not promised, but measured" in found.sentences[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"calibration": images(9)}, UsageError, "promise something"),
        ({"max_loss": 0.1}, UsageError, "give data"),
        ({"max_loss": 0.1, "calibration": images(9), "levers": "int9"}, UsageError, "did you mean int8"),
        ({"max_loss": 0.01, "calibration": images(100)}, DataError, "at least 299"),
        ({"max_ram": 1000.0, "calibration": images(100)}, BudgetError, "inputs and outputs stay"),
    ],
)
def test_bad_wishes_are_told_before_any_work(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        auto(VGG, **options)  # type: ignore[arg-type]


def test_budgets_that_cannot_hold_name_the_nearest() -> None:
    with pytest.raises(BudgetError, match=r"the nearest .*the file has"):
        auto(VGG, calibration=images(100), max_flash=1000.0, levers="channels", minutes=1)


def test_a_loss_that_cannot_hold_names_the_nearest() -> None:
    with pytest.raises(AnswersError, match=r"nothing faster than the original|none of"):
        auto(VGG, calibration=images(3600), max_loss=0.0016, levers="channels", minutes=0.02)


def test_levers_are_a_list() -> None:
    assert AutoOptions(levers=" int8,int8, channels").pulled == ("int8", "channels")


def test_budgets_that_hold_as_it_is_change_nothing() -> None:
    found = auto(VGG, calibration=images(100), max_flash=1e9, levers="channels", minutes=1)
    assert found.chosen.reduce == 0
    assert found.model.proto == onnxprune.load(VGG).proto
