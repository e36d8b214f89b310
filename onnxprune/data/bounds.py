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
from scipy.special import betainc, betaincinv, gammaln, xlog1py, xlogy

from onnxprune.errors import DataError

FloatArray: TypeAlias = NDArray[np.float64]
Kind = Literal["share", "paired", "mean"]
"""What the losses of single samples are: 0 or 1; 1, 0 or -1 (lost, as before, won); or anything from 0 to 1."""
_T = TypeVar("_T")

#: From so many samples on the exact bound of a difference is the sharper one; its cells, and halvings to find it.
_MANY, _CELLS, _STEPS = 1000, 32, 16

SOURCES: dict[Kind, str] = {
    "share": "Clopper-Pearson",
    "paired": "exact for the difference of what was lost and what was won (Berger and Boos 1994)",
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

    def shows(self, most: float, confidence: float) -> bool:
        """Whether the true mean is proven to be at most so large: the bound says the same, and takes longer."""
        if self.kind != "paired" or len(self.values) < _MANY:
            return self.bound(confidence).upper <= most
        lost, won = int((self.values > 0).sum()), int((self.values < 0).sum())
        return most * len(self.values) >= lost - won and (
            paired_chance(lost, won, len(self.values), most, confidence) <= 1 - confidence
        )

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
    """What (lost - won) is at most, for losses of 1, 0 and -1; no less than 0.

    The least gap that is rejected (:func:`paired_chance`). Of fewer than a thousand samples both shares are bounded
    instead, and each bound may fail with half of the probability (Bonferroni): sharper where hardly anything changes.
    """
    lost, won, count = int((values > 0).sum()), int((values < 0).sum()), len(values)
    each = (1 + confidence) / 2
    apart = max(upper_share(lost, count, each) - lower_share(won, count, each), 0.0)
    if count < _MANY:
        return apart
    low, high = max((lost - won) / count, 0.0), min(2 * apart + 20 / count, 1.0)
    if paired_chance(lost, won, count, low, confidence) <= 1 - confidence:
        return low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if paired_chance(lost, won, count, middle, confidence) <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def paired_chance(lost: int, won: int, samples: int, gap: float, confidence: float) -> float:
    """How likely so small a difference (lost - won) is at most, if the true one is ``gap`` or more: a p-value.

    What is won is a nuisance: the chance is the largest over an interval that holds its share but for a tenth of the
    error, which is added (Berger and Boos 1994, "P values maximized over a confidence set for the nuisance parameter").
    The difference grows with what is lost and falls with what is won, so the corners of small cells bound it from
    above in all of them: no grid can miss the largest.
    """
    aside = (1 - confidence) / 10
    # The chance is largest where most is won: cells are narrow there.
    edges = upper_share(won, samples, 1 - aside) * (1 - np.linspace(1.0, 0.0, _CELLS + 1) ** 2)
    losing = np.minimum(edges[:-1, None] + gap, 1.0 - 1e-12)
    winning = np.minimum(edges[1:, None] / (1 - losing), 1.0)
    most = samples * losing.max()
    seen = np.arange(min(samples, int(most + 12 * math.sqrt(most) + 60)) + 1)[None]
    chances = gammaln(samples + 1) - gammaln(seen + 1) - gammaln(samples - seen + 1)
    chances = np.exp(chances + xlogy(seen, losing) + xlog1py(samples - seen, -losing))
    # At least so many are won beside ``seen`` that are lost.
    wanted = seen - (lost - won)
    room = samples - seen
    there = betainc(np.clip(wanted, 1, None), np.clip(room - wanted + 1, 1, None), winning)
    there = np.where(wanted <= 0, 1.0, np.where(wanted > room, 0.0, there))
    return float((chances * there).sum(axis=1).max()) + aside


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
    needed = math.ceil(math.log(failing / 2 if kind == "paired" else failing) / math.log(1 - most))
    if kind == "paired" and needed >= _MANY:
        while paired_chance(0, 0, needed, most, confidence) > failing:
            needed += max(needed // 100, 1)
    return needed


def require_samples(kind: Kind, count: int, most: float, confidence: float) -> None:
    """See that so many samples can prove a loss at all. Raises DataError; the message says how many it takes."""
    needed = samples_needed(kind, most, confidence)
    if count < needed:
        raise DataError(
            f"a loss of at most {100 * most:.2f} % at {100 * confidence:g} % confidence takes at least {needed} "
            f"samples that nothing is fitted to (more where some answers change), and there are {count}; give more "
            "samples, or promise less"
        )


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
