"""``onnxprune train --gates``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import onnxprune
from onnxprune.pruning.plan import Plan
from tests.torch.training.support import classifier, squares

from .support import done, done_json, refused

QUICK = ("--epochs", 1, "--lr", 0.02, "--batch-size", 16, "--gate-epochs", 2)


@pytest.fixture
def ends(tmp_path: Path) -> tuple[object, ...]:
    """A model, where to write, and samples."""
    classifier(norm=True).save(tmp_path / "model.onnx")
    train, test = squares(256), squares(64, seed=1)
    samples = {"x_train": train.inputs["x"], "y_train": train.targets}
    np.savez(tmp_path / "data.npz", **samples, x_test=test.inputs["x"], y_test=test.targets)
    return tmp_path / "model.onnx", "-o", tmp_path / "out.onnx", "--data", tmp_path / "data.npz", *QUICK


def test_learns_what_to_remove(ends: tuple[object, ...], tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    report = done_json("train", *ends, "--gates", "channels", "--reduce", 0.5, "--round-to", 1, "--plan-out", plan)
    before, after = (onnxprune.analyze(tmp_path / f"{name}.onnx").totals["flops"] for name in ("model", "out"))
    assert after <= 0.5 * before
    told = report["gates"]
    assert (told["before"]["flops"], told["after"]["flops"]) == (before, after)
    assert told["certificate"]["passed"]
    assert report["after"]["accuracy"] > 0.9
    assert Plan.load(plan).removed
    assert not (tmp_path / "out.onnx.checkpoint").exists()


def test_time_is_a_budget(ends: tuple[object, ...], tmp_path: Path) -> None:
    text = done("train", *ends, "--gates", "channels", "--mode", "latency", "--reduce", 0.1, "--round-to", 1)
    before, after = (onnxprune.analyze(tmp_path / f"{name}.onnx").totals["flops"] for name in ("model", "out"))
    assert after < before
    assert "Certificate passed" in text
    assert "MACs: " in text


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--gates", "channels"), "--reduce"),
        (("--gates", "channels", "--reduce", 0.5, "--gate-lr", 1e-4, "--gate-epochs", 1), "did not close"),
        (("--gates", "channels", "--reduce", 0.999), "cannot"),
        (("--gates", "bits", "--reduce", 0.5), "bits"),
    ],
)
def test_what_cannot_be_writes_nothing(
    ends: tuple[object, ...], tmp_path: Path, options: tuple[object, ...], word: str
) -> None:
    code = 2 if word in ("--reduce", "bits") else 1
    assert word in refused(code, "train", *ends, *options)
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "data.npz"}


@pytest.mark.parametrize(
    "option",
    [
        ("--reduce", 0.5),
        ("--mode", "params"),
        ("--floor", 0.2),
        ("--round-to", 1),
        ("--exclude", "conv*"),
        ("--gate-epochs", 2),
        ("--gate-lr", 0.1),
        ("--plan-out", "plan.json"),
    ],
)
def test_what_is_said_of_gates_is_not_dropped_where_there_are_none(
    ends: tuple[object, ...], option: tuple[object, ...]
) -> None:
    plain = ends[: -len(QUICK)]
    assert refused(2, "train", *plain, *option).startswith(f"error: {option[0]}: without gates")


def test_all_that_is_said_of_gates_is_named(ends: tuple[object, ...]) -> None:
    assert "--reduce, --gate-epochs: without" in refused(2, "train", *ends, "--reduce", 0.5)
