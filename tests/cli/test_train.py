"""``onnxprune train`` and ``compress``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnxprune
from onnxprune.cli.training import Job
from onnxprune.data.evaluation import evaluate
from onnxprune.errors import TrainingError
from onnxprune.torch import Callback
from onnxprune.torch.training import loop
from tests.torch.training.support import classifier, data, squares

from .support import done, done_json, refused, run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    classifier(norm=True).save(file)
    return file


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """256 samples to learn from and 64 others."""
    return stored(tmp_path / "data.npz")


def stored(file: Path, **changes: Any) -> Path:
    train, test = squares(256), squares(64, seed=1)
    arrays = {
        "x_train": train.inputs["x"],
        "y_train": train.targets,
        "x_test": test.inputs["x"],
        "y_test": test.targets,
    }
    np.savez(file, **{**arrays, **changes})
    return file


QUICK = ("--epochs", 6, "--lr", 0.02, "--batch-size", 32)


def files(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_trains_a_file(model: Path, samples: Path, tmp_path: Path) -> None:
    out, metrics = tmp_path / "out.onnx", tmp_path / "metrics.json"
    report = done_json("train", model, "-o", out, "--data", samples, *QUICK, "--metrics-out", metrics)
    held_out = data(256, 64).test
    assert held_out is not None
    score = evaluate(out, held_out)
    assert report["after"] == score.to_dict()
    assert score.accuracy is not None
    assert score.accuracy > 0.9 > report["before"]["accuracy"]
    assert len(report["epochs"]) == 6
    assert json.loads(metrics.read_text()) == report
    assert onnxprune.load(out).skeleton == onnxprune.load(model).skeleton
    assert files(tmp_path) == {"model.onnx", "data.npz", "out.onnx", "metrics.json"}


def test_says_how_it_goes(model: Path, samples: Path, tmp_path: Path) -> None:
    text = done("train", model, "-o", tmp_path / "out.onnx", "--data", samples, *QUICK)
    lines = text.splitlines()
    assert [line.partition(":")[0] for line in lines[:6]] == [f"Training, epoch {n}" for n in range(1, 7)]
    assert "held out: loss" in lines[0]
    assert "%" in lines[0]
    assert lines[-1].startswith("Wrote ")


def test_goes_on_where_it_was_interrupted(
    model: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.onnx", tmp_path / "out.onnx"
    done("train", model, "-o", whole, "--data", samples, *QUICK)

    def stop(self: Callback, epoch: Any) -> None:
        if epoch.index == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.checkpoints, "save", _saving_then(stop))
        assert run("train", model, "-o", out, "--data", samples, *QUICK).exit_code == 130
    assert not out.exists()
    assert (tmp_path / "out.onnx.checkpoint").exists()
    assert "was made with lr 0.02" in refused(
        2, "train", model, "-o", out, "--data", samples, *QUICK, "--lr", 0.5, "--resume"
    )

    done("train", model, "-o", out, "--data", samples, *QUICK, "--resume")
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "out.onnx.checkpoint").exists()


def _saving_then(stop: Any) -> Any:
    save = loop.checkpoints.save

    def saving(path: Path, identity: Any, progress: Any) -> None:
        save(path, identity, progress)
        stop(None, progress.history[-1])

    return saving


def test_a_loss_that_is_not_finite_writes_nothing(model: Path, tmp_path: Path) -> None:
    bad = stored(tmp_path / "bad.npz")
    message = refused(1, "train", model, "-o", tmp_path / "out.onnx", "--data", bad, "--lr", 1e30)
    assert "training has diverged, nothing was written" in message
    assert files(tmp_path) <= {"model.onnx", "bad.npz", "out.onnx.checkpoint"}


def test_data_that_does_not_fit(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"

    def message(file: Path | str) -> str:
        return refused(2, "train", model, "-o", out, "--data", file, "--epochs", 1)

    outside = stored(tmp_path / "outside.npz", y_train=np.full(256, 9))
    assert "label 9 is outside of the model's 4 classes" in message(outside)
    small = stored(tmp_path / "small.npz", x_train=np.zeros((256, 1, 5, 5), np.float32))
    assert "x" in message(small)
    words = stored(tmp_path / "words.npz", x_train=np.full((256, 1, 8, 8), "a"))
    message(words)
    few = stored(tmp_path / "few.npz", y_train=np.zeros(7, np.int64))
    assert "256 samples and 7 labels" in message(few)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "has no images" in message(empty)
    assert "does not exist" in message(tmp_path / "missing.npz")
    assert not out.exists()


def test_a_damaged_image(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    for name in "abcd":
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "data" / name / "good.png")
    damaged = tmp_path / "data" / "b" / "bad.png"
    damaged.write_bytes((tmp_path / "data" / "a" / "good.png").read_bytes()[:40])
    classifier().save(tmp_path / "model.onnx")
    out = tmp_path / "out.onnx"
    message = refused(2, "train", tmp_path / "model.onnx", "-o", out, "--data", tmp_path / "data", "--epochs", 1)
    assert "bad.png cannot be read" in message
    assert not out.exists()


def test_wrong_settings(model: Path, samples: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    base = ("train", model, "-o", out, "--data", samples)
    assert "choose one of adamw, adam, sgd" in refused(2, *base, "--optimizer", "lion")
    assert "precision 'int8' is not known" in refused(2, *base, "--amp", "int8")
    assert "is an input" in refused(2, "train", model, "-o", model, "--data", samples)
    assert "there is no checkpoint" in refused(2, *base, "--resume")
    assert "named for two outputs" in refused(2, *base, "--metrics-out", out)
    assert "device 'tpu9' cannot be used" in refused(2, *base, "--device", "tpu9")


@pytest.mark.parametrize("command", ["train", "compress"])
def test_without_torch(
    command: str, model: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "onnxprune.torch" or name.startswith("onnxprune.torch.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    option = ("--data", samples) if command == "train" else ("--train", samples, "--reduce", 0.5)
    message = refused(2, command, model, "-o", tmp_path / "out.onnx", *option)
    assert "pip install 'torch>=2.4'" in message


def test_compresses_beside_the_unpruned_model(samples: Path, tmp_path: Path) -> None:
    model, out, metrics = (tmp_path / name for name in ("model.onnx", "out.onnx", "metrics.json"))
    classifier().save(model)
    words = ("compress", model, "-o", out, "--train", samples, "--reduce", 0.5, *QUICK, "--metrics-out", metrics)
    text = done(*words, "--baseline")
    report = json.loads(metrics.read_text())
    held_out = data(256, 64).test
    assert held_out is not None
    assert report["pruned"]["test"] == evaluate(out, held_out).to_dict()
    assert report["pruned"]["costs"]["flops"] <= 0.5 * report["unpruned"]["costs"]["flops"]
    assert onnxprune.analyze(out).totals["flops"] == report["pruned"]["costs"]["flops"]
    assert report["unpruned"]["test"]["accuracy"] > 0.9
    assert report["pruned"]["test"]["accuracy"] > 0.6
    assert report["certificate"]["passed"]
    for title in ("parameters", "MACs", "memory", "training time", "held-out accuracy"):
        assert title in text
    assert "points" in text
    assert files(tmp_path) == {"model.onnx", "data.npz", "out.onnx", "metrics.json"}


def test_a_compression_that_was_interrupted_goes_on(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, whole, out = (tmp_path / name for name in ("model.onnx", "whole.onnx", "out.onnx"))
    classifier(norm=True).save(model)
    words = ("--train", samples, "--reduce", 0.5, *QUICK, "--baseline")
    before = files(tmp_path)
    assert "there is no checkpoint" in refused(2, "compress", model, "-o", out, *words, "--resume")
    done("compress", model, "-o", whole, *words)

    trained: list[str] = []
    train = Job.train

    def interrupted(job: Job, title: str, *arguments: Any, **options: Any) -> Any:
        if title == "Unpruned":
            raise TrainingError("the power is out")
        return train(job, title, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "train", interrupted)
        assert run("compress", model, "-o", out, *words).exit_code == 1
    assert files(tmp_path) == before | {"whole.onnx", "out.onnx.checkpoint"}

    def counted(job: Job, title: str, *arguments: Any, **options: Any) -> Any:
        trained.append(f"{title}: {'resumed' if options['resume'] else 'new'}")
        return train(job, title, *arguments, **options)

    monkeypatch.setattr(Job, "train", counted)
    done("compress", model, "-o", out, *words, "--resume")
    assert trained == ["Pruned: resumed", "Unpruned: new"]
    assert out.read_bytes() == whole.read_bytes()
    assert files(tmp_path) == before | {"whole.onnx", "out.onnx"}


def test_advises_to_restore_batchnorm(samples: Path, tmp_path: Path) -> None:
    file = tmp_path / "folded.onnx"
    classifier().save(file)
    words = ("compress", file, "-o", tmp_path / "out.onnx", "--train", samples, "--reduce", 0.3, *QUICK)
    assert "--restore-batchnorm usually trains better" in done(*words)
    assert "--restore-batchnorm usually" not in done(*words, "--restore-batchnorm")
    result = onnxprune.load(tmp_path / "out.onnx")
    assert not any(node.op_type == "BatchNormalization" for node in result.graph.node)


def test_compress_needs_a_budget(model: Path, samples: Path, tmp_path: Path) -> None:
    words = ("compress", model, "-o", tmp_path / "out.onnx", "--train", samples)
    assert "give a budget" in refused(2, *words)
    assert refused(1, *words, "--max-params", 1)
    assert not (tmp_path / "out.onnx").exists()


def test_a_surrogate_that_no_threshold_takes_is_told(model: Path, samples: Path, tmp_path: Path) -> None:
    words = ("train", model, "-o", tmp_path / "out.onnx", "--data", samples, "--epochs", 1)
    line = "--surrogate atan changes nothing: the model has no threshold."
    gates = ("--gates", "channels", "--reduce", 0.5, "--round-to", 1, "--gate-epochs", 4)
    for more in ((), ("--lr", 0.02, "--batch-size", 16, *gates)):
        assert line in done(*words, "--force", "--surrogate", "atan", *more)
    assert "changes nothing" not in done(*words, "--force")
