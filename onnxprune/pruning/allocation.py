"""Allocations: how many channels go from which group.

``complexity`` is our reading of arXiv 2208.12816 (known of it: layers are drawn by weighted random sampling in
proportion to their share of the complexity): draw a layer l with probability C_l / ΣC among the layers still above
their floor, remove one step of channels from its group, update the complexity of every layer that produces or
consumes them, and repeat until every budget is met. A step is 1/64 of the group's channels on average: where that is
no whole number, whole steps are drawn so much less or more often. (Steps of at least one channel for all would take
from narrow groups, bottlenecks and residual streams, many times the share that wide ones lose, which costs accuracy:
docs/accuracy.md.) Where counts go in whole blocks, a block goes when so much of it is drawn. ``complexity-mean``
follows the expectation of these draws, ``uniform`` removes one ratio everywhere, ``global`` lets the units of all
groups compete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onnxprune.analysis.atoms import Group
from onnxprune.analysis.cost import CostModel, Metric
from onnxprune.errors import UsageError, unknown
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.widths import ANY, Grid

FloatArray = NDArray[np.float64]

#: One step is this share of a group's units. Finer steps change the result little and cost time.
_STEPS_PER_GROUP = 64
#: A budget that is met with less than this share of the original to spare needs no correction.
_NEGLIGIBLE = 0.005


class LossCurves(Protocol):
    """Losses that were measured group by group, which know what scores of single channels cannot."""

    def losses(self, groups: Sequence[Group], scored: Sequence[FloatArray]) -> tuple[FloatArray, ...]:
        """Per group, the loss with its first 0, 1, 2, ... units gone, given what scores say of that.

        Raises UsageError where the curves are those of other groups.
        """


@dataclass(frozen=True)
class Problem:
    """What an allocation has to solve.

    ``spared[g]`` are the units that group g has to keep, ``grid`` the counts that may be kept; ``limits`` the budgets
    as (metric, largest allowed total); ``groups_of_layer[l]`` the groups whose removal takes filters from layer l.
    ``losses[g][u]`` is the importance that goes with the first u units of group g (for ``global`` only).
    """

    costs: CostModel
    metric: Metric
    groups: tuple[Group, ...]
    spared: tuple[int, ...]
    limits: tuple[tuple[Metric, float], ...]
    groups_of_layer: tuple[tuple[int, ...], ...]
    losses: tuple[FloatArray, ...] = ()
    grid: Grid = ANY

    @cached_property
    def levels(self) -> tuple[IntArray, ...]:
        """The numbers of units that may go from every group, ascending from 0."""
        return tuple(self.grid.levels(group, least) for group, least in zip(self.groups, self.spared, strict=True))

    @cached_property
    def steps(self) -> IntArray:
        """The units that one draw takes from every group: within a block of the grid nothing would be saved."""
        blocks = [self.grid.step(group) for group in self.groups]
        return np.maximum(np.maximum(1, self.units // _STEPS_PER_GROUP), np.array(blocks, dtype=np.int64))

    @cached_property
    def effect(self) -> csr_matrix:
        """Positions that one unit of a group (column) takes from a class (row)."""
        rows = np.concatenate([g.classes for g in self.groups]) if self.groups else np.zeros(0, dtype=np.int64)
        data = [g.multiplicity for g in self.groups]
        columns = np.repeat(np.arange(len(self.groups)), [len(g.classes) for g in self.groups])
        values = np.concatenate(data) if data else np.zeros(0, dtype=np.int64)
        return csr_matrix((values, (rows, columns)), shape=(len(self.costs.full), len(self.groups)))

    @cached_property
    def units(self) -> IntArray:
        """The units of every group."""
        return np.array([g.units for g in self.groups], dtype=np.int64)

    @cached_property
    def most(self) -> IntArray:
        """The largest number of units that may go from every group."""
        return np.array([int(levels[-1]) for levels in self.levels], dtype=np.int64)

    def kept(self, removed: IntArray | FloatArray) -> IntArray:
        """Kept counts of the classes when so many units go from every group."""
        counts: IntArray = self.costs.full - self.effect @ removed
        return counts

    def met(self, kept: IntArray) -> bool:
        """Whether every budget holds."""
        return all(self.costs.total(metric, kept) <= limit for metric, limit in self.limits)

    def spare(self, kept: IntArray) -> float:
        """What budgets leave over, as a share of the model: of the scarcest; negative where one does not hold."""
        full = self.costs.full
        return min(
            (limit - self.costs.total(metric, kept)) / (self.costs.total(metric, full) or 1.0)
            for metric, limit in self.limits
        )

    def to_levels(self, removed: FloatArray) -> IntArray:
        """The largest allowed numbers that do not exceed ``removed``."""
        return np.array(
            [
                levels[np.searchsorted(levels, r, side="right") - 1]
                for levels, r in zip(self.levels, removed, strict=True)
            ],
            dtype=np.int64,
        )


Allocation = Callable[[Problem, np.random.Generator], IntArray]
"""Finds the units to remove per group; stops where nothing is left to remove, met or not."""


def complexity(problem: Problem, rng: np.random.Generator) -> IntArray:
    """Draw layers in proportion to their complexity; see the module's description."""
    # What was drawn, and the whole blocks of it, which go.
    drawn, removed = (np.zeros(len(problem.groups), dtype=np.int64) for _ in range(2))
    kept = problem.kept(removed)
    expected = kept.copy()
    steps = np.maximum(1, problem.units // _STEPS_PER_GROUP)
    pace = problem.units / _STEPS_PER_GROUP / steps
    open_groups = [[g for g in groups if problem.most[g] > 0] for groups in problem.groups_of_layer]
    chance = _chances(open_groups, pace)
    effect = problem.effect.tocsc()
    while not problem.met(kept):
        weights = np.cumsum(problem.costs.per_layer(problem.metric, expected) * chance)
        if not len(weights) or weights[-1] <= 0:
            break
        layer = int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))
        choices = open_groups[layer]
        group = choices[0] if len(choices) == 1 else _draw(choices, (problem.units - drawn) * pace, rng)
        step = min(int(steps[group]), int(problem.most[group] - drawn[group]))
        drawn[group] += step
        column = slice(effect.indptr[group], effect.indptr[group + 1])
        classes, per_unit = effect.indices[column], effect.data[column]
        expected[classes] -= per_unit * step
        levels = problem.levels[group]
        before, after = (int(np.searchsorted(levels, n, side="right")) - 1 for n in (removed[group], drawn[group]))
        kept[classes] -= per_unit * (levels[after] - levels[before])
        if before < after and problem.met(kept):
            # The last step need not be a whole one: take the smallest that meets the budgets.
            low, high = before + 1, after
            while low < high:
                middle = (low + high) // 2
                trial = kept.copy()
                trial[classes] += per_unit * (levels[after] - levels[middle])
                low, high = (low, middle) if problem.met(trial) else (middle + 1, high)
            kept[classes] += per_unit * (levels[after] - levels[low])
            after = low
        removed[group] = levels[after]
        if drawn[group] == problem.most[group]:
            open_groups = [[g for g in groups if g != group] for groups in open_groups]
            chance = _chances(open_groups, pace)
    return removed


def _chances(open_groups: list[list[int]], pace: FloatArray) -> FloatArray:
    """What every layer's complexity is multiplied by in a draw; 0 for a layer that has nothing more to lose.

    A step is a whole number of units, which is more than 1/64 of a narrow group: that is drawn less often.
    """
    return np.array([float(pace[groups].mean()) if groups else 0.0 for groups in open_groups])


def _draw(choices: list[int], units: FloatArray, rng: np.random.Generator) -> int:
    weights = units[choices]
    return int(rng.choice(choices, p=weights / weights.sum()))


def complexity_mean(problem: Problem, rng: np.random.Generator) -> IntArray:
    """Follow the expectation of ``complexity``'s draws, eight draws at a time; no randomness."""
    share = np.zeros((len(problem.groups), len(problem.groups_of_layer)))
    for layer, groups in enumerate(problem.groups_of_layer):
        total = float(problem.units[list(groups)].sum()) if groups else 0.0
        for group in groups:
            share[group, layer] = problem.units[group] / total
    steps = problem.units / _STEPS_PER_GROUP
    flow = np.zeros(len(problem.groups))
    while not problem.met(problem.kept(problem.to_levels(flow))):
        open_groups = flow < problem.most
        weights = problem.costs.per_layer(problem.metric, problem.kept(flow))
        rate = (share * open_groups[:, None]) @ weights * steps
        if rate.sum() <= 0:
            break
        rate *= 8 * max(steps[open_groups].mean(), 1.0) / rate.sum()
        ahead = np.minimum(flow + rate, problem.most)
        if problem.met(problem.kept(problem.to_levels(ahead))):
            low, high = 0.0, 1.0
            for _ in range(30):
                middle = (low + high) / 2
                trial = np.minimum(flow + middle * rate, problem.most)
                low, high = (low, middle) if problem.met(problem.kept(problem.to_levels(trial))) else (middle, high)
            ahead = np.minimum(flow + high * rate, problem.most)
        flow = ahead
    return problem.to_levels(flow)


def global_(problem: Problem, rng: np.random.Generator) -> IntArray:
    """Units of all groups compete: what goes first loses the least importance per cost saved.

    Cost counts against the budgets that do not hold yet, each in units of what is still too much; it follows what is
    left of the neighbours. A group offers the step to the level with the best rate, so that a dear unit before cheap
    ones does not hide them.
    """
    if not problem.losses:
        raise UsageError("allocation 'global' needs the losses of the groups")
    groups = len(problem.groups)
    removed = np.zeros(groups, dtype=np.int64)
    steps = problem.steps
    target, loss = np.zeros(groups, dtype=np.int64), np.full(groups, np.inf)
    for group in range(groups):
        target[group], loss[group] = _best_step(problem, group, 0, int(steps[group]))
    kept = problem.kept(removed)
    while not problem.met(kept):
        saved = _savings(problem, removed, kept, target)
        rates = np.where((target > removed) & (saved > 0), loss / np.where(saved > 0, saved, 1.0), np.inf)
        group = int(np.argmin(rates)) if groups else 0
        if not groups or not np.isfinite(rates[group]):
            break
        before, after = int(removed[group]), int(target[group])
        removed[group] = after
        kept = problem.kept(removed)
        if problem.met(kept):
            # The last step need not be a whole one: take the smallest that meets the budgets.
            for level in problem.levels[group]:
                removed[group] = level
                if level > before and problem.met(problem.kept(removed)):
                    break
            break
        target[group], loss[group] = _best_step(problem, group, after, int(steps[group]))
    return removed


def _best_step(problem: Problem, group: int, removed: int, by: int) -> tuple[int, float]:
    """The next level with the least loss per unit, at least ``by`` units on, and what is lost per unit."""
    levels = problem.levels[group]
    ahead = levels[np.searchsorted(levels, min(removed + by, int(levels[-1]))) :]
    ahead = ahead[ahead > removed]
    if not len(ahead):
        return removed, np.inf
    losses = problem.losses[group]
    rates = np.maximum(losses[ahead] - losses[removed], 0.0) / (ahead - removed)
    best = int(np.argmin(rates))
    return int(ahead[best]), float(rates[best])


def _savings(problem: Problem, removed: IntArray, kept: IntArray, target: IntArray) -> FloatArray:
    """What one unit of every group saves of the budgets that do not hold, in shares of what is too much."""
    saved = np.zeros(len(problem.groups))
    for metric, limit in problem.limits:
        total = problem.costs.total(metric, kept)
        if total <= limit:
            continue
        if metric in problem.costs.measured:
            for group in np.flatnonzero(target > removed).tolist():
                trial = removed.copy()
                trial[group] = target[group]
                change = total - problem.costs.total(metric, problem.kept(trial))
                saved[group] += change / (target[group] - removed[group]) / (total - limit)
        else:
            saved += problem.effect.T @ problem.costs.gradient(metric, kept) / (total - limit)
    return saved


def uniform(problem: Problem, rng: np.random.Generator) -> IntArray:
    """One ratio everywhere: the smallest that meets the budgets, group by group."""
    ratio = np.concatenate(
        [levels[1:] / max(g.units, 1) for g, levels in zip(problem.groups, problem.levels, strict=True)]
        or [np.zeros(0)]
    )
    group = np.repeat(np.arange(len(problem.groups)), [len(levels) - 1 for levels in problem.levels])
    level = np.concatenate([levels[1:] for levels in problem.levels] or [np.zeros(0, dtype=np.int64)])
    order = np.argsort(ratio, kind="stable")
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle)
            if problem.met(problem.kept(_applied(problem, group, level, order[:middle])))
            else (middle + 1, high)
        )
    return _applied(problem, group, level, order[:low])


def _applied(problem: Problem, group: IntArray, level: IntArray, chosen: IntArray) -> IntArray:
    removed = np.zeros(len(problem.groups), dtype=np.int64)
    np.maximum.at(removed, group[chosen], level[chosen])
    return removed


def give_back(problem: Problem, removed: IntArray) -> IntArray:
    """Return units that the budgets do not need, where the last steps went far beyond them.

    A unit of a group that spans many layers can be worth several percent of the model. What it takes too much, finer
    groups get back, those with the costliest units first.
    """
    removed = removed.copy()
    if problem.spare(problem.kept(removed)) <= _NEGLIGIBLE:
        return removed
    full = problem.spare(problem.kept(np.zeros_like(removed)))
    worth = np.array(
        [problem.spare(problem.kept(np.eye(1, len(removed), g, dtype=np.int64)[0])) - full for g in range(len(removed))]
    )
    for group in np.argsort(-worth, kind="stable").tolist():
        if problem.spare(problem.kept(removed)) <= _NEGLIGIBLE:
            break
        removed[group] = _fewest(problem, removed, group)
    return removed


def give_back_partly(problem: Problem, removed: IntArray, blocks: Grid, enough: float) -> IntArray:
    """Return parts of blocks until the budgets leave over no more than a share ``enough`` of the model.

    A part costs the engine a whole block: first come the groups where that is least, for what the budgets regain.
    """
    removed = removed.copy()
    shrinks = np.asarray(problem.effect.sum(axis=1)).ravel() > 0

    def work(kept: IntArray) -> float:
        """Multiply-accumulates where counts are whole blocks."""
        whole = -(-kept // blocks.multiple) * blocks.multiple
        return problem.costs.total("flops", np.where(shrinks, whole, kept))

    while (spare := problem.spare(before := problem.kept(removed))) > enough:
        best = (np.inf, 0, 0)
        for group in np.flatnonzero(removed).tolist():
            trial = removed.copy()
            trial[group] = _fewest(problem, removed, group)
            regained = spare - problem.spare(kept := problem.kept(trial))
            if regained > 0:
                best = min(best, ((work(kept) - work(before)) / regained, group, int(trial[group])))
        if best[0] == np.inf:
            break
        removed[best[1]] = best[2]
    return removed


def _fewest(problem: Problem, removed: IntArray, group: int) -> int:
    """The least that may go from a group so that the budgets hold, all others staying as they are."""
    levels = problem.levels[group]
    # What goes may lie between two levels, where it followed another grid.
    levels = np.append(levels[levels < removed[group]], removed[group])
    trial = removed.copy()
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        trial[group] = levels[middle]
        low, high = (low, middle) if problem.met(problem.kept(trial)) else (middle + 1, high)
    return int(levels[low])


def same_share(problem: Problem, share: float) -> IntArray:
    """That share of every group's units, rounded to what is allowed; no budget is looked at."""
    wanted = np.floor(problem.units * share + 0.5)
    return problem.to_levels(wanted)


def allocation(name: str) -> Allocation:
    """The built-in allocation of that name. Raises UsageError for an unknown one."""
    known: dict[str, Allocation] = {
        "complexity": complexity,
        "complexity-mean": complexity_mean,
        "uniform": uniform,
        "global": global_,
    }
    if name not in known:
        raise UsageError(unknown("allocation", name, known))
    return known[name]
