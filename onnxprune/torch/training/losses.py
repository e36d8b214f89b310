"""Losses, and how many answers are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.errors import DataError, TrainingError
from onnxprune.torch.training.recipe import Recipe

Loss: TypeAlias = "Callable[[Tensor, Tensor | None, Tensor | None], Tensor]"


@dataclass(frozen=True)
class Objective:
    """What is minimised, for results [B, classes, ...] or [B, ...], targets, and the results of a teacher.

    Attributes:
        kind: ``cross-entropy`` or ``mse``.
        smoothing: label smoothing.
        distill: the teacher's share, where there is one.
        temperature: of distillation.
    """

    kind: str
    smoothing: float = 0.0
    distill: float = 0.0
    temperature: float = 1.0

    def __call__(self, result: Tensor, targets: Tensor | None, teacher: Tensor | None = None) -> Tensor:
        """The mean loss, in float32.

        Raises:
            DataError: targets and result do not fit each other.
            TrainingError: neither targets nor a teacher, or a teacher with another result.
        """
        result = result.float()
        if teacher is not None and teacher.shape != result.shape:
            raise TrainingError(
                f"the teacher's output has shape {tuple(teacher.shape)} and the model's {tuple(result.shape)}; "
                "use a teacher with the same classes"
            )
        if targets is None:
            if teacher is None:
                raise DataError("the samples have no labels; add them, or give a teacher")
            return self._from_teacher(result, teacher.float())
        check_targets(self.kind, result, targets)
        if self.kind == "mse":
            own = F.mse_loss(result, targets.reshape(result.shape).float())
        else:
            own = F.cross_entropy(result, targets, label_smoothing=self.smoothing)
        if teacher is None or not self.distill:
            return own
        return (1 - self.distill) * own + self.distill * self._from_teacher(result, teacher.float())

    def _from_teacher(self, result: Tensor, teacher: Tensor) -> Tensor:
        """Hinton's distillation (arXiv 1503.02531) on logits; the squared difference on values."""
        if self.kind == "mse":
            return F.mse_loss(result, teacher)
        t = self.temperature
        student, wanted = F.log_softmax(result / t, dim=1), F.log_softmax(teacher / t, dim=1)
        divergence = F.kl_div(student, wanted, reduction="none", log_target=True).sum(dim=1).mean()
        return divergence * t * t


def make_objective(recipe: Recipe, targets: object, teacher: bool) -> Objective:
    """The objective of a recipe for targets of this kind (an array, or None)."""
    kind = getattr(getattr(targets, "dtype", None), "kind", None)
    name = recipe.loss if recipe.loss != "auto" else "mse" if kind == "f" else "cross-entropy"
    if name == "cross-entropy" and kind == "f":
        raise DataError("cross-entropy needs class numbers, and the labels are values; use the loss 'mse'")
    return Objective(name, recipe.label_smoothing, recipe.distill if teacher else 0.0, recipe.temperature)


def right_answers(kind: str, result: Tensor, targets: Tensor | None) -> int | None:
    """How many samples (or positions) are classified right; None where there is nothing to count."""
    if kind != "cross-entropy" or targets is None:
        return None
    return int((result.argmax(dim=1) == targets).sum())


def check_targets(kind: str, result: Tensor, targets: Tensor) -> None:
    """See that targets fit a result.

    Raises:
        DataError: another shape, or a class number that the model does not have.
    """
    if kind == "mse":
        if targets.numel() != result.numel() or targets.shape[0] != result.shape[0]:
            raise DataError(f"the labels have shape {tuple(targets.shape)}, the model's output {tuple(result.shape)}")
        return
    if result.dim() < 2:
        raise DataError(f"the model's output of shape {tuple(result.shape)} has no axis of classes; use the loss 'mse'")
    if targets.shape != result.shape[:1] + result.shape[2:]:
        raise DataError(
            f"class numbers of shape {tuple(targets.shape)} do not fit the model's output of shape "
            f"{tuple(result.shape)} (batch, classes, ...)"
        )
    low, high = (int(v) for v in torch.aminmax(targets)) if targets.numel() else (0, 0)
    if low < 0 or high >= result.shape[1]:
        raise DataError(
            f"label {low if low < 0 else high} is outside of the model's {result.shape[1]} classes "
            f"(0 to {result.shape[1] - 1})"
        )
