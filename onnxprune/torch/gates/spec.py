"""What is gated: a model with one more input per vector of gates, and what open gates cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.ir.model import Model

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GateVector:
    """An input of the gated model, and for each of its positions the number of the gate (-1: always open)."""

    name: str
    gates: IntArray


class Complexity(Protocol):
    """What the model costs, as a function of which gates are open."""

    def total(self, open: BoolArray) -> float:
        """The cost with these gates open."""

    def gradient(self, open: BoolArray) -> FloatArray:
        """What each gate costs while it is open, all others staying as they are."""


@dataclass(frozen=True)
class Gates:
    """The gates of a model.

    Attributes:
        model: with one more input, a vector of factors, per entry of ``vectors``; all else as in ``base``.
        base: the model without gates.
        vectors: those inputs.
        family: of each gate, the family it belongs to.
        regions: of each gate, whether it is that of a region; the others are units of channels.
        least: of each family, how many of its gates stay open.
        cost: what open gates cost.
        limit: what the cost may be at the end.
        settle: which gates stay open, by their scores, so that the limit holds. Raises TrainingError where closing so
            many is not what the scores say.
    """

    model: Model
    base: Model
    vectors: tuple[GateVector, ...]
    family: IntArray
    regions: BoolArray
    least: IntArray
    cost: Complexity
    limit: float
    settle: Callable[[FloatArray], BoolArray]

    @property
    def count(self) -> int:
        """How many gates there are."""
        return len(self.family)

    @cached_property
    def full(self) -> float:
        """The cost with all gates open."""
        return self.cost.total(np.ones(self.count, dtype=bool))

    def open(self, scores: FloatArray) -> BoolArray:
        """The gates that scores above 0 leave open, and of each family at least those that have to stay."""
        order = np.lexsort((-scores, self.family))
        ordered = self.family[order]
        rank = np.empty(self.count, dtype=np.int64)
        rank[order] = np.arange(self.count) - np.searchsorted(ordered, ordered)
        found: BoolArray = (scores > 0) | (rank < self.least[self.family])
        return found
