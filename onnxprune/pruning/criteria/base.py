"""What a criterion is, what it may look at, and the table that finds one by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.coupling import Coupling
from onnxprune.errors import RegistryError, UsageError, unknown

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Scoring:
    """What a criterion may look at: the analysis, a source of randomness, and calibration samples or None."""

    analysis: Analysis
    rng: np.random.Generator
    samples: Samples | None = None

    @property
    def coupling(self) -> Coupling:
        """Components of positions, and the groups they form."""
        return self.analysis.coupling

    @property
    def count(self) -> int:
        """The number of components."""
        return len(self.analysis.coupling.pin_of)

    def data(self, criterion: str) -> Samples:
        """The calibration samples. Raises UsageError where there are none."""
        if self.samples is None:
            raise UsageError(
                f"criterion '{criterion}' needs calibration data; give some (--calibrate SPEC, calibration=...), "
                "or choose one that looks at weights alone, such as l2"
            )
        return self.samples


class Criterion(Protocol):
    """Scores every component of positions: the higher, the later it goes.

    Attributes:
        name: what it is called.
        comparable: whether scores of different groups are on one scale. Where they are not, an allocation that
            compares groups uses :func:`comparable`.
    """

    name: str
    comparable: bool

    def scores(self, scoring: Scoring) -> FloatArray:
        """One score per component label of ``scoring.coupling``; NaN where it has nothing to say.

        Raises:
            UsageError: it needs something that is not there, calibration data for example.
        """


@dataclass(frozen=True)
class Criteria:
    """Criteria by name; immutable, :meth:`extended` returns a new one. RegistryError for a name twice."""

    criteria: tuple[Criterion, ...] = ()
    by_name: dict[str, Criterion] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for criterion in self.criteria:
            if criterion.name in self.by_name:
                raise RegistryError(f"two criteria are called '{criterion.name}'; rename one of them")
            self.by_name[criterion.name] = criterion

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(self.by_name)

    def extended(self, *criteria: Criterion) -> Criteria:
        """A registry that knows these criteria too."""
        return Criteria((*self.criteria, *criteria))

    def find(self, name: str) -> Criterion:
        """The criterion of that name. Raises UsageError for an unknown one."""
        if name not in self.by_name:
            raise UsageError(unknown("criterion", name, self.names))
        return self.by_name[name]


@dataclass(frozen=True)
class FunctionCriterion:
    """A function of a Scoring as a criterion."""

    name: str
    function: Callable[[Scoring], FloatArray]
    comparable: bool = False

    def scores(self, scoring: Scoring) -> FloatArray:
        return self.function(scoring)


def as_criterion(
    name: str, *, comparable: bool = False
) -> Callable[[Callable[[Scoring], FloatArray]], FunctionCriterion]:
    """Decorator that makes a criterion of a function: ``@as_criterion("mine")``.

    Pass it to :func:`onnxprune.plan` as ``criterion=mine``, or extend a registry with it to find it by name.
    """

    def make(function: Callable[[Scoring], FloatArray]) -> FunctionCriterion:
        return FunctionCriterion(name, function, comparable)

    return make


def comparable(scoring: Scoring, scores: FloatArray) -> FloatArray:
    """Scores on one scale: within a group their mean becomes the number of producers that carry an atom.

    So a filter that is as strong as its layer's filters are on average counts 1 in every layer, and an atom of a
    residual stream as many as layers write to it.
    """
    carried = _producers_per_component(scoring.coupling)
    scaled = scores.astype(np.float64, copy=True)
    for group in scoring.coupling.groups:
        own = scores[group.atoms]
        mean = np.nanmean(own) if np.isfinite(own).any() else 0.0
        if mean > 0:
            scaled[group.atoms] = own / mean * max(float(carried[group.atoms].mean()), 1.0)
    return scaled


def completed(scores: FloatArray, scoring: Scoring, fallback: Callable[[Scoring], FloatArray]) -> FloatArray:
    """Scores without NaN: atoms about which a criterion has nothing to say get those of another one, scaled.

    The scale is such that the fallback's mean over known atoms equals the criterion's.
    """
    missing = np.isnan(scores)
    if not missing.any():
        return scores
    other = comparable(scoring, fallback(scoring))
    atoms = np.concatenate([group.atoms for group in scoring.coupling.groups] or [np.zeros(0, dtype=np.int64)])
    known = atoms[~missing[atoms]]
    scale = scores[known].mean() / max(float(other[known].mean()), 1e-30) if len(known) else 1.0
    return np.where(missing, other * scale, scores)


def merged(count: int, parts: Iterable[tuple[NDArray[np.int64], FloatArray]]) -> FloatArray:
    """Sums of (labels, values) per component; NaN where no part has a label."""
    labels, values = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for at, value in parts:
        labels.append(at)
        values.append(value)
    joined = np.concatenate(labels)
    sums = np.bincount(joined, weights=np.concatenate(values), minlength=count).astype(np.float64)
    return np.where(np.bincount(joined, minlength=count) > 0, sums, np.nan)


def _producers_per_component(coupling: Coupling) -> NDArray[np.int64]:
    counts = np.zeros(len(coupling.pin_of), dtype=np.int64)
    for axis in {p.axis for p in coupling.relations.producers if p.axis in coupling.class_of}:
        counts += np.bincount(coupling.class_labels(coupling.class_of[axis]), minlength=len(counts)) > 0
    return counts
