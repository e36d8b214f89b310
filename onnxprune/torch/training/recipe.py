"""How to train: everything that decides the result, apart from model, data and teacher."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from onnxprune.errors import UsageError, unknown

Start = Literal["fine-tune", "from-scratch"]
LossName = Literal["auto", "cross-entropy", "mse"]
OptimizerName = Literal["adamw", "adam", "sgd"]
ScheduleName = Literal["cosine", "constant"]
SurrogateName = Literal["auto", "none", "fast-sigmoid", "atan"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the training samples.
        lr: the highest learning rate, reached after the warm-up.
        batch_size: samples per step, of all processes together. A last batch that is smaller is left out of the
            epoch, unless it is the only one.
        optimizer: ``adamw``, ``adam`` or ``sgd`` (Nesterov momentum 0.9).
        weight_decay: of parameters with two or more dimensions; scales and biases do not decay.
        schedule: ``cosine`` (down to zero) or ``constant``.
        warm_up: the share of all steps over which the rate rises from nearly zero.
        start: ``fine-tune`` goes on from the weights of the file, ``from-scratch`` draws new ones.
        restore_batchnorm: train with a BatchNormalization after each Conv that has none, and fold it afterwards.
        seed: of fresh weights, the order of samples, and Dropout.
        loss: ``cross-entropy``, ``mse``, or ``auto``: cross-entropy for class numbers, mse for values.
        label_smoothing: share of the target that goes to all classes alike (cross-entropy).
        distill: with a teacher, the share of the loss that follows the teacher and not the labels.
        temperature: divides both logits in that part of the loss.
        clip: largest norm of the gradient; None leaves it as it is.
        patience: stop after so many epochs without improvement on the held-out samples (on the training loss where
            there are none), and keep the best weights; None trains all epochs and keeps the last.
        precision: ``float32``, or autocast to ``bfloat16`` or ``float16`` (with loss scaling, on a GPU).
        output: the graph output to train on; may be None where there is one.
        surrogate: the gradient of thresholds, which have none: ``fast-sigmoid``, ``atan``, ``none``, or ``auto``: a
            fast sigmoid if there are weights that reach the output only through thresholds, as in spiking networks.
        slope: how steep that is; None is 25 for a fast sigmoid and 2 for an arctan.

    Raises:
        UsageError: a value outside its range.
    """

    epochs: int = 10
    lr: float = 1e-3
    batch_size: int = 128
    optimizer: OptimizerName = "adamw"
    weight_decay: float = 1e-2
    schedule: ScheduleName = "cosine"
    warm_up: float = 0.1
    start: Start = "fine-tune"
    restore_batchnorm: bool = False
    seed: int = 0
    loss: LossName = "auto"
    label_smoothing: float = 0.0
    distill: float = 0.5
    temperature: float = 4.0
    clip: float | None = None
    patience: int | None = None
    precision: Precision = "float32"
    output: str | None = None
    surrogate: SurrogateName = "auto"
    slope: float | None = None

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 1)
        _at_least("seed", self.seed, 0)
        if self.patience is not None:
            _at_least("patience", self.patience, 1)
        for name in ("lr", "temperature"):
            _above_zero(name, getattr(self, name))
        for name in ("clip", "slope"):
            if getattr(self, name) is not None:
                _above_zero(name, getattr(self, name))
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UsageError(f"weight_decay must not be negative: {self.weight_decay}")
        for name in ("warm_up", "label_smoothing", "distill"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        _one_of("optimizer", self.optimizer, OptimizerName)
        _one_of("schedule", self.schedule, ScheduleName)
        _one_of("start", self.start, Start)
        _one_of("loss", self.loss, LossName)
        _one_of("precision", self.precision, Precision)
        _one_of("surrogate", self.surrogate, SurrogateName)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name} must be at least {least}, not {value}")


def _above_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} must be a number above 0, not {value}")


def _one_of(name: str, value: str, choices: Any) -> None:
    known = get_args(choices)
    if value not in known:
        raise UsageError(unknown(name, value, known))
