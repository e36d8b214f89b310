"""Timing several things in turns, so that what disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import UsageError

Clock = Callable[[], float]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Rounds:
    """How long to measure.

    Attributes:
        warmup: runs of each subject that are not counted; at least one.
        most: rounds at most; in every round each subject has its turn.
        least: rounds at least, however long they take.
        seconds: no new round begins after this time.
        turn: seconds that a turn lasts at least: what is faster runs several times per turn.
    """

    warmup: int = 3
    most: int = 200
    least: int = 10
    seconds: float = 5.0
    turn: float = 0.002

    def __post_init__(self) -> None:
        if self.warmup < 1 or self.least < 1 or self.most < self.least:
            raise UsageError(
                f"measuring needs warm-up runs and rounds, and not fewer than {self.least}: "
                f"warmup={self.warmup}, rounds={self.most}"
            )


def exactly(rounds: int, warmup: int = 3) -> Rounds:
    """That many rounds, however long they take."""
    return Rounds(warmup=warmup, most=rounds, least=rounds)


def sample(subjects: Sequence[Callable[[], object]], rounds: Rounds, clock: Clock = time.perf_counter) -> FloatArray:
    """Seconds per run of every subject (column) in every round (row).

    The order turns round every time, so that no subject always follows the same one.
    """
    repeats = [_repeats(subject, rounds, clock) for subject in subjects]
    rows: list[list[float]] = []
    begin = clock()
    while len(rows) < rounds.most and (len(rows) < rounds.least or clock() - begin < rounds.seconds):
        row = [0.0] * len(subjects)
        order = range(len(subjects))
        for index in order if len(rows) % 2 == 0 else reversed(order):
            run, times = subjects[index], repeats[index]
            start = clock()
            for _ in range(times):
                run()
            row[index] = (clock() - start) / times
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(subjects))


def _repeats(run: Callable[[], object], rounds: Rounds, clock: Clock) -> int:
    """Warm up, and see how many runs a turn takes."""
    fastest = math.inf
    for _ in range(rounds.warmup):
        start = clock()
        run()
        fastest = min(fastest, clock() - start)
    return max(1, math.ceil(rounds.turn / fastest)) if fastest > 0 else 1
