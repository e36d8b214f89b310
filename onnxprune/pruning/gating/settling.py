"""From scores to gates that are open or closed for good, so that a budget holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune._display import TOTALS, long, percent
from onnxprune.analysis.cost import FloatArray
from onnxprune.errors import TrainingError
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.gating.costs import GatedCost
from onnxprune.pruning.widths import ANY, Grid
from onnxprune.torch.gates.spec import BoolArray

_SLACK = 0.1
"""The share of the whole cost by which scores may miss a budget; beyond that, closing is not what they say."""
_ENOUGH = 0.025
"""The share of the whole cost that a coarse grid may leave unused."""


@dataclass(frozen=True)
class Settling:
    """Decides, by scores alone, which gates stay open."""

    cost: GatedCost
    limit: float
    grids: tuple[Grid, ...] = (ANY,)

    def __call__(self, scores: FloatArray) -> BoolArray:
        """The gates that stay open: those of the highest scores, on the coarsest grid that leaves little unused.

        Raises:
            TrainingError: at score 0 much more is left than the limit.
        """
        full = self.cost.total(np.ones(len(scores), dtype=bool))
        left = self.cost.total(self._above(scores, 0.0, self._levels(ANY)))
        if left > self.limit + _SLACK * full:
            metric = self.cost.problem.limits[0][0]
            title, unit = TOTALS.get(metric, (metric, ""))
            raise TrainingError(
                f"the gates did not close: of {long(full, unit)} {title}, {percent(left / full)} are left, and "
                f"{percent(self.limit / full)} were asked for; nothing was written. Let them learn for longer "
                "(--gate-epochs) or faster (--gate-lr), or ask for less"
            )
        for grid in self.grids:
            open = self._settled(scores, self._levels(grid))
            spent = self.cost.total(open)
            if spent <= self.limit and (spent >= self.limit - _ENOUGH * full or grid is self.grids[-1]):
                return open
        raise TrainingError("with all gates closed that may close, the budget does not hold; nothing was written")

    def _settled(self, scores: FloatArray, levels: Sequence[IntArray]) -> BoolArray:
        marks = np.concatenate([[-np.inf], np.unique(scores)])
        low, high = 0, len(marks) - 1
        while low < high:
            middle = (low + high) // 2
            met = self.cost.total(self._above(scores, marks[middle], levels)) <= self.limit
            low, high = (low, middle) if met else (middle + 1, high)
        return self._reopened(scores, self._above(scores, marks[low], levels), levels)

    def _levels(self, grid: Grid) -> tuple[IntArray, ...]:
        """How many units of every group may stay, ascending."""
        problem = self.cost.problem
        pairs = zip(problem.groups, problem.spared, strict=True)
        return tuple(np.sort(group.units - grid.levels(group, least)) for group, least in pairs)

    def _above(self, scores: FloatArray, mark: float, levels: Sequence[IntArray]) -> BoolArray:
        """The gates whose scores are above a mark, so many of each group as may stay."""
        open: BoolArray = scores > mark
        for group, allowed in enumerate(levels):
            members = np.flatnonzero(self.cost.group == group)
            if not len(members):
                continue
            wanted = int(np.count_nonzero(open[members]))
            count = int(allowed[max(int(np.searchsorted(allowed, wanted, side="right")) - 1, 0)])
            open[members] = False
            open[_highest(scores, members, count)] = True
        return open

    def _reopened(self, scores: FloatArray, open: BoolArray, levels: Sequence[IntArray]) -> BoolArray:
        """What the budget does not need stays open, the highest scores first."""
        tried: set[int] = set()
        units = len(self.cost.group)
        families = np.concatenate([self.cost.group, np.arange(units, len(scores)) - units + len(levels)])
        while True:
            closed = [i for i in np.flatnonzero(~open).tolist() if int(families[i]) not in tried]
            if not closed:
                return open
            best = max(closed, key=lambda i: float(scores[i]))
            trial, family = open.copy(), int(families[best])
            if family < len(levels):
                members = np.flatnonzero(self.cost.group == family)
                above = levels[family][levels[family] > np.count_nonzero(open[members])]
                if len(above):
                    trial[_highest(scores, members, int(above[0]))] = True
            else:
                trial[best] = True
            if (trial == open).all() or self.cost.total(trial) > self.limit:
                tried.add(family)
            else:
                open = trial


def _highest(scores: FloatArray, members: IntArray, count: int) -> IntArray:
    return members[np.argsort(-scores[members], kind="stable")[:count]]
