"""Fitting two layers that stand for one: reduced-rank regression.

Of all products of two matrices with so many channels between them, the one that errs least on the outputs is the best
single matrix, projected on the directions in which its outputs vary most (Izenman, 1975).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.pruning.compensation.gathering import Piece
from onnxprune.pruning.compensation.solving import Solution

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FactorsFit:
    """Both matrices [K, r] and [r, N], the bias [N], and the squared error per row on all rows."""

    first: FloatArray
    second: FloatArray
    bias: FloatArray
    after: float


def projected(found: Solution, start: NDArray[Any], parts: Callable[[], Iterable[Piece]], rank: int) -> FactorsFit:
    """The factors of a fitted matrix.

    Args:
        found: the fit of a single matrix [1, K, N].
        start: that matrix where the fit left it as it was.
        parts: the rows, as often as they are asked for.
        rank: channels between the factors.
    """
    matrix = np.asarray(start if found.matrix is None else found.matrix, dtype=np.float64)[0]
    width, count = matrix.shape[1], 0
    product, total, wanted = np.zeros((width, width)), np.zeros(width), np.zeros(width)
    for part in parts():
        made = part.x[0] @ matrix
        product += made.T @ made
        total += made.sum(axis=0)
        wanted += part.y[0].sum(axis=0)
        count += len(made)
    mean = total / count
    _, vectors = np.linalg.eigh(product / count - np.outer(mean, mean))
    # Where channels have left fewer outputs than that, what is between has nothing to carry.
    second = np.zeros((rank, width))
    second[: min(rank, width)] = vectors[:, -rank:].T
    first = matrix @ second.T
    bias = wanted / count - mean @ second.T @ second
    error = sum(float(np.square(part.x[0] @ first @ second + bias - part.y[0]).sum()) for part in parts())
    return FactorsFit(first, second, bias, error / count)
