"""What a series of times says: the middle, the spread, and how sure a ratio is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_RESAMPLES = 2000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Seconds: the median, the quartiles around it, the median absolute deviation, the fastest, and of how many."""

    median: float
    lower: float
    upper: float
    mad: float
    fastest: float
    count: int

    @property
    def iqr(self) -> float:
        """The width of the middle half, in seconds."""
        return self.upper - self.lower

    @property
    def relative(self) -> float:
        """The width of the middle half as a fraction of the median."""
        return self.iqr / self.median if self.median else 0.0

    def to_dict(self) -> dict[str, float]:
        """All of it as plain data."""
        return {**asdict(self), "iqr": self.iqr, "relative_iqr": self.relative}


@dataclass(frozen=True)
class Ratio:
    """The median of paired ratios, and its 95 % confidence interval."""

    median: float
    low: float
    high: float

    @property
    def uncertainty(self) -> float:
        """Half the width of the interval as a fraction of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def spread(seconds: FloatArray) -> Spread:
    """Summarise a series of times, shape (rounds,)."""
    lower, median, upper = (float(q) for q in np.quantile(seconds, (0.25, 0.5, 0.75)))
    mad = float(np.median(np.abs(seconds - median)))
    return Spread(median, lower, upper, mad, float(seconds.min()), len(seconds))


def paired_ratio(seconds: FloatArray, reference: FloatArray, seed: int = 0) -> Ratio:
    """The ratio of two series that were measured in turns, both of shape (rounds,).

    Each round gives one ratio, so that what slows a whole round down drops out. The interval is a percentile
    bootstrap of their median (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).
    """
    ratios = seconds / reference
    picks = np.random.default_rng(seed).integers(0, len(ratios), size=(_RESAMPLES, len(ratios)))
    medians = np.median(ratios[picks], axis=1)
    low, high = np.quantile(medians, ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2))
    return Ratio(float(np.median(ratios)), float(low), float(high))
