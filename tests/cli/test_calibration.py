"""Pruning with calibration data on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.support import MODELS, RESIDUAL, VGG, done, done_json, run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A few images of Fashion-MNIST, half of them to evaluate with."""
    with np.load(MODELS / "fashion_sample.npz") as sample:
        order = np.random.default_rng(0).permutation(500)
        images, labels = sample["images"][order], sample["labels"][order]
    np.savez(
        tmp_path / "data.npz", x_train=images[:128], x_test=images[128:], y_train=labels[:128], y_test=labels[128:]
    )
    return tmp_path / "data.npz"


def test_refit_keeps_the_accuracy_and_the_report_says_so(tmp_path: Path, data: Path) -> None:
    common = ("prune", RESIDUAL, "--reduce", 0.4, "--allocation", "global", "--criterion", "refit", "--calibrate", data)
    plain = done_json(*common, "-o", tmp_path / "plain.onnx", "--compensate", "none")
    fitted = done_json(*common, "-o", tmp_path / "fitted.onnx")
    assert plain["compensation"] is None
    assert plain["certificate"]["passed"]
    assert fitted["certificate"]["passed"]
    assert fitted["compensation"]["method"] == "refit"
    assert fitted["compensation"]["samples"] == 128
    before, after = plain["fidelity"]["outputs"][0], fitted["fidelity"]["outputs"][0]
    assert fitted["fidelity"]["samples"] == 372
    assert after["accuracy_after"] > after["accuracy_before"] - 0.04
    assert after["agreement"] > before["agreement"]
    assert after["kl"] < 0.3 * before["kl"]
    text = done(*common, "-o", tmp_path / "again.onnx")
    assert "Compensation (refit) with 128 samples, after the certificate" in text
    assert "top-1 as the original's" in text


def test_a_scan_is_kept_and_counts(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    prune = ("prune", VGG, "--reduce", 0.4, "--allocation", "global", "--criterion", "refit", "--calibrate", data)
    assert "sensitivity scan" not in done(*prune, "-o", tmp_path / "a.onnx")
    scan = done_json("sensitivity", VGG, "--data", data)
    assert Path(scan["kept_in"]).is_relative_to(tmp_path / "cache")
    assert all(len(group["damage"]) == 3 for group in scan["groups"])
    assert "The sensitivity scan of this model and data counts, too." in done(*prune, "-o", tmp_path / "b.onnx")


def test_what_memory_and_samples_do_not_suffice_for_is_said(tmp_path: Path, data: Path) -> None:
    common = ("prune", VGG, "--reduce", 0.4, "--calibrate", data, "--calibration-samples", 8)
    text = " ".join(done(*common, "-o", tmp_path / "a.onnx").split())
    assert "Few samples for " in text
    assert " (8 rows for " in text
    scarce = done_json(*common, "-o", tmp_path / "b.onnx", "--memory", "10k")
    skipped = scarce["compensation"]["skipped"]
    assert skipped
    assert all("of memory at least" in reason for reason in skipped.values())


def test_what_is_missing_or_unknown_is_said(tmp_path: Path, data: Path) -> None:
    common = ("prune", RESIDUAL, "-o", tmp_path / "out.onnx", "--reduce", 0.4)
    for words, message in (
        (("--compensate", "refit"), "needs calibration data"),
        (("--calibrate", data, "--memory", "lots"), "'lots' is not a quantity"),
        (("--compensate", "magic", "--calibrate", data), "compensation 'magic' is not known"),
        (("--criterion", "taylor"), "criterion 'taylor' needs calibration data"),
        (("--calibrate", tmp_path / "none.npz"), "does not exist"),
    ):
        result = run(*common, *words)
        assert result.exit_code == 2, result.output
        assert message in " ".join(result.stderr.split())
        assert not (tmp_path / "out.onnx").exists()
