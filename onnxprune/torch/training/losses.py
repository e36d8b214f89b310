"""Losses, and how many answers are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.errors import DataError, TrainingError
from onnxprune.torch.training.recipe import Recipe


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

    def arranged(self, result: Tensor, targets: Tensor | None) -> Tensor:
        """A model's result as the loss wants it: for class numbers [B, ...] it is [B, classes, ...].

        Classifiers may end with axes of length 1, and those of two classes with a single logit.
        """
        if self.kind == "mse":
            return result
        if targets is not None and result.numel() == targets.numel():
            one = result.reshape(targets.shape)
            return torch.stack([torch.zeros_like(one), one], dim=1)
        rank = targets.dim() if targets is not None else 1
        surplus = result.shape[rank + 1 :]
        return result.reshape(result.shape[: rank + 1]) if surplus and set(surplus) == {1} else result

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


def is_classification(recipe: Recipe, targets: NDArray[Any] | None) -> bool:
    """Whether the loss of a recipe is cross-entropy for such targets.

    Raises:
        DataError: it is, and the targets are no class numbers.
    """
    are_values = targets is not None and targets.dtype.kind == "f"
    if recipe.loss == "cross-entropy" and are_values:
        raise DataError("cross-entropy needs class numbers, and the labels are values; use the loss 'mse'")
    return recipe.loss == "cross-entropy" or (recipe.loss == "auto" and not are_values)


def make_objective(recipe: Recipe, targets: NDArray[Any] | None) -> Objective:
    """The objective of a recipe for such targets."""
    kind = "cross-entropy" if is_classification(recipe, targets) else "mse"
    return Objective(kind, recipe.label_smoothing, recipe.distill, recipe.temperature)


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
