"""Bounds that hold: what can be said of a mean loss from samples that nothing was fitted to or chosen by.

Every bound is one-sided and holds for any distribution and any number of samples: with a probability of at least
``confidence`` the true mean is not above it. Nothing is asymptotic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from onnxprune.errors import DataError

FloatArray: TypeAlias = NDArray[np.float64]
Kind = Literal["share", "paired", "mean"]
"""What the losses of single samples are: 0 or 1; 1, 0 or -1 (lost, as before, won); or anything from 0 to 1."""
_T = TypeVar("_T")

SOURCES: dict[Kind, str] = {
    "share": "Clopper-Pearson",
    "paired": "Clopper-Pearson of what was lost and of what was won, half of the error each",
    "mean": "empirical Bernstein (Maurer and Pontil 2009, theorem 4)",
}
"""Where the bound of each kind comes from."""


@dataclass(frozen=True)
class Bound:
    """A mean loss as measured on so many ``samples``, and what it is at most (``upper``) with this ``confidence``."""

    mean: float
    upper: float
    samples: int
    confidence: float
    kind: Kind

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "method": SOURCES[self.kind]}


@dataclass(frozen=True)
class Losses:
    """The loss of every sample, [N], and what it is, as a noun ("changed answers")."""

    values: FloatArray
    kind: Kind
    what: str

    @property
    def mean(self) -> float:
        """The loss as measured."""
        return float(self.values.mean())

    def bound(self, confidence: float) -> Bound:
        """What the true mean is at most. Raises DataError where there are no samples."""
        if not len(self.values):
            raise DataError("a bound takes samples; there are none")
        found: dict[Kind, Callable[[FloatArray, float], float]] = {
            "share": lambda values, level: upper_share(int(np.count_nonzero(values)), len(values), level),
            "paired": upper_paired,
            "mean": upper_mean,
        }
        upper = found[self.kind](self.values, confidence)
        return Bound(self.mean, upper, len(self.values), confidence, self.kind)

    def foreseen(self, samples: int, confidence: float) -> float:
        """The bound that so many samples will give if they are like these: for choosing what is worth a test."""
        if not samples:
            return 1.0
        places = ((np.arange(samples) + 0.5) * len(self.values) / samples).astype(np.int64)
        return Losses(np.sort(self.values)[places], self.kind, self.what).bound(confidence).upper


def upper_share(count: int, samples: int, confidence: float) -> float:
    """What a share is at most that was seen ``count`` times: exact, by Clopper and Pearson (1934)."""
    return 1.0 if count >= samples else float(betaincinv(count + 1, samples - count, confidence))


def lower_share(count: int, samples: int, confidence: float) -> float:
    """What a share is at least."""
    return 1.0 - upper_share(samples - count, samples, confidence)


def upper_paired(values: FloatArray, confidence: float) -> float:
    """What (lost - won) is at most, for losses of 1, 0 and -1.

    Both shares are bounded, and each bound may fail with half of the probability: their union holds (Bonferroni).
    """
    each = (1 + confidence) / 2
    lost, won = int((values > 0).sum()), int((values < 0).sum())
    return upper_share(lost, len(values), each) - lower_share(won, len(values), each)


def upper_mean(values: FloatArray, confidence: float) -> float:
    """What a mean of values in [0, 1] is at most.

    Maurer and Pontil, "Empirical Bernstein Bounds and Sample Variance Penalization" (2009), theorem 4: with the sample
    variance V of n values and ln(2/δ), mean + sqrt(2 V ln(2/δ) / n) + 7 ln(2/δ) / (3 (n - 1)).
    """
    count = len(values)
    if count < 2:
        return 1.0
    log = math.log(2 / (1 - confidence))
    spread = math.sqrt(2 * float(values.var(ddof=1)) * log / count)
    return min(float(values.mean()) + spread + 7 * log / (3 * (count - 1)), 1.0)


def samples_needed(kind: Kind, most: float, confidence: float) -> int:
    """The fewest samples that can show a loss of at most ``most``: what it takes if not one of them loses anything."""
    failing = 1 - confidence
    if most >= 1:
        return 1
    if kind == "mean":
        return math.ceil(1 + 7 * math.log(2 / failing) / (3 * most))
    return math.ceil(math.log(failing / 2 if kind == "paired" else failing) / math.log(1 - most))


def fixed_sequence(candidates: Iterable[_T], holds: Callable[[_T], bool]) -> list[_T]:
    """Test candidates one after the other, and stop at the first that fails: those that passed.

    The order has to be fixed before the samples of the tests are looked at. Then the probability that *any* of those
    that passed is wrong is not above that of a single test, however many there are (Maurer 1995; Bauer 1991; for
    choosing settings of a model: Angelopoulos and others 2021, "Learn then Test").
    """
    passed = []
    for candidate in candidates:
        if not holds(candidate):
            break
        passed.append(candidate)
    return passed
