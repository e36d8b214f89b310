"""Fitting several layers that stand for one.

Of all products of two matrices with so many channels between them, the one that errs least on the outputs is the best
single matrix, projected on the directions in which its outputs vary most (reduced-rank regression; Izenman, 1975). A
window that is to look at few channels gets the directions of the input that this matrix tells most of, and is then
fitted to what they leave (Tucker-2; Kim et al., 2016, who weigh the numbers of the weight instead).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.pruning.compensation.gathering import Piece
from onnxprune.pruning.compensation.solving import Solution, Solver

FloatArray = NDArray[np.float64]
_SMALLEST = 1e-9
"""Directions of less than this share of the variance are noise."""


@dataclass(frozen=True)
class FactorsFit:
    """The matrices of the layers, one behind the other, the bias [N] of the last, and the squared error per row."""

    matrices: tuple[FloatArray, ...]
    bias: FloatArray
    after: float


def projected(
    found: Solution,
    start: NDArray[Any],
    parts: Callable[[], Iterable[Piece]],
    rank: int,
    inner: int = 0,
    channels: int = 0,
    solver: Solver | None = None,
) -> FactorsFit:
    """The factors of a fitted matrix.

    Args:
        found: the fit of a single matrix [1, K, N].
        start: that matrix where the fit left it as it was.
        parts: the rows, as often as they are asked for.
        rank: channels that the last reads.
        inner: channels that the window looks at; 0: all.
        channels: those of the input, where a window is to look at fewer.
        solver: what fits that window.
    """
    matrix = np.asarray(start if found.matrix is None else found.matrix, dtype=np.float64)[0]
    second = main_directions(moments_of(part.x[0] @ matrix for part in parts())[0], rank)
    if not inner:
        stages: tuple[FloatArray, ...] = (matrix @ second.T, second)
    else:
        assert solver is not None
        codes = matrix @ second.T
        among = (by_channel(part.x[0], channels) for part in parts())
        first, core = inner_factors(codes, moments_of(among)[0], inner)
        seen = (_reduced(part, first, second) for part in parts())
        core = _fitted(solver(seen, core[None], np.zeros((1, rank)), intercept=True), core)
        stages = (first, core, second)
    count, mean, wanted = 0, np.zeros(rank), np.zeros(matrix.shape[1])
    for part in parts():
        mean += _codes(part.x[0], stages).sum(axis=0)
        wanted += part.y[0].sum(axis=0)
        count += part.x.shape[1]
    bias = (wanted - mean @ second) / count
    error = sum(float(np.square(_codes(part.x[0], stages) @ second + bias - part.y[0]).sum()) for part in parts())
    return FactorsFit(stages, bias, error / count)


def main_directions(variance: FloatArray, rank: int) -> FloatArray:
    """The ``rank`` directions of most variance, as rows; zeros where there are fewer."""
    width = len(variance)
    _, vectors = np.linalg.eigh(variance)
    # Where channels have left fewer outputs than that, what is between has nothing to carry.
    found = np.zeros((rank, width))
    found[: min(rank, width)] = vectors[:, -rank:].T
    return found


def inner_factors(matrix: FloatArray, variance: FloatArray, inner: int) -> tuple[FloatArray, FloatArray]:
    """What makes few channels of an input, and the matrix that reads these, as near as can be to one that reads all.

    Args:
        matrix: [C · window, N], channels slowest.
        variance: of the channels of the input [C, C].
        inner: how many channels are made.

    Returns:
        [C, inner] and [inner · window, N].
    """
    channels, outputs = len(variance), matrix.shape[1]
    values, vectors = np.linalg.eigh(variance)
    lives = values > _SMALLEST * max(values[-1], 1e-30)
    root = np.sqrt(values[lives])
    heard = (root[:, None] * vectors[:, lives].T) @ matrix.reshape(channels, -1)
    left, _, _ = np.linalg.svd(heard, full_matrices=False)
    left = left[:, :inner]
    first, core = np.zeros((channels, inner)), np.zeros((inner, heard.shape[1]))
    first[:, : left.shape[1]] = vectors[:, lives] @ (left / root[:, None])
    core[: left.shape[1]] = left.T @ heard
    return first, core.reshape(-1, outputs)


def through(x: FloatArray, first: FloatArray) -> FloatArray:
    """Features [R, C · window] of few channels, [R, inner · window]."""
    rows, channels = len(x), len(first)
    found: FloatArray = np.einsum("rcw,ci->riw", x.reshape(rows, channels, -1), first, optimize=True)
    return found.reshape(rows, -1)


def by_channel(x: NDArray[Any], channels: int) -> NDArray[Any]:
    """Features [R, C · window] as rows of channels [R · window, C]."""
    return np.moveaxis(x.reshape(len(x), channels, -1), 1, 2).reshape(-1, channels)


def moments_of(parts: Iterable[NDArray[Any]]) -> tuple[FloatArray, FloatArray]:
    """Variance [N, N] and mean [N] of rows [R, N]."""
    count, total, product = 0, np.zeros(1), np.zeros(1)
    for part in parts:
        rows = part.astype(np.float64, copy=False)
        count, total, product = count + len(rows), total + rows.sum(axis=0), product + rows.T @ rows
    mean = total / count
    return product / count - np.outer(mean, mean), mean


def _reduced(part: Piece, first: FloatArray, second: FloatArray) -> Piece:
    """What a window that looks at few channels sees, and the codes that it should give."""
    return replace(part, x=through(part.x[0], first)[None], y=(part.y[0] @ second.T)[None])


def _fitted(found: Solution, core: FloatArray) -> FloatArray:
    return core if found.matrix is None else np.asarray(found.matrix[0], dtype=np.float64)


def _codes(x: NDArray[Any], stages: tuple[FloatArray, ...]) -> FloatArray:
    """What the last stage reads."""
    found: FloatArray = (through(x, stages[0]) if len(stages) > 2 else x) @ stages[-2]
    return found
