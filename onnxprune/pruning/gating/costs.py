"""What open gates cost: the cost model of plans, as a function of gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.analysis.cost import CostModel, FloatArray, Metric
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.allocation import Problem
from onnxprune.pruning.gating.regions import Gateable
from onnxprune.pruning.regions.relaxing import Merge
from onnxprune.torch.gates.spec import BoolArray

_PART = 8
"""Measured costs are staircases: their slope is taken over this part of a group, and at least over a block."""


@dataclass(frozen=True)
class GatedCost:
    """The cost of a model whose first gates are units of groups, and the others regions.

    A closed branch takes the cost of its layers with it; a closed activation lets layers merge, where that is cheaper
    with what is left of their channels.

    Attributes:
        problem: what a plan would have to solve, with one budget.
        group: for each gate of a unit, its group.
        regions: those that have gates.
    """

    problem: Problem
    group: IntArray
    regions: tuple[Gateable, ...]

    @property
    def _costs(self) -> CostModel:
        return self.problem.costs

    @property
    def _metric(self) -> Metric:
        return self.problem.limits[0][0]

    def removed(self, open: BoolArray) -> IntArray:
        """The units that go from every group."""
        closed = self.group[~open[: len(self.group)]]
        return np.bincount(closed, minlength=len(self.problem.groups)).astype(np.int64)

    def total(self, open: BoolArray) -> float:
        """The cost with these gates open."""
        return self._with(self.removed(open), open)

    def _with(self, removed: IntArray, open: BoolArray) -> float:
        """The cost with so many units removed of every group, and these regions there."""
        kept = self.problem.kept(removed)
        layers, shares = self._costs.per_layer(self._metric, kept), self.shares(open)
        left = self._costs.total(self._metric, kept) - float(((1.0 - shares) * layers).sum())
        for _, merge in self._merged(open):
            left -= self._saved(merge, kept, shares * layers, shares)
        return left

    def gradient(self, open: BoolArray) -> FloatArray:
        """What each gate costs while it is open, all others staying as they are."""
        removed = self.removed(open)
        kept = self.problem.kept(removed)
        shares, units, found = self.shares(open), len(self.group), np.empty(len(open))
        measured = self._metric in self._costs.measured
        found[:units] = (self._slopes(open, removed) if measured else self._exact(open, kept, shares))[self.group]
        layers = self._costs.per_layer(self._metric, kept)
        for number, region in enumerate(self.regions):
            if region.merge is not None:
                found[units + number] = self._saved(region.merge, kept, shares * layers, shares)
                continue
            there = np.array(open)
            there[units + number] = True
            around = self.shares(there)
            found[units + number] = float((around * layers)[list(region.layers)].sum())
        return found

    def shares(self, open: BoolArray) -> FloatArray:
        """The share of each layer's cost that closed branches leave, with these gates open."""
        found = np.ones(len(self._costs.layers))
        for number in np.flatnonzero(~open[len(self.group) :]).tolist():
            if self.regions[number].merge is None:
                found[list(self.regions[number].layers)] = 0.0
        return found

    def _merged(self, open: BoolArray) -> Iterator[tuple[int, Merge]]:
        for number in np.flatnonzero(~open[len(self.group) :]).tolist():
            merge = self.regions[number].merge
            if merge is not None:
                yield number, merge

    def _saved(self, merge: Merge, kept: IntArray, layers: FloatArray, shares: FloatArray) -> float:
        """What a merge takes from the cost of its layers; nothing where it is no cheaper."""
        at = list(merge.layers)
        one = merge.cost * float(self._widths(merge, kept).prod()) * float(shares[at].max())
        return max(float(layers[at].sum()) - one, 0.0)

    def _widths(self, merge: Merge, kept: IntArray) -> FloatArray:
        """The shares of channels that a merged layer still takes and gives."""
        full = self._costs.full
        return np.array([1.0 if owner < 0 else kept[owner] / full[owner] for owner in merge.classes])

    def _exact(self, open: BoolArray, kept: IntArray, shares: FloatArray) -> FloatArray:
        terms, full = self._costs.terms(self._metric), self._costs.full
        layers = self._costs.per_layer(self._metric, kept)
        shares, extra = shares.copy(), np.zeros(len(full))
        for _, merge in self._merged(open):
            at = list(merge.layers)
            if self._saved(merge, kept, shares * layers, shares) <= 0:
                continue
            widths = self._widths(merge, kept)
            for owner, other in zip(merge.classes, widths[::-1].tolist(), strict=True):
                if owner >= 0:
                    extra[owner] += merge.cost * other / full[owner] * float(shares[at].max())
            shares[at] = 0.0
        weighted = replace(terms, coefficient=terms.coefficient * np.append(shares, 1.0)[terms.owner])
        per_unit: FloatArray = self.problem.effect.T @ (weighted.gradient(kept) + extra)
        return per_unit

    def _slopes(self, open: BoolArray, removed: IntArray) -> FloatArray:
        """Differences over blocks, for what is measured."""
        found = np.zeros(len(removed))
        for group, part in enumerate(self._parts.tolist()):
            low = max(int(removed[group]) - part, 0)
            high = min(low + 2 * part, int(self.problem.most[group]))
            if high > low:
                ends = (np.where(np.arange(len(removed)) == group, units, removed) for units in (low, high))
                before, after = (self._with(units, open) for units in ends)
                found[group] = max(before - after, 0.0) / (high - low)
        return found

    @cached_property
    def _parts(self) -> IntArray:
        return np.maximum(self.problem.steps, np.maximum(self.problem.units // _PART, 1))
