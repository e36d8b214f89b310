"""How one layer is solved: which way fits into memory, and the way itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune._display import long
from onnxprune.pruning.compensation.activations import MOST_KEPT, Bend, Rows, behind, bending_bytes
from onnxprune.pruning.compensation.few_rows import SHARES, fit_rows, rows_bytes
from onnxprune.pruning.compensation.gathering import Piece, moments
from onnxprune.pruning.compensation.ridge import Moments, bias_of, choose_share, moments_bytes, shares_to_try, solve

FloatArray = NDArray[np.float64]

#: Rows per feature that a fit looks at, and at least; more change little and cost time.
_ROWS_PER_FEATURE = 16
_FEWEST_ROWS = 16384
#: So few rows are worth the errors that leaving out every sample gives, whatever the number of features.
_FEW_ROWS = 512
#: More rows take too long to solve among themselves, if memory is the only reason to; fewer say too little.
_MOST_ROWS, _LEAST_ROWS = 4096, 16


@dataclass(frozen=True)
class Way:
    """How to solve a layer: with ``few`` among the rows, else by moments. ``reason`` says why its weights cannot be.

    ``spare`` bytes are left for keeping rows, with which what is behind an activation is fitted.
    """

    rows: int
    few: bool
    reason: str | None = None
    spare: int = 0


class Solver(Protocol):
    """A way to fit a matrix to rows, starting from one [G, K, N] and the bias [G, N] that there is now."""

    def __call__(self, parts: Iterable[Piece], start: NDArray[Any], now: FloatArray, *, intercept: bool) -> Solution:
        """Solve."""
        ...


@dataclass(frozen=True)
class Solution:
    """The new matrix [G, K, N] and bias [G, N], None where there is none; squared errors per row, summed over outputs.

    ``before`` and ``after`` are on the rows, ``unseen`` on samples that the fit has not seen (None without any).
    ``spread`` is the variance of what the layer should give.
    """

    rows: int
    spread: float
    before: float
    after: float
    unseen: float | None
    share: float | None
    matrix: NDArray[Any] | None
    bias: FloatArray | None


def way_of(shape: tuple[int, int, int], rows: int, memory: int) -> Way:
    """The way to solve a layer of ``shape`` [G, K, N] that has so many rows, in so many bytes."""
    groups, features, outputs = shape
    wanted = min(rows, max(_ROWS_PER_FEATURE * features, _FEWEST_ROWS))
    if wanted <= features // 2 or (groups == 1 and wanted <= _FEW_ROWS):
        few = wanted
    elif moments_bytes(groups, features, outputs) <= memory:
        return Way(wanted, False, spare=max(memory - max(moments_bytes(*shape), bending_bytes(*shape[1:])), 0))
    else:
        few = min(wanted, _MOST_ROWS)
    while few >= min(wanted, _LEAST_ROWS):
        needed = rows_bytes(groups, few, features, outputs)
        if needed <= memory:
            return Way(few, True)
        few //= 2
    return Way(
        wanted,
        True,
        f"fitting its {features:,} × {outputs:,} weights takes {long(needed, 'B')} of memory at least, and "
        f"{long(memory, 'B')} are allowed for it",
    )


def solve_rows(parts: Iterable[Piece], start: NDArray[Any], now: FloatArray, *, intercept: bool) -> Solution:
    """Solve among the rows; see ``few_rows``."""
    features, lacking, samples = [], [], []
    outputs = _Spread()
    for part in parts:
        features.append(part.x.astype(np.float32, copy=False))
        lacking.append(_missing(part, start))
        samples.append(part.sample)
        outputs.add(part.y)
    x, missing = np.concatenate(features, axis=1), np.concatenate(lacking, axis=1)
    features.clear()
    lacking.clear()
    before = float(np.square(missing - now[:, None]).sum()) / outputs.count
    fit = fit_rows(x, missing, np.concatenate(samples), SHARES, intercept=intercept)
    matrix = fit.change
    if matrix is not None:
        matrix += start
    return Solution(outputs.count, outputs.variance(), before, fit.after, fit.unseen, fit.share, matrix, fit.bias)


def solve_moments(
    parts: Iterable[Piece],
    start: NDArray[Any],
    now: FloatArray,
    *,
    intercept: bool,
    bend: Bend | None = None,
    spare: int = MOST_KEPT,
) -> Solution:
    """Solve for the features; see ``ridge``. With ``bend``, what comes out of the activation behind is what counts.

    That takes the rows at hand: if they take more than ``spare`` bytes, what goes into the activation counts.
    """
    first = start.astype(np.float64)
    rows = Rows(parts, 0 if bend is None or not intercept else min(spare, MOST_KEPT))
    both, held_out = moments(rows)
    judge = both if held_out is None else held_out
    shares = shares_to_try(first.shape[1])
    share, unseen = choose_share(both, judge, first, shares, intercept=intercept)
    del judge
    known, bent_unseen, ridge = held_out is not None, unseen, shares[-1] if share is None else share
    if held_out is not None:
        if bend is not None and rows.kept:
            # As with ``unseen``, what is told of the fit to all rows is what one errs that has not seen these.
            seen = [part for part in rows.kept if not part.held_out]
            matrix, bias, _ = _fitted(seen, bend, both, first, share, ridge, intercept=intercept)
            bent_unseen = held_out.error(first if matrix is None else matrix, bias)
        both += held_out
        del held_out
    before = both.error(first, now)
    matrix, bias, bent = _fitted(rows.kept, bend, both, first, share, ridge, intercept=intercept)
    after = both.error(first if matrix is None else matrix, bias)
    if bent:
        share, unseen = ridge, bent_unseen
    return Solution(both.count, both.variance(), before, after, unseen if known else None, share, matrix, bias)


def _fitted(
    parts: Sequence[Piece],
    bend: Bend | None,
    moments: Moments,
    start: FloatArray,
    share: float | None,
    ridge: float,
    *,
    intercept: bool,
) -> tuple[FloatArray | None, FloatArray | None, bool]:
    """The matrix (None if it stays as it is) and the bias, and whether they are fitted behind the activation.

    Args:
        parts: the rows; none, if there is no room for them.
        bend: where the activation is flat.
        moments: those of the rows.
        start: the matrix as it is.
        share: the ridge of the fit before the activation, None where the matrix stays.
        ridge: that of the one behind.
        intercept: whether there is a bias.
    """
    matrix, bias = None, bias_of(moments, start) if intercept else None
    if share is not None:
        matrix, bias = solve(moments, start, share, intercept=intercept)
    if bend is None or bias is None or not parts:
        return matrix, bias, False
    bent = behind(parts, bend, moments, start, ridge, (start if matrix is None else matrix, bias))
    return (matrix, bias, False) if bent is None else (*bent, True)


def solve_bias(parts: Iterable[Piece], start: NDArray[Any], now: FloatArray) -> Solution:
    """The bias alone, whose sums take no memory."""
    outputs, missing = _Spread(), _Spread()
    offset = 0.0
    for part in parts:
        lacking = _missing(part, start)
        outputs.add(part.y)
        missing.add(lacking)
        offset += float(np.square(lacking - now[:, None]).sum())
    error = missing.variance()
    return Solution(outputs.count, outputs.variance(), offset / outputs.count, error, None, None, None, missing.mean())


def _missing(part: Piece, start: NDArray[Any]) -> FloatArray:
    """What the outputs lack with the matrix as it is and no bias."""
    found: FloatArray = part.y.astype(np.float64) - part.x @ start
    return found


class _Spread:
    """Mean and variance of rows [G, R, N] that come piece by piece, about the first piece's mean."""

    def __init__(self) -> None:
        self.count = 0
        self._shift: FloatArray | None = None
        self._sum: FloatArray | float = 0.0
        self._square: FloatArray | float = 0.0

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows."""
        if self._shift is None:
            self._shift = rows.mean(axis=1, dtype=np.float64)
        about = rows - self._shift[:, None]
        self.count += rows.shape[1]
        self._sum = self._sum + about.sum(axis=1)
        self._square = self._square + np.square(about).sum(axis=1)

    def mean(self) -> FloatArray:
        """The mean row [G, N]."""
        assert self._shift is not None
        found: FloatArray = self._shift + self._sum / self.count
        return found

    def variance(self) -> float:
        """The variance, summed over groups and columns."""
        return max(float(np.sum(self._square / self.count - np.square(self._sum / self.count))), 0.0)
