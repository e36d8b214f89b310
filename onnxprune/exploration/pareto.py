"""The trade-off: runs that no other run beats in everything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.exploration.runs import Figures, Run

RESOURCES = ("params", "flops", "memory", "latency", "size")
"""What a model takes; less is better."""
ACCURACY = "accuracy"
"""More is better."""
_BLOCK = 128
"""Rows that are compared at a time."""


def non_dominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows no other row dominates; shape (N,) for costs of shape (N, K), where less is better.

    One row dominates another if it is nowhere worse and somewhere better. Equal rows do not dominate each other. A
    row with NaN is never part of the set.
    """
    known = np.flatnonzero(~np.isnan(costs).any(axis=1))
    front = np.zeros(len(costs), dtype=np.bool_)
    if not len(known):
        return front
    # Ascending row by row, so that what dominates a row comes before it; without repetitions, so that a row that is
    # nowhere worse than another is somewhere better.
    distinct, of_row = np.unique(costs[known], axis=0, return_inverse=True)
    best = np.zeros(len(distinct), dtype=np.bool_)
    for start in range(0, len(distinct), _BLOCK):
        block = distinct[start : start + _BLOCK]
        rivals = np.concatenate([distinct[:start][best[:start]], block])
        beaten = np.ones((len(block), len(rivals)), dtype=np.bool_)
        for column in range(costs.shape[1]):
            beaten &= rivals[None, :, column] <= block[:, None, column]
        best[start : start + _BLOCK] = beaten.sum(axis=1) == 1  # by itself
    front[known] = best[of_row.reshape(-1)]
    return front


def pareto_front(
    runs: Iterable[Run], over: Sequence[str] = ("latency",), original: Figures | None = None
) -> tuple[Run, ...]:
    """The finished runs that no other beats in accuracy and these resources, the least accurate first.

    Args:
        runs: runs; those that failed or lack one of the figures are left out.
        over: some of ``params``, ``flops``, ``memory``, ``latency`` and ``size``; accuracy always counts.
        original: the figures of the model as it was: a run that it beats is none to recommend.

    Raises:
        UsageError: no resource, or an unknown one.
    """
    wanted = check_resources(over)
    done = [run for run in runs if run.done]
    rows = [costs_of(figures, wanted) for figures in (*done, *([] if original is None else [original]))]
    costs = np.array(rows, dtype=np.float64).reshape(len(rows), 1 + len(wanted))
    front = [run for run, best in zip(done, non_dominated(costs), strict=False) if best]
    return tuple(sorted(front, key=lambda run: (number(run.accuracy), -number(getattr(run, wanted[0])))))


def costs_of(figures: Figures, over: Sequence[str]) -> list[float]:
    """Accuracy, counted downwards, and these resources; NaN for what is not known."""
    return [-number(figures.accuracy), *(number(getattr(figures, name)) for name in over)]


def beats(original: Figures | None, run: Figures, over: Sequence[str]) -> bool:
    """Whether the original is nowhere worse than a run, and somewhere better; not where a figure is not known."""
    if original is None:
        return False
    pairs = list(zip(costs_of(original, over), costs_of(run, over), strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def check_resources(over: Sequence[str]) -> tuple[str, ...]:
    """The names without repetitions and ``accuracy``, which always counts. Raises UsageError for unknown ones."""
    wanted = tuple(dict.fromkeys(name for name in over if name != ACCURACY))
    unknown = [name for name in wanted if name not in RESOURCES]
    if unknown or not wanted:
        raise UsageError(f"give what to weigh accuracy against: some of {', '.join(RESOURCES)}; not '{unknown or ''}'")
    return wanted


def number(value: float | None) -> float:
    """The value, NaN for None."""
    return float("nan") if value is None else float(value)
