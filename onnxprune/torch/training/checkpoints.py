"""Checkpoints: complete or not there, and of no use to another training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.errors import CheckpointError
from onnxprune.ir.digest import model_digest
from onnxprune.ir.model import Model
from onnxprune.torch.checkpoint import read_checkpoint, write_checkpoint
from onnxprune.torch.training.history import Epoch

_FORMAT = "onnxprune training 1"

State = dict[str, Any]


@dataclass(frozen=True)
class Identity:
    """What a training is: digests of model (graph and first weights), data and teacher, and the recipe."""

    model: str
    data: str
    teacher: str
    recipe: Mapping[str, Any]


@dataclass
class Progress:
    """Where a training stands after an epoch: everything that the next one depends on."""

    history: list[Epoch] = field(default_factory=list)
    module: State = field(default_factory=dict)
    optimizer: State = field(default_factory=dict)
    scaler: State = field(default_factory=dict)
    best: State = field(default_factory=dict)
    best_epoch: int = -1


def save(path: Path, identity: Identity, progress: Progress) -> None:
    """Write a checkpoint, atomically: a kill leaves the one before.

    Raises:
        CheckpointError: it cannot be written.
    """
    content = {
        "format": _FORMAT,
        "identity": _plain(identity),
        "history": [epoch.to_dict() for epoch in progress.history],
        **{name: getattr(progress, name) for name in ("module", "optimizer", "scaler", "best", "best_epoch")},
    }
    write_checkpoint(path, content)


def load(path: Path, identity: Identity) -> Progress:
    """Read the checkpoint of this very training.

    Raises:
        CheckpointError: it is missing, damaged, or of another model, recipe or data.
    """
    content = read_checkpoint(path, _FORMAT, "onnxprune", "train without resuming")
    try:
        _require(path, content["identity"], _plain(identity))
        history = [Epoch.from_dict(epoch) for epoch in content["history"]]
        states = {name: content[name] for name in ("module", "optimizer", "scaler", "best")}
        if not all(isinstance(state, dict) for state in states.values()):
            raise TypeError("a state is none")
        best_epoch = content["best_epoch"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); train without resuming") from error
    if type(best_epoch) is not int or not -1 <= best_epoch < len(history):
        raise CheckpointError(f"{path} is damaged (its best epoch is {best_epoch!r}); train without resuming")
    return Progress(history, **states, best_epoch=best_epoch)


def _require(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for part in ("model", "data", "teacher"):
        if found[part] != wanted[part]:
            what = {"model": "another model", "data": "other data", "teacher": "another teacher"}[part]
            raise CheckpointError(f"checkpoint {path} is of {what}; resume with the same, or train without resuming")
    changed = [name for name, value in wanted["recipe"].items() if found["recipe"].get(name) != value]
    if changed:
        name = changed[0]
        raise CheckpointError(
            f"checkpoint {path} was made with {name} {found['recipe'].get(name)} and not {wanted['recipe'][name]}; "
            "resume with the same settings, or train without resuming"
        )


def digest(model: Model | None) -> str:
    """A hash of graph and weights; empty for None."""
    return "" if model is None else model_digest(model)


def _plain(identity: Identity) -> dict[str, Any]:
    return {
        "model": identity.model,
        "data": identity.data,
        "teacher": identity.teacher,
        "recipe": dict(identity.recipe),
    }
