"""Ridge regression with few rows: solved among the rows, with leave-one-out errors in closed form.

``W = W₀ + Xᵀ(XXᵀ + λI)⁻¹(Y - XW₀)`` is the same matrix as from the features' covariance (see ``ridge``), but takes a
system of as many unknowns as there are rows. Its eigenvalues give every λ at once, and what a fit without a sample
errs on that sample: with the rows of sample s, ``(I - H_ss)⁻¹ r_s`` where H maps targets to predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.ops.relations import IntArray

FloatArray = NDArray[np.float64]

#: Shares of the mean feature variance to choose from. With fewer rows than features, more than 1 is a mild ridge.
SHARES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4)
_TINY = 1e-30
#: A fit that takes away less than this share of the error is left alone.
_WORTH = 1e-6
#: Features of a piece of a product.
_PIECE = 4096


@dataclass(frozen=True)
class RowsFit:
    """A fit: the change of the matrix [G, K, N] and the bias [G, N]; ``share`` and ``change`` None if it stays.

    ``after`` and ``unseen`` are squared errors per row, summed over outputs: on the rows, and on samples left out.
    """

    share: float | None
    change: NDArray[Any] | None
    bias: FloatArray | None
    after: float
    unseen: float


def rows_bytes(groups: int, rows: int, features: int, outputs: int) -> int:
    """An estimate of the memory that :func:`fit_rows` takes with its arguments and its result."""
    return 4 * groups * (3 * rows * features + 6 * rows * outputs + 2 * features * outputs) + 40 * rows * rows


def fit_rows(
    x: NDArray[np.float32], missing: FloatArray, sample: IntArray, shares: Sequence[float], *, intercept: bool
) -> RowsFit:
    """Find the change of a matrix that makes good what is missing.

    Args:
        x: features [G, R, K]; centred in place.
        missing: what the outputs lack with the matrix as it is [G, R, N]; centred in place.
        sample: the sample of each row [R]; what is left out, is left out by sample (by row where there is but one).
        shares: ridges to choose from, as shares of the mean feature variance.
        intercept: whether a bias may change, too.
    """
    groups, count, features = x.shape
    mean_x, mean_y = np.zeros((groups, features)), np.zeros((groups, missing.shape[2]))
    if intercept:
        mean_x, mean_y = x.mean(axis=1, dtype=np.float64), missing.mean(axis=1)
        x -= mean_x[:, None].astype(np.float32)
        missing -= mean_y[:, None]
    members = _members(sample)
    if count < 2:
        error = float(np.square(missing).sum()) / count
        return RowsFit(None, None, mean_y if intercept else None, error, error)
    bases = [_Basis.of(x[g], missing[g], intercept) for g in range(groups)]

    def unseen(share: float | None) -> float:
        return float(sum(basis.left_out(share, members) for basis in bases) / count)

    best, least = None, (standing := unseen(None)) * (1 - _WORTH)
    for share in shares:
        error = unseen(share)
        if error < least:
            best, least = share, error
    after = sum(float(np.square(basis.residual(best)).sum()) for basis in bases) / count
    if best is None:
        return RowsFit(None, None, mean_y if intercept else None, after, standing)
    change = np.empty((groups, features, missing.shape[2]), dtype=np.float32)
    for g, basis in enumerate(bases):
        coefficients = basis.coefficients(best).astype(np.float32)
        for start in range(0, features, _PIECE):
            change[g, start : start + _PIECE] = x[g, :, start : start + _PIECE].T @ coefficients
    bias = mean_y - np.stack([mean_x[g] @ change[g] for g in range(groups)]) if intercept else None
    return RowsFit(best, change, bias, after, least)


@dataclass(frozen=True)
class _Basis:
    """The rows of one group in the eigenvectors of XXᵀ; ``scale`` is the mean feature variance."""

    values: FloatArray
    vectors: FloatArray
    rotated: FloatArray
    scale: float
    shift: float

    @classmethod
    def of(cls, x: NDArray[np.float32], missing: FloatArray, intercept: bool) -> _Basis:
        gram = np.zeros((len(x), len(x)))
        for start in range(0, x.shape[1], _PIECE):
            part = x[:, start : start + _PIECE]
            gram += part @ part.T
        values, vectors = np.linalg.eigh(gram)
        scale = float(np.trace(gram)) / max(gram.shape[0] * x.shape[1], 1)
        return cls(np.maximum(values, 0.0), vectors, vectors.T @ missing, scale, 1 / len(x) if intercept else 0.0)

    def ridge(self, share: float) -> float:
        """λ, in the units of the eigenvalues."""
        return len(self.values) * share * self.scale if self.scale > _TINY else 1.0

    def residual(self, share: float | None) -> FloatArray:
        """What is still missing [R, N]."""
        if share is None:
            return self.vectors @ self.rotated
        ridge = self.ridge(share)
        found: FloatArray = self.vectors @ ((ridge / (self.values + ridge))[:, None] * self.rotated)
        return found

    def coefficients(self, share: float) -> FloatArray:
        """What the change is of the rows [R, N]."""
        found: FloatArray = self.vectors @ (self.rotated / (self.values + self.ridge(share))[:, None])
        return found

    def left_out(self, share: float | None, members: Sequence[IntArray]) -> float:
        """The squared error on every sample of the fit to all others, summed."""
        kept = np.zeros(len(self.values)) if share is None else self.values / (self.values + self.ridge(share))
        residual = self.residual(share)
        if len(members) == len(residual):
            leverage = self.shift + np.square(self.vectors) @ kept
            order = np.concatenate(members)
            return float(np.square(residual / np.maximum(1 - leverage, 1e-12)[:, None])[order].sum())
        total = 0.0
        for rows in members:
            own = self.vectors[rows]
            hat = (own * kept) @ own.T + self.shift
            total += float(np.square(np.linalg.solve(np.eye(len(rows)) - hat, residual[rows])).sum())
        return total


def _members(sample: IntArray) -> list[IntArray]:
    """The rows of each sample; of each row, where there is but one sample."""
    found = [np.flatnonzero(sample == number) for number in np.unique(sample)]
    return found if len(found) > 1 else list(np.arange(len(sample))[:, None])
