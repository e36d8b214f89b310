"""How far the outputs of two models are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OutputDifference:
    """How far one output of a model is from that of its reference (of a pruned one from the masked original).

    ``absolute`` is the largest absolute difference, ``relative`` the same over ``magnitude``: the largest magnitude
    of the output, or 1 for the outputs of bounded functions, whose inputs are compared besides.
    """

    name: str
    absolute: float
    relative: float
    magnitude: float


def difference(
    name: str, expected: Sequence[NDArray[Any]], got: Sequence[NDArray[Any]], *, bound: float = 0.0
) -> OutputDifference:
    """Compare the samples of one output; ``bound`` is the magnitude it may reach if its function is bounded."""
    absolute, magnitude = 0.0, bound
    for wanted, found in zip(expected, got, strict=True):
        gap, scale = _compare(wanted, found)
        absolute, magnitude = max(absolute, gap), max(magnitude, scale)
    relative = absolute / magnitude if magnitude and np.isfinite(absolute) else absolute
    return OutputDifference(name, absolute, relative, magnitude)


def _compare(wanted: NDArray[Any], found: NDArray[Any]) -> tuple[float, float]:
    """The largest absolute difference, infinite where shapes, types or non-finite values differ, and the magnitude."""
    if np.shape(wanted) != np.shape(found) or np.asarray(wanted).dtype != np.asarray(found).dtype:
        return float("inf"), 0.0
    if not isinstance(wanted, np.ndarray) or wanted.dtype.kind not in "fiub":
        return (0.0 if np.array_equal(np.asarray(wanted), np.asarray(found)) else float("inf")), 0.0
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return float("inf"), 0.0
    a, b = a[finite], b[finite]
    return (float(np.abs(a - b).max()), float(np.abs(a).max())) if a.size else (0.0, 0.0)
