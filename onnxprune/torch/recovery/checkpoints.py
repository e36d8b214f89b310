"""Where a recovery stands, on disk: complete or not there, and of no use to another recovery."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.errors import CheckpointError
from onnxprune.torch.checkpoint import read_checkpoint, write_checkpoint

_FORMAT = "onnxprune recovery 2"
_WHAT = {"student": "another pruned model", "teacher": "another original", "samples": "other samples"}


@dataclass(frozen=True)
class Checkpoint:
    """The file of a recovery, what identifies it (names of things, and values), and whether to go on from the file."""

    path: Path
    identity: Mapping[str, str]
    resume: bool = False


@dataclass(frozen=True)
class Standing:
    """All that the next step depends on, and the best weights so far; ``states`` are the measured ones, as data."""

    step: int
    seconds: float
    states: list[dict[str, Any]]
    best: int
    best_weights: dict[str, Any]
    module: dict[str, Any]
    average: dict[str, Any]
    optimizer: dict[str, Any]
    rng: Mapping[str, Any]
    order: list[int]
    turn: int


def save(checkpoint: Checkpoint, standing: Standing) -> None:
    """Write the file, atomically: a kill leaves the one before. Raises CheckpointError."""
    fields = {name: getattr(standing, name) for name in standing.__dataclass_fields__}
    content = {
        "format": _FORMAT,
        "identity": dict(checkpoint.identity),
        # Numbers of a generator are too large for what PyTorch reads safely.
        **fields,
        "rng": json.dumps(standing.rng),
    }
    write_checkpoint(checkpoint.path, content)


def load(checkpoint: Checkpoint) -> Standing:
    """Read the file of this very recovery.

    Raises:
        CheckpointError: it is missing, damaged, or of other models, samples or settings.
    """
    path = checkpoint.path
    content = read_checkpoint(path, _FORMAT, "a recovery", "recover without resuming")
    try:
        for name, value in checkpoint.identity.items():
            if content["identity"].get(name) != value:
                what = _WHAT.get(name, f"a recovery with {name} {content['identity'].get(name)} and not {value}")
                advice = "resume with the same, or recover without resuming"
                raise CheckpointError(f"checkpoint {path} is of {what}; {advice}")
        rng = json.loads(content["rng"])
        fields = {name: content[name] for name in Standing.__dataclass_fields__}
        return Standing(**{**fields, "rng": rng})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); recover without resuming") from error


def remove(checkpoint: Checkpoint) -> None:
    """A recovery that has come to its end needs no file."""
    checkpoint.path.unlink(missing_ok=True)
