"""How like the original's an output is, by what it says: classes, yes or no, directions, or values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional

from onnxprune.data.fidelity import answers_of
from onnxprune.data.logits import ENDINGS, head_of
from onnxprune.data.samples import Samples
from onnxprune.data.tasks import AUTO, readers_of
from onnxprune.data.tasks.embeddings import EmbeddingTask
from onnxprune.data.tasks.segmentation import SegmentationTask
from onnxprune.data.tasks.text import TextTask
from onnxprune.ir.model import Model

Measure = Literal["KL", "cosine", "error"]
"""The divergence of class probabilities, one less the cosine, or the squared error over the variance."""

_LOOKED_AT = 32
"""Samples on whose answers a task is recognised."""
_SOFTMAX, _SIGMOID = ENDINGS[:2], ENDINGS[2]
_SCORED = ("classes", "labels")


@dataclass(frozen=True)
class Likeness:
    """How one output is compared.

    Attributes:
        measure: what is told of it.
        axis: that of classes.
        ending: the node that makes probabilities of what is learnt from, if one does: logits lose no precision.
    """

    measure: Measure = "error"
    axis: int = 1
    ending: str | None = None

    def loss(self, got: Tensor, target: Tensor) -> Tensor:
        """What is to become small: the squared error over the variance, and what the task adds to it."""
        if self.ending == _SIGMOID:
            return self.damage(got, target) + doubt(got, target)
        values = relative(got, target)
        if self.measure == "KL":
            return values + divergence(got, target, self.axis)
        if self.measure == "cosine":
            return values + turned(got, target)
        return values

    def damage(self, got: Tensor, target: Tensor) -> Tensor:
        """The measure itself."""
        if self.measure == "KL":
            return divergence(got, target, self.axis)
        if self.measure == "cosine":
            return turned(got, target)
        return relative(*((x.sigmoid() for x in (got, target)) if self.ending == _SIGMOID else (got, target)))

    def agreement(self, got: Tensor, target: Tensor) -> Tensor:
        """The share of samples (of steps, of pixels) with the same class."""
        return (got.argmax(self.axis) == target.argmax(self.axis)).float().mean()


def likenesses(teacher: Model, samples: Samples, outputs: Sequence[str], task: str = AUTO) -> Mapping[str, Likeness]:
    """How each of these outputs of the original is to be compared, by what it says about some samples.

    Raises:
        UsageError: the task is not known, or reads none of the outputs.
    """
    answers, _ = answers_of(teacher, samples.first(min(_LOOKED_AT, len(samples))), "the original")
    known = [name for name in outputs if name in answers.outputs]
    if not known:
        return {name: Likeness() for name in outputs}
    tasks = {name: one.name for one, names in readers_of(answers.only(known), task) for name in names}
    return {name: _likeness(tasks.get(name), teacher, name, answers.outputs.get(name, [None])[0]) for name in outputs}


def _likeness(task: str | None, teacher: Model, name: str, one: object) -> Likeness:
    shape: tuple[int, ...] = getattr(one, "shape", ())
    ending = head_of(teacher, name).ending
    if ending == _SIGMOID and task in (*_SCORED, SegmentationTask.name):
        return Likeness(ending=ending)
    if task == EmbeddingTask.name:
        return Likeness("cosine", -1)
    softmax = ending if ending in _SOFTMAX else None
    if task in _SCORED and shape[0] > 1:
        return Likeness("KL", 1, softmax)
    if task == TextTask.name:
        return Likeness("KL", -1, softmax)
    if task == SegmentationTask.name and len(shape) == 3 and min(shape[0], shape[-1]) > 1:
        return Likeness("KL", 1 if shape[0] <= shape[-1] else -1, softmax)
    return Likeness()


def relative(got: Tensor, target: Tensor) -> Tensor:
    """The squared error over the variance of the target."""
    spread = (target - target.mean(dim=0, keepdim=True)).square().mean() if len(target) > 1 else target.square().mean()
    return functional.mse_loss(got, target) / spread.clamp(min=1e-12)


def divergence(got: Tensor, target: Tensor, axis: int = 1) -> Tensor:
    """The Kullback-Leibler divergence of class probabilities from logits, in nats (mean over the rest)."""
    own, others = (functional.log_softmax(x, dim=axis) for x in (got, target))
    return (others.exp() * (others - own)).sum(dim=axis).mean()


def turned(got: Tensor, target: Tensor) -> Tensor:
    """One less the mean cosine of directions along the last axis."""
    return 1 - functional.cosine_similarity(got, target, dim=-1).mean()


def doubt(got: Tensor, target: Tensor) -> Tensor:
    """The divergence of the probabilities of yes and no from logits, over what is uncertain of the target's mean."""
    sure = target.sigmoid()
    own = functional.binary_cross_entropy_with_logits(got, sure)
    least = functional.binary_cross_entropy_with_logits(target, sure)
    mean = sure.mean().clamp(1e-4, 1 - 1e-4)
    scale = -(mean * mean.log() + (1 - mean) * (1 - mean).log())
    return (own - least) / scale
