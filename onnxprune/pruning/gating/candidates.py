"""Which gates a model has: one for each unit of a group of channels, and one for each region that may give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.analysis.analyzing import Analysis, again
from onnxprune.analysis.atoms import Grouping
from onnxprune.analysis.cost import METRICS
from onnxprune.errors import BudgetError, UsageError
from onnxprune.ops.relations import IntArray
from onnxprune.passes.merge_linear import MergeLinear
from onnxprune.pruning.allocation import Problem
from onnxprune.pruning.choosing import limits_of, problem_of, removed_by_axis, rounding, unmet
from onnxprune.pruning.gating.costs import GatedCost
from onnxprune.pruning.gating.inserting import gated, unmasked
from onnxprune.pruning.gating.regions import Gateable, branches, outermost, relaxed
from onnxprune.pruning.gating.settling import Settling
from onnxprune.pruning.options import PlanOptions
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.shrinking import Shrink
from onnxprune.pruning.substituting import replaced
from onnxprune.pruning.widths import grids
from onnxprune.torch.gates.spec import BoolArray, Gates

CHANNELS, BRANCHES, ACTIVATIONS = "channels", "branches", "activations"
GATED = (CHANNELS, BRANCHES, ACTIVATIONS)
"""What may have gates."""


@dataclass(frozen=True)
class Candidates:
    """The gates of an analysed model: first those of units of channels, then those of regions.

    ``per_class`` holds for every class of axes the gate of each position, or -1.
    """

    analysis: Analysis
    options: PlanOptions
    problem: Problem
    group: IntArray
    per_class: tuple[IntArray, ...]
    regions: tuple[Gateable, ...]

    @property
    def limit(self) -> float:
        """What the cost may be at the end."""
        return self.problem.limits[0][1]

    @property
    def cost(self) -> GatedCost:
        """What open gates cost."""
        return GatedCost(self.problem, self.group, self.regions)

    def gates(self) -> Gates:
        """The gated model, and all that learning needs to know of it."""
        cost, units = self.cost, len(self.group)
        made = gated(self.analysis, self.per_class, [(r.replacement, units + i) for i, r in enumerate(self.regions)])
        family = np.concatenate([self.group, np.arange(len(self.regions)) + len(self.problem.groups)])
        least = np.concatenate([np.array(self.problem.spared, dtype=np.int64), np.zeros(len(self.regions), np.int64)])
        return Gates(
            made.model,
            self.analysis.graph.model,
            made.vectors,
            family,
            np.arange(len(family)) >= units,
            least,
            cost,
            self.limit,
            Settling(cost, self.limit, grids(rounding(self.options))),
        )

    def plan(self, open: BoolArray) -> Plan:
        """What closed gates remove, as a plan.

        Raises:
            BudgetError: the budget does not hold in the model that this leaves.
        """
        analysis = self.analysis
        units = len(self.group)
        closed_regions = [one for one, stays in zip(self.regions, open[units:], strict=True) if not stays]
        regions = tuple(one.replacement for one in outermost(closed_regions))
        after = again(analysis, replaced(analysis.model, regions)) if regions else analysis
        after = after.under(analysis.coupling.grouping).measured(self.options.sources)
        coupling = after.coupling
        stays = np.append(open, True)
        # What is left of the graph is coupled as before or less, and its tensors have their names.
        closed = np.zeros(len(coupling.labels), dtype=bool)
        for owner, members in enumerate(coupling.members):
            tensor, dim = coupling.axes.axis(members[0])
            before = analysis.coupling.class_of.get(analysis.coupling.axes.id(tensor, dim))
            if before is not None:
                closed[coupling.offsets[owner] : coupling.offsets[owner + 1]] = ~stays[self.per_class[before]]
        counts = np.bincount(coupling.labels, minlength=len(coupling.pin_of))
        gone = np.bincount(coupling.labels, weights=closed, minlength=len(coupling.pin_of))
        atoms = np.flatnonzero((gone == counts) & (counts > 0) & (coupling.pin_of < 0))
        kept = after.costs.full.copy()
        kept[:-1] -= [len(at) for at in coupling.removed_positions(atoms)]
        measured = analysis.costs.measured
        made = Plan(
            removed=removed_by_axis(after, atoms),
            settings={
                **replace(self.options, grouped=coupling.grouping.value, split=analysis.split.value).settings(),
                "allocation": "gates",
                "criterion": "gates",
                **({"input_shapes": dict(shapes)} if (shapes := analysis.shapes.bound.to_repeat) else {}),
                **({"state": dict(analysis.state)} if analysis.state else {}),
            },
            before={**analysis.totals, **{m: analysis.costs.total(m, analysis.costs.full) for m in measured}},
            after={
                **{m: after.costs.total(m, kept) for m in (*METRICS, *after.costs.measured)},
                "peak_activations": after.costs.peak_activations(kept),
            },
            replaced=regions,
        )
        self._check(made, after, kept, any(one.merge for one in closed_regions))
        return made

    def _check(self, plan: Plan, after: Analysis, kept: IntArray, merges: bool) -> None:
        """Raise BudgetError where the budget does not hold in what a plan leaves, its linear layers merged."""
        metric, limit = self.problem.limits[0]
        left = after.costs.total(metric, kept)
        if merges and metric not in after.costs.measured:
            small = Shrink(plan, self.options.registry)(after.model).model
            left = again(self.analysis, MergeLinear()(small).model).totals[metric]
        if left > limit * (1 + 1e-9):
            raise BudgetError(f"closed gates leave {left:,.0f} {metric}, and {limit:,.0f} were asked for")


def candidates(analysis: Analysis, options: PlanOptions, what: Sequence[str]) -> Candidates:
    """The gates of a model.

    Args:
        analysis: of the model.
        options: the budget, one of them, and what may not shrink.
        what: of ``channels``, ``branches`` and ``activations``.

    Raises:
        UsageError: no budget or more than one, an option that gates do not know, or nothing of this may go.
        BudgetError: the budget cannot be met with all gates closed.
    """
    if odd := [one for one in what if one not in GATED]:
        raise UsageError(f"'{odd[0]}' can have no gates; name some of {', '.join(GATED)}")
    if options.exact_norm or options.grouped == "best":
        raise UsageError("gates do without exact_norm, and know grouped convolutions as aligned, balanced or whole")
    if options.grouped != "auto":
        analysis = analysis.under(Grouping(options.grouped))
    analysis = analysis.measured(options.sources)
    limits = limits_of(analysis, options)
    if len(limits) != 1:
        raise UsageError("gates learn to meet one budget; give one of reduce, max_params, max_flops, max_memory")
    blind = unmasked(analysis)
    problem = problem_of(
        analysis,
        options,
        limits,
        lambda group: CHANNELS in what and group.approximate is None and blind.isdisjoint(group.classes.tolist()),
    )
    group: list[int] = []
    of_atom = np.full(len(analysis.coupling.pin_of), -1, dtype=np.int64)
    for one, spared in zip(problem.groups, problem.spared, strict=True):
        if spared >= one.units:
            continue
        for cell, take in enumerate(one.take.tolist()):
            members = one.atoms[one.cells == cell][: one.units * take]
            of_atom[members] = len(group) + np.arange(len(members)) // take
        group += [one.index] * one.units
    coupling = analysis.coupling
    per_class = tuple(of_atom[coupling.class_labels(owner)] for owner in range(len(coupling.members)))
    regions = (branches(analysis) if BRANCHES in what else []) + (
        relaxed(analysis, limits[0][0]) if ACTIVATIONS in what else []
    )
    found = Candidates(analysis, options, problem, np.array(group, dtype=np.int64), per_class, tuple(regions))
    if not group and not regions:
        raise UsageError(
            f"nothing here can have a gate: no {', no '.join(what)} may go without changing what others compute"
        )
    _check_reachable(found)
    return found


def _check_reachable(found: Candidates) -> None:
    """Raise BudgetError where the budget does not hold with all gates closed that may close."""
    problem, cost = found.problem, found.cost
    least = np.concatenate([np.zeros(len(found.group), dtype=bool), np.zeros(len(found.regions), dtype=bool)])
    for group, spared in enumerate(problem.spared):
        least[np.flatnonzero(found.group == group)[:spared]] = True
    metric, limit = problem.limits[0]
    if (left := cost.total(least)) > limit:
        told = unmet(found.analysis, problem)
        raise BudgetError(
            told or f"closed gates cannot leave less than {left:,.0f} {metric}; {limit:,.0f} were asked for"
        )
