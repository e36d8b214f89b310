"""What training reports: figures of every epoch, and what a callback hears."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from onnxprune.data.evaluation import Score


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        index: counted from 0.
        lr: the learning rate of its last step.
        train: loss and accuracy over its batches, as they were when each was learnt.
        test: those on the held-out samples after it, or None without any.
        seconds: what the steps took, evaluation and checkpoint not included.
    """

    index: int
    lr: float
    train: Score
    test: Score | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Epoch:
        """What ``to_dict`` gave. Raises KeyError, TypeError or ValueError for anything else."""
        test = None if data["test"] is None else _score(data["test"])
        return Epoch(int(data["index"]), float(data["lr"]), _score(data["train"]), test, float(data["seconds"]))


def _score(data: dict[str, Any]) -> Score:
    accuracy = data["accuracy"]
    return Score(float(data["loss"]), None if accuracy is None else float(accuracy), int(data["samples"]))


@dataclass(frozen=True)
class Step:
    """One step: its number (from 1, over all epochs) of ``steps``, the epoch's number, and the epoch's mean so far."""

    number: int
    steps: int
    epoch: int
    loss: float
    accuracy: float | None


class Callback:
    """Hears how training goes; override what is of interest. Called in the first process only."""

    def stepped(self, step: Step) -> None:
        """After each step."""

    def epoch_ended(self, epoch: Epoch) -> None:
        """After each epoch and its evaluation."""
