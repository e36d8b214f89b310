"""StoppedError trainings go on as if nothing had happened, and checkpoints are whole or not there."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from onnxprune.data import Data
from onnxprune.errors import CheckpointError
from onnxprune.torch import Callback, Recipe, Training, train
from onnxprune.torch.training import checkpoints

from .support import assert_equal_weights, classifier, data, linear, squares

RECIPE = Recipe(epochs=4, lr=1e-2, batch_size=32, patience=3)


class StoppedError(Exception):
    """What a test raises in the middle of a training."""


class Stopping(Callback):
    """Raises in a given epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def stepped(self, step: Any) -> None:
        if step.epoch == self._epoch:
            raise StoppedError


def curve(training: Training) -> list[Any]:
    """The history without its times."""
    return [replace(epoch, seconds=0.0) for epoch in training.history]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_resuming_gives_the_same_curve_to_the_bit(tmp_path: Path, optimizer: str, epoch: int) -> None:
    model, samples, file = classifier(norm=True, dropout=True), data(100), tmp_path / "state"
    recipe = replace(RECIPE, optimizer=optimizer)  # type: ignore[arg-type]
    whole = train(model, samples, recipe)
    with pytest.raises(StoppedError):
        train(model, samples, recipe, checkpoint=file, callbacks=[Stopping(epoch)])
    torch.manual_seed(epoch)  # the state of other random numbers is of no account
    resumed = train(model, samples, recipe, checkpoint=file, resume=file)
    assert curve(resumed) == curve(whole)
    assert resumed.kept == whole.kept
    assert_equal_weights(resumed.model, whole.model)
    again = train(model, samples, recipe, resume=file)
    assert_equal_weights(again.model, whole.model)


def test_a_fresh_start_is_resumed_too(tmp_path: Path) -> None:
    model, samples, file = classifier(), data(64), tmp_path / "state"
    recipe = replace(RECIPE, start="from-scratch", restore_batchnorm=True)
    whole = train(model, samples, recipe)
    with pytest.raises(StoppedError):
        train(model, samples, recipe, checkpoint=file, callbacks=[Stopping(2)])
    assert_equal_weights(train(model, samples, recipe, resume=file).model, whole.model)


def saved(tmp_path: Path) -> Path:
    file = tmp_path / "state"
    train(classifier(), data(64), replace(RECIPE, epochs=1), checkpoint=file)
    return file


def test_checkpoints_of_another_training_are_refused(tmp_path: Path) -> None:
    file, recipe = saved(tmp_path), replace(RECIPE, epochs=1)
    with pytest.raises(CheckpointError, match="is of another model"):
        train(classifier(seed=1), data(64), recipe, resume=file)
    with pytest.raises(CheckpointError, match="is of another model"):
        train(classifier(norm=True), data(64), recipe, resume=file)
    with pytest.raises(CheckpointError, match="is of other data"):
        train(classifier(), data(96), recipe, resume=file)
    with pytest.raises(CheckpointError, match="is of another teacher"):
        train(classifier(), data(64), recipe, teacher=classifier(), resume=file)
    with pytest.raises(CheckpointError, match=r"was made with lr 0\.01 and not 0\.02"):
        train(classifier(), data(64), replace(recipe, lr=0.02), resume=file)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    file, recipe = saved(tmp_path), replace(RECIPE, epochs=1)

    def refused(match: str) -> None:
        with pytest.raises(CheckpointError, match=match):
            train(classifier(), data(64), recipe, resume=file)

    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"text"):
        file.write_bytes(damaged)
        refused("is no checkpoint, or damaged")
    buffer = io.BytesIO()
    torch.save({"weights": torch.zeros(2)}, buffer)
    file.write_bytes(buffer.getvalue())
    refused("is no checkpoint of onnxprune")
    file.unlink()
    refused("there is no checkpoint")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("identity", None),
        ("identity", {}),
        ("identity", {"model": 1}),
        ("history", None),
        ("history", [1]),
        ("history", [{}]),
        ("history", [{"index": 0, "lr": "x", "train": {}, "test": None, "seconds": 0}]),
        ("best_epoch", "one"),
        ("best_epoch", 99),
        ("best_epoch", -2),
        ("module", None),
        ("module", {"nobody": torch.zeros(1)}),
        ("module", {"nobody": "knows"}),
        ("optimizer", []),
        ("optimizer", {"state": 1, "param_groups": "x"}),
        ("best", {"weight": torch.zeros(99)}),
    ],
)
def test_checkpoints_that_somebody_made_up(tmp_path: Path, name: str, value: Any) -> None:
    file, recipe = saved(tmp_path), replace(RECIPE, epochs=1)
    content = torch.load(file, weights_only=True)
    for change in ({**content, name: value}, {key: part for key, part in content.items() if key != name}):
        torch.save(change, file)
        with pytest.raises(CheckpointError, match=r"damaged|do not fit|another model"):
            train(classifier(), data(64), recipe, resume=file)


def test_the_model_is_no_place_for_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    classifier().save(path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="is a file of the model"):
        train(path, data(64), RECIPE, checkpoint=path)
    assert path.read_bytes() == before


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path)
    before = file.read_bytes()
    write = torch.save

    def half(content: Any, stream: Any) -> None:
        buffer = io.BytesIO()
        write(content, buffer)
        stream.write(buffer.getvalue()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(CheckpointError, match=r"cannot write checkpoint .*No space left"):
        train(classifier(), data(64), replace(RECIPE, seed=1), checkpoint=file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_no_pickled_code_is_run(tmp_path: Path) -> None:
    file = tmp_path / "state"
    torch.save({"format": Stopping(0)}, file)
    with pytest.raises(CheckpointError, match="is no checkpoint, or damaged"):
        train(classifier(), data(64), RECIPE, resume=file)


_ENDLESS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.torch.training.support import classifier, data
from tests.torch.training.test_checkpoints import LONG
from onnxprune.torch import train
train(classifier(dropout=True), data(64), LONG, checkpoint=Path(sys.argv[1]))
"""
LONG = replace(RECIPE, epochs=30, patience=None)


def test_a_killed_process_is_resumed(tmp_path: Path) -> None:
    file = tmp_path / "state"
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen([sys.executable, "-c", _ENDLESS, str(file), root], cwd=root)
    end = time.monotonic() + 100
    while not file.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert file.exists()
    model, samples = classifier(dropout=True), data(64)
    identity = checkpoints.Identity(checkpoints.digest(model), samples.digest, "", LONG.to_dict())
    done = len(checkpoints.load(file, identity).history)
    assert 0 < done < LONG.epochs
    whole, resumed = train(model, samples, LONG), train(model, samples, LONG, resume=file)
    assert curve(resumed) == curve(whole)
    assert_equal_weights(resumed.model, whole.model)


def test_unrelated_models_and_samples_have_digests_of_their_own() -> None:
    digests = {checkpoints.digest(model) for model in (classifier(), classifier(seed=1), linear(), None)}
    assert len(digests) == 4
    assert Data(squares(4), None).digest == ""
