"""Criteria: which channels of a layer go first. The lowest scores go.

A criterion scores every component of positions; write your own as a class (see :class:`Criterion`) or as a function
with :func:`as_criterion`, and pass it to :func:`onnxprune.plan`.
"""

from __future__ import annotations

from functools import cache

from onnxprune.ops.registry import contributed
from onnxprune.pruning.criteria import activations, reconstruction
from onnxprune.pruning.criteria.base import (
    Criteria,
    Criterion,
    FloatArray,
    Scoring,
    as_criterion,
    comparable,
    completed,
)
from onnxprune.pruning.criteria.taylor import TaylorCriterion
from onnxprune.pruning.criteria.weights import (
    BatchNormScaleCriterion,
    FpgmCriterion,
    LampCriterion,
    NormCriterion,
    RandomCriterion,
    producer_weights,
)


def default_registry() -> Criteria:
    """The criteria of onnxprune, installed packages and plugins; extend it with :meth:`Criteria.extended`."""
    return _with(contributed("criteria", _is_criterion))


def _is_criterion(item: object) -> bool:
    return isinstance(getattr(item, "name", None), str) and callable(getattr(item, "scores", None))


@cache
def _with(more: tuple[Criterion, ...]) -> Criteria:
    return Criteria(
        (
            RandomCriterion(),
            NormCriterion(1),
            NormCriterion(2),
            FpgmCriterion(),
            LampCriterion(),
            BatchNormScaleCriterion(),
            *activations.CRITERIA,
            *reconstruction.CRITERIA,
            TaylorCriterion(),
            *more,
        )
    )


def criterion(name: str) -> Criterion:
    """The built-in criterion of that name. Raises UsageError for an unknown one."""
    return default_registry().find(name)


__all__ = [
    "Criteria",
    "Criterion",
    "FloatArray",
    "NormCriterion",
    "RandomCriterion",
    "Scoring",
    "as_criterion",
    "comparable",
    "completed",
    "criterion",
    "default_registry",
    "producer_weights",
]
