"""Least squares from accumulated moments: which weights make the features give the wanted outputs.

The fit is drawn towards the weights that are there (``min Σ|x·W + b - y|² + λ|W - W₀|²``), so that directions about
which the samples say nothing keep what training found. λ is a share of the mean feature variance: no unit of the
activations matters, and a singular Gram matrix (constant, dead or repeated channels) has a solution as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Shares of the mean feature variance, of which held-out rows choose one.
SHARES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: With more features than these, only the middle ones are tried: every trial is a factorisation.
_MANY_FEATURES = 1024
_TINY = 1e-30
#: Rows of a matrix that are changed at once.
_ROWS = 256
#: A fit that takes away less than this share of the error is left alone.
_WORTH = 1e-6


@dataclass
class Moments:
    """Sums over rows of features [G, R, K] and outputs [G, R, N], about a first guess of their means."""

    count: int = 0
    shift_x: FloatArray = field(default_factory=lambda: np.zeros(0))
    shift_y: FloatArray = field(default_factory=lambda: np.zeros(0))
    x: FloatArray = field(default_factory=lambda: np.zeros(0))
    y: FloatArray = field(default_factory=lambda: np.zeros(0))
    xx: FloatArray = field(default_factory=lambda: np.zeros(0))
    xy: FloatArray = field(default_factory=lambda: np.zeros(0))
    yy: FloatArray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def about(cls, shift_x: FloatArray, shift_y: FloatArray) -> Moments:
        """Empty moments about these values, [G, K] and [G, N]."""
        groups, k, n = *shift_x.shape, shift_y.shape[1]
        sums = (np.zeros((groups, k)), np.zeros((groups, n)))
        return cls(
            0, shift_x, shift_y, *sums, np.zeros((groups, k, k)), np.zeros((groups, k, n)), np.zeros((groups, n))
        )

    def add(self, features: NDArray[Any], outputs: NDArray[Any]) -> None:
        """Add rows. Products are taken in single precision about the shift, and summed in double."""
        x = (features - self.shift_x[:, None]).astype(np.float32, copy=False)
        y = (outputs - self.shift_y[:, None]).astype(np.float32, copy=False)
        across = x.transpose(0, 2, 1)
        self.count += x.shape[1]
        self.x += x.sum(axis=1, dtype=np.float64)
        self.y += y.sum(axis=1, dtype=np.float64)
        self.xx += across @ x
        self.xy += across @ y
        self.yy += np.square(y, dtype=np.float64).sum(axis=1)

    def __iadd__(self, other: Moments) -> Moments:
        self.count += other.count
        for name in ("x", "y", "xx", "xy", "yy"):
            mine = getattr(self, name)
            mine += getattr(other, name)
        return self

    def centred(self) -> tuple[FloatArray, FloatArray]:
        """Covariance of the features, and of features and outputs."""
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx, xy = self.xx / self.count, self.xy / self.count
        _add_outer(xx, -mean_x, mean_x)
        _add_outer(xy, -mean_x, mean_y)
        return xx, xy

    def error(self, matrix: FloatArray, bias: FloatArray | None) -> float:
        """The mean squared error of ``x·matrix + bias`` [G, K, N] and [G, N], summed over outputs."""
        # About the shift: (x + s)·W + b - (y + t) = x·W - y + c.
        offset = np.einsum("gk,gkn->gn", self.shift_x, matrix) - self.shift_y + (0.0 if bias is None else bias)
        mean = np.einsum("gk,gkn->gn", self.x, matrix) - self.y
        product = self.xx @ matrix
        square = np.einsum("gkn,gkn->", matrix, product - 2 * self.xy) + self.yy.sum()
        total = square + 2 * (mean * offset).sum() + self.count * np.square(offset).sum()
        return max(float(total) / self.count, 0.0)

    def variance(self) -> float:
        """The variance of the outputs, summed."""
        return max(float((self.yy / self.count - np.square(self.y / self.count)).sum()), 0.0)


def solve(
    moments: Moments, start: FloatArray, share: float, *, intercept: bool
) -> tuple[FloatArray, FloatArray | None]:
    """The matrix [G, K, N] and the bias [G, N] (None without ``intercept``) that fit best."""
    if intercept:
        xx, xy = moments.centred()
    else:
        xx, xy = _uncentred(moments)
    ridge = _ridge(xx, share)
    missing = xy - xx @ start
    diagonal = np.arange(xx.shape[1])
    xx[:, diagonal, diagonal] += ridge[:, None]
    matrix = start + _solved(xx, missing)
    return matrix, bias_of(moments, matrix) if intercept else None


@dataclass(frozen=True)
class Refitting:
    """Fits of the same features, in one group and with a bias, to one target after the other: factored once.

    ``mean`` [1, K] is that of the features, ``drawn`` [K, N] their covariance times the weights ``start`` [1, K, N].
    """

    start: FloatArray
    mean: FloatArray
    drawn: FloatArray
    factors: tuple[NDArray[Any], NDArray[Any]]

    @classmethod
    def of(cls, moments: Moments, start: FloatArray, share: float) -> Refitting:
        """For features with these moments; ``start`` and ``share`` as for :func:`solve`."""
        from scipy.linalg import lu_factor

        covariance = moments.centred()[0]
        drawn = covariance[0] @ start[0]
        diagonal = np.arange(covariance.shape[1])
        covariance[:, diagonal, diagonal] += _ridge(covariance, share)[:, None]
        # A symmetric matrix is its transpose, which LAPACK factors in its place.
        factors = lu_factor(covariance[0].T, overwrite_a=True, check_finite=False)
        return cls(start, moments.shift_x + moments.x / moments.count, drawn, factors)

    def solve(self, product: FloatArray, mean: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The matrix [1, K, N] and the bias [1, N], by the targets' means: with centred features, and of themselves."""
        from scipy.linalg import lu_solve

        change = lu_solve(self.factors, product[0] - self.drawn, overwrite_b=True, check_finite=False)
        matrix: FloatArray = self.start + change
        bias: FloatArray = mean - np.einsum("gk,gkn->gn", self.mean, matrix)
        return matrix, bias


def _ridge(covariance: FloatArray, share: float) -> FloatArray:
    """What is added to the diagonal of each group's covariance, [G]."""
    scale = np.einsum("gkk->g", covariance) / covariance.shape[1]
    found: FloatArray = np.where(scale > _TINY, share * scale, 1.0)
    return found


def bias_of(moments: Moments, matrix: FloatArray) -> FloatArray:
    """The bias [G, N] with which the mean output is as wanted."""
    mean_x = moments.shift_x + moments.x / moments.count
    mean_y = moments.shift_y + moments.y / moments.count
    bias: FloatArray = mean_y - np.einsum("gk,gkn->gn", mean_x, matrix)
    return bias


def _uncentred(moments: Moments) -> tuple[FloatArray, FloatArray]:
    n, s, t = moments.count, moments.shift_x, moments.shift_y
    x, y = moments.x / n, moments.y / n
    xx, xy = moments.xx / n, moments.xy / n
    _add_outer(xx, s, x + s)
    _add_outer(xx, x, s)
    _add_outer(xy, s, y + t)
    _add_outer(xy, x, t)
    return xx, xy


def _add_outer(target: FloatArray, left: FloatArray, right: FloatArray) -> None:
    """Add the product of two vectors per group to a matrix, a few rows at a time."""
    for begin in range(0, left.shape[1], _ROWS):
        part = slice(begin, begin + _ROWS)
        target[:, part] += left[:, part, None] * right[:, None]


def _solved(damped: FloatArray, right: FloatArray) -> FloatArray:
    if len(damped) > 1:
        return np.asarray(np.linalg.solve(damped, right), dtype=np.float64)
    from scipy.linalg import LinAlgError, cho_factor, cho_solve, lstsq

    diagonal = damped[0].diagonal().copy()
    try:
        # A symmetric matrix is its transpose, which LAPACK factors in its place: in the lower triangle of ``damped``.
        factor = cho_factor(damped[0].T, overwrite_a=True, check_finite=False)
        return np.asarray(cho_solve(factor, right[0], check_finite=False))[None]
    except LinAlgError:
        # Rounding has made a tiny eigenvalue negative; the smallest solution is as good.
        upper = np.triu(damped[0], 1)
        whole = upper + upper.T
        np.fill_diagonal(whole, diagonal)
        return np.asarray(lstsq(whole, right[0], check_finite=False)[0])[None]


def moments_bytes(groups: int, features: int, outputs: int) -> int:
    """An estimate of the memory that moments of two parts, and solving them, take."""
    # Both parts' products, a system that is solved in its place, and single-precision products of a piece.
    return groups * features * (28 * features + 64 * outputs)


def shares_to_try(features: int) -> tuple[float, ...]:
    """The shares that are worth their time for so many features."""
    return SHARES if features <= _MANY_FEATURES else SHARES[1:-1]


def choose_share(
    train: Moments, held_out: Moments, start: FloatArray, shares: Sequence[float], *, intercept: bool
) -> tuple[float | None, float]:
    """The share whose fit on ``train`` errs least on ``held_out`` rows, and that error.

    None if no fit beats the weights as they are.
    """
    best, least = None, (standing := held_out.error(start, bias_of(train, start) if intercept else None)) * (1 - _WORTH)
    for share in shares:
        error = held_out.error(*solve(train, start, share, intercept=intercept))
        if error < least:
            best, least = share, error
    return best, standing if best is None else least
