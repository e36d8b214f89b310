"""More than channels: how much of a budget each lever takes, decided by what is left of the answers.

Several resolutions and several shares are tried. For each, regions give way until that share of what is to go is saved,
channels go until the budget is met, all is fitted, and the outputs on samples that the fit has not seen decide.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

from onnxprune.analysis.analyzing import Analysis, again
from onnxprune.analysis.cost import Metric
from onnxprune.data.fidelity import measure_fidelity
from onnxprune.data.samples import Samples
from onnxprune.errors import BudgetError, PlanError, UsageError
from onnxprune.ir.model import Model
from onnxprune.ops.substitutes import KINDS
from onnxprune.pruning.choosing import amount, choose, limits_of
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.options import CHANNELS, MEASURED, RANKS, REGIONS, RESOLUTION, JobOptions, PlanOptions
from onnxprune.pruning.plan import Plan, Replacement
from onnxprune.pruning.regions.candidates import candidates
from onnxprune.pruning.regions.paying import pays, select_paying
from onnxprune.pruning.resizing import finer, resolutions
from onnxprune.pruning.shrinking import Shrink
from onnxprune.pruning.substituting import replaced

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""The parts of what is to go that regions take."""
_RESOLUTIONS = 3
"""How many smaller ones are tried, at most: that which alone meets the budget is one."""
_MOST_TRIED = 128
"""What trials of resolutions and allocations are fitted to, at most."""
_ALLOCATIONS = ("global", "uniform")
"""Those that ``measured`` compares."""
_HELD_OUT = 4
"""Of every so many samples, one judges and is not fitted to."""
_FEWEST = 16


@dataclass(frozen=True)
class Trial:
    """One way to meet the budget, and the damage to the outputs of it: nats, or squared error over variance."""

    plan: Plan
    damage: float


Planner = Callable[[Analysis, PlanOptions], Plan]
"""Plans what channels go of a model in which regions may have given way. Raises BudgetError where it cannot."""


def plan_levers(
    analysis: Analysis, options: PlanOptions, samples: Samples | None, job: JobOptions, planner: Planner | None = None
) -> Plan:
    """A plan for several levers: of several shares of each, that by which least of the answers is lost.

    Args:
        analysis: of the original.
        options: of the plan.
        samples: to fit to and to judge by; None if there are none.
        job: how to compensate.
        planner: how channels are planned, where it is more than a choice (a latency that is measured).

    Raises:
        UsageError: there are too few samples, or there is no budget.
        BudgetError: the budget cannot be met.
    """
    options = options if samples is None else replace(options, calibration=samples)
    analysis = analysis.measured(options.sources)
    named = "allocation 'measured'" if options.pulled == (CHANNELS,) else f"levers '{options.levers}'"
    if options.channels is not None:
        raise UsageError(f"{named}: that takes a budget, such as reduce, and no share of channels")
    if options.pulled == (RESOLUTION,):
        return _as_asked(_largest(analysis, options, planner or partial(_foreseen, levers=options.pulled)), options)
    if samples is None or job.compensation != "refit":
        raise UsageError(f"{named}: samples decide what gives way; give calibration, and compensation refit")
    if len(samples) < _FEWEST:
        raise UsageError(f"{named}: that takes {_FEWEST} samples at least, not {len(samples)}")
    cut = len(samples) // _HELD_OUT
    if samples.fixed:
        cut = max(1, cut // samples.step) * samples.step
    judged, fitted = samples.part(0, cut), samples.part(cut, len(samples))
    # These differ by more than few samples can hide, and each trial is a plan and a fit.
    few = options.allocation == MEASURED or RESOLUTION in options.pulled
    few = few and planner is None and len(fitted) > _MOST_TRIED and not samples.fixed
    fitted = fitted.first(_MOST_TRIED) if few else fitted
    planner = planner or partial(_foreseen, levers=options.pulled)
    trials = list(_trials(analysis, replace(options, calibration=fitted), judged, job, planner))
    best = min(trials, key=lambda trial: trial.damage).plan
    if few and best.removed:
        # What gives way is known; which channels go is chosen with all samples.
        base = again(analysis, replaced(analysis.model, best.replaced)) if best.replaced else analysis
        absolute = replace(_absolute(analysis, options), allocation=best.settings["allocation"])
        whole = planner(base, replace(absolute, sensitivity=None) if best.replaced else absolute)
        best = replace(whole, replaced=best.replaced, before=best.before)
    return _as_asked(best, options)


def _as_asked(plan: Plan, options: PlanOptions) -> Plan:
    """The plan with the settings that make it again: trials were given absolute budgets."""
    asked = _settings(options)
    kept = {name: value for name, value in plan.settings.items() if name in asked or not name.startswith("max_")}
    return replace(plan, settings={**asked, **kept, "levers": options.levers})


def _largest(analysis: Analysis, options: PlanOptions, planner: Planner) -> Plan:
    """The largest maps that meet the budget by themselves: nothing is fitted, so that no samples are needed."""
    limits = dict(limits_of(analysis, options))
    before = _totals(analysis)
    metric = next(iter(limits))
    absolute = replace(_absolute(analysis, options), sensitivity=None)
    # Time does not fall as MACs do: how small maps have to be for it is seen.
    found = _smaller(analysis, options, 0.0 if options.timed else limits[metric] / before[metric])
    larger, refusal = None, None
    for chosen, smaller in found:
        try:
            plan = planner(smaller, absolute)
            break
        except BudgetError as error:
            larger, refusal = chosen.kernel, error
    else:
        assert refusal is not None
        raise refusal
    for one, model in () if options.timed else finer(analysis.model, chosen, larger):
        smaller = again(analysis, model)
        with contextlib.suppress(BudgetError):
            plan, chosen = planner(smaller, absolute), _told(one, analysis, smaller, options)
            break
    return replace(plan, replaced=(chosen,), before=before)


def _trials(
    analysis: Analysis, options: PlanOptions, judged: Samples, job: JobOptions, planner: Planner
) -> Iterator[Trial]:
    """Plans at all resolutions, with more and more regions. Raises BudgetError if there is none."""
    fitted = options.calibration
    assert isinstance(fitted, Samples)
    limits = dict(limits_of(analysis, options))
    absolute = _absolute(analysis, options)
    metric = next(iter(limits))
    before = _totals(analysis)
    share = max(limits[metric] / before[metric], 0.0)
    refusal: BudgetError | None = None
    tried, met = set[tuple[Replacement, ...]](), False
    judged_times: dict[Replacement, bool] = {}
    for smaller, base in _resolutions(analysis, options, share):
        kept = absolute if base is analysis else replace(absolute, sensitivity=None)
        wanted = max(_totals(base).get(metric, before[metric]) - limits[metric], 0.0)
        for regions in _giving_way(base, options, fitted, metric, wanted, judged_times):
            ways = (*smaller, *regions)
            if ways in tried:
                continue
            tried.add(ways)
            after = again(base, replaced(base.model, regions)) if regions else base
            for allocation in _ALLOCATIONS if options.allocation == MEASURED else (options.allocation,):
                # What a scan tells is of the original's groups.
                how = replace(kept, allocation=allocation, sensitivity=None if regions else kept.sensitivity)
                try:
                    plan = planner(after, how)
                except BudgetError as error:
                    refusal = error
                    continue
                plan = replace(plan, replaced=ways, before={**before, **plan.before} if not ways else before)
                met = True
                yield Trial(plan, _damage(analysis.model, plan, fitted, judged, job))
                if not plan.removed:
                    break
    if refusal is not None and not met:
        slow = sum(not paid for paid in judged_times.values())
        left_out = f" ({slow} layers of low rank would be slower here than what they stand for, and were left out)"
        why = left_out if slow else ""
        raise BudgetError(f"{refusal}{why}")


def _absolute(analysis: Analysis, options: PlanOptions) -> PlanOptions:
    """The same budgets as numbers, for channels alone: parts of the original are not those of what is left of it."""
    asked: dict[str, Any] = {f"max_{metric}": limit for metric, limit in limits_of(analysis, options)}
    return replace(options, reduce=None, levers=CHANNELS, **asked)


def _resolutions(
    analysis: Analysis, options: PlanOptions, share: float
) -> Iterator[tuple[tuple[Replacement, ...], Analysis]]:
    """The resolutions to try: as it is, and smaller ones until the MACs are no more than a share is to be left."""
    yield (), analysis
    if RESOLUTION not in options.pulled:
        return
    try:
        found = _smaller(analysis, options, share)
    except UsageError as error:
        warnings.warn(f"the resolution stays as it is: {error}", stacklevel=2)
        return
    # Each is a plan of channels and a fit: some of many do.
    few = min(len(found), _RESOLUTIONS)
    chosen = (found[-1 - number * len(found) // few] for number in reversed(range(few)))
    yield from (((one,), smaller) for one, smaller in chosen)


def _smaller(analysis: Analysis, options: PlanOptions, share: float) -> list[tuple[Replacement, Analysis]]:
    """Smaller and smaller maps, until the MACs are no more than a share is to be left.

    Raises:
        UsageError: none is possible, or they save nothing of what counts.
    """
    totals, metric = analysis.totals, options.metric
    found = list[tuple[Replacement, Analysis]]()
    try:
        for one, model in resolutions(analysis.model):
            smaller = again(analysis, model)
            if metric in totals and smaller.totals[metric] >= totals[metric]:
                raise PlanError(f"smaller maps save no {metric}")
            found.append((_told(one, analysis, smaller, options), smaller))
            if smaller.totals["flops"] <= share * totals["flops"]:
                break
    except PlanError as error:
        raise UsageError(f"levers '{RESOLUTION}': {error}") from error
    if not found:
        raise UsageError(f"levers '{RESOLUTION}': the maps are too small to be made smaller")
    return found


def _told(one: Replacement, analysis: Analysis, smaller: Analysis, options: PlanOptions) -> Replacement:
    """With what it saves of what the budget counts, where that is counted."""
    metric = options.metric
    counted = metric in analysis.totals
    return replace(one, saved={metric: analysis.totals[metric] - smaller.totals[metric]} if counted else {})


def _giving_way(
    base: Analysis,
    options: PlanOptions,
    fitted: Samples,
    metric: Metric,
    wanted: float,
    judged_times: dict[Replacement, bool],
) -> Iterator[tuple[Replacement, ...]]:
    """Which regions give way, more and more of them, for shares of what is ``wanted`` of a metric."""
    kinds = [kind for kind in KINDS if (RANKS if kind == "factors" else REGIONS) in options.pulled]
    if not kinds:
        yield ()
        return
    found = candidates(base, metric, fitted, kinds, seed=options.seed)
    alone = not {CHANNELS, RESOLUTION}.intersection(options.pulled)
    # What becomes factors cannot be part of a larger region, so regions are tried without them, too.
    pools = (
        [found, [one for one in found if one.replacement.kind != "factors"]] if REGIONS in options.pulled else [found]
    )
    for pool, share in product(pools, _SHARES[-1:] if alone else _SHARES):
        chosen = select_paying(pool, share * wanted, partial(pays, base.model), judged_times)
        yield tuple(one.replacement for one in chosen)


def _foreseen(analysis: Analysis, options: PlanOptions, levers: Sequence[str]) -> Plan:
    """What channels go, where budgets are counted or predicted; nothing, where regions have met them.

    Raises:
        BudgetError: regions alone were to meet them, and do not, or channels cannot.
    """
    analysis = analysis.measured(options.sources)
    totals = _totals(analysis)
    over = [metric for metric, limit in options.limits.items() if totals[metric] > limit]
    if not over:
        return Plan({}, _settings(options), after=totals)
    if CHANNELS not in levers:
        alone = ",".join(levers)
        raise BudgetError(
            f"{alone} alone: {amount(over[0], totals[over[0]])} {over[0]} are left, and "
            f"{amount(over[0], options.limits[over[0]])} were asked for; take channels, too (--levers channels,{alone})"
        )
    return choose(analysis, options)


def _totals(analysis: Analysis) -> dict[str, float]:
    """What the whole takes, as counted and as measured or predicted."""
    measured: dict[str, float] = {m: analysis.costs.total(m, analysis.costs.full) for m in analysis.costs.measured}
    return {**analysis.totals, **measured}


def _settings(options: PlanOptions) -> dict[str, Any]:
    """What a plan records, a criterion by its name."""
    options = options.decided()
    named = options.criterion
    return {**options.settings(), "criterion": named if isinstance(named, str) else named.name}


def _damage(model: Model, plan: Plan, fitted: Samples, judged: Samples, job: JobOptions) -> float:
    """How much the outputs differ after a fit, on samples apart."""
    base = replaced(model, plan.replaced)
    result = Shrink(plan, job.registry)(base).model if plan.removed else base
    done = compensate(result, model, plan, fitted, memory=job.memory, registry=job.registry)
    if done.unfitted(plan):
        return math.inf
    outputs = measure_fidelity(model, done.model, judged, task=job.task).outputs
    return max(one.error if one.kl is None else one.kl for one in outputs)
