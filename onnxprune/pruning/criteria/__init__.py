"""Criteria: which channels of a layer go first. The lowest scores go.

A criterion scores every component of positions; write your own as a class (see :class:`Criterion`) or as a function
with :func:`as_criterion`, and pass it to :func:`onnxprune.plan`.
"""

from __future__ import annotations

from functools import cache

from onnxprune.pruning.criteria import activations, reconstruction
from onnxprune.pruning.criteria.base import (
    Criterion,
    FloatArray,
    Registry,
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


@cache
def default_registry() -> Registry:
    """The criteria that onnxprune knows by itself; extend it with :meth:`Registry.extended`."""
    return Registry(
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
        )
    )


def criterion(name: str) -> Criterion:
    """The built-in criterion of that name. Raises UsageError for an unknown one."""
    return default_registry().find(name)


__all__ = [
    "Criterion",
    "FloatArray",
    "NormCriterion",
    "RandomCriterion",
    "Registry",
    "Scoring",
    "as_criterion",
    "comparable",
    "completed",
    "criterion",
    "default_registry",
    "producer_weights",
]
