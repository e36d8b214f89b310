"""From budgets to a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.analysis.atoms import Group, Grouping
from onnxprune.analysis.cost import METRICS, FloatArray, Layer, Metric
from onnxprune.errors import BudgetError, UsageError
from onnxprune.ir.model import ModelLike
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.allocation import Problem, give_back, give_back_partly, global_, same_share
from onnxprune.pruning.allocation import allocation as find_allocation
from onnxprune.pruning.criteria import Criterion, Scoring, comparable, default_registry
from onnxprune.pruning.floors import least_units
from onnxprune.pruning.options import AUTO, CHANNELS, MEASURED, PlanOptions, by_keyword
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.widths import block, finer, grids, groupings, remainders

if TYPE_CHECKING:
    from onnxprune.data.samples import CalibrationSource, Samples


def choose(model: ModelLike | Analysis, options: PlanOptions) -> Plan:
    """Choose what to remove.

    Args:
        model: a Model, ModelProto or path, or an Analysis to use again; ``split``, ``state``, ``input_shapes`` and
            ``registry`` are not looked at then.

    Raises:
        UsageError: an argument outside its range, no budget at all, or a criterion without the data it needs.
        DataError: the calibration data is empty, not finite, or does not fit the model.
        BudgetError: the budget cannot be met; the message names the smallest reachable value.
    """
    if not isinstance(model, Analysis):
        model = analyze(
            model, options.input_shapes, split=options.split, state=options.state, registry=options.registry
        )
    options = options.decided()
    if options.pulled != (CHANNELS,):
        raise UsageError("what stands for regions is fitted and tried out, not only planned; use compress")
    if options.allocation == MEASURED:
        raise UsageError("allocation 'measured' is tried out, not only planned; use compress with calibration")
    metric, channels, exact_norm = options.metric, options.channels, options.exact_norm
    model = model.measured(options.sources)
    limits = limits_of(model, options)
    chooser = default_registry().find(options.criterion) if isinstance(options.criterion, str) else options.criterion
    allocate = find_allocation(options.allocation)
    options = replace(options, round_to=rounding(options))
    if not model.coupling.groups:
        from onnxprune.analysis.prunability import why_nothing

        raise BudgetError(why_nothing(model))

    samples = None if options.calibration is None else _collected(options.calibration, model)
    exact = (lambda group: group.is_exact(exact_norm=exact_norm)) if options.exact_only else (lambda group: True)

    def chosen_under(grouping: Grouping) -> _Choice:
        analysis = model.under(grouping).measured(options.sources)
        problem = problem_of(analysis, options, limits, exact)
        scores, losses = None, problem.losses
        if allocate is global_ and channels is None:
            scoring = Scoring(analysis, np.random.default_rng(options.seed), samples)
            scores = chooser.scores(scoring)
            losses = _losses(problem, scoring, scores, chooser)
            if options.sensitivity is not None:
                losses = options.sensitivity.losses(problem.groups, losses)
        for grid in grids(options.round_to):
            problem = replace(problem, grid=grid, losses=losses)
            rng = np.random.default_rng(options.seed)
            removed = same_share(problem, channels) if channels is not None else allocate(problem, rng)
            if problem.met(problem.kept(removed)):
                break
        else:
            raise BudgetError(unmet(analysis, problem))
        if channels is None:
            removed = give_back(problem, removed)
            # What whole blocks take too much, a few groups get back in parts of them; all others stay on the grid.
            for grid, enough in remainders(options.round_to):
                removed = give_back_partly(replace(problem, grid=grid), removed, problem.grid, enough)
        if scores is None:
            scores = chooser.scores(Scoring(analysis, rng, samples))
        lowest = [group.lowest(int(units), scores) for group, units in zip(problem.groups, removed, strict=True)]
        atoms = np.concatenate(lowest) if lowest else np.zeros(0, dtype=np.int64)
        return _Choice(analysis, atoms, problem.kept(removed), float(scores[atoms].sum()))

    if options.grouped == "auto":
        chosen = _first_met(chosen_under, groupings_of(model, options))
    else:
        chosen = _least_loss(chosen_under, _GROUPINGS[options.grouped])
    made = replace(
        options,
        mode=metric,
        grouped=chosen.analysis.coupling.grouping.value,
        split=model.split.value,
        state=dict(model.state) or None,
        input_shapes=model.shapes.bound.to_repeat or None,
    )
    return Plan(
        removed=removed_by_axis(chosen.analysis, chosen.atoms),
        settings={**made.settings(), "criterion": chooser.name},
        before={**model.totals, **{m: model.costs.total(m, model.costs.full) for m in model.costs.measured}},
        after={
            **{m: chosen.analysis.costs.total(m, chosen.kept) for m in (*METRICS, *chosen.analysis.costs.measured)},
            "peak_activations": chosen.analysis.costs.peak_activations(chosen.kept),
        },
    )


plan = by_keyword(PlanOptions)(choose)
plan.__name__ = plan.__qualname__ = "plan"


def _collected(calibration: CalibrationSource | Samples, analysis: Analysis) -> Samples:
    from onnxprune.data.samples import Samples, collect
    from onnxprune.pruning.calibration import sourced

    if isinstance(calibration, Samples):
        return calibration.viewed()
    return collect(sourced(calibration, analysis.model), analysis.model).viewed()


def _losses(problem: Problem, scoring: Scoring, scores: FloatArray, chooser: Criterion) -> tuple[FloatArray, ...]:
    """Per group, the importance that goes with its first 0, 1, 2, ... units."""
    scale = scores if chooser.comparable else comparable(scoring, scores)
    return tuple(group.losses(scores, scale) for group in problem.groups)


def removed_by_axis(analysis: Analysis, atoms: IntArray) -> dict[str, dict[int, tuple[int, ...]]]:
    """The positions that go when these atoms go, for every tensor and axis that carries them."""
    coupling, axes = analysis.coupling, analysis.coupling.axes
    per_class = coupling.removed_positions(atoms)
    found: dict[int, tuple[int, ...]] = {}
    for members, positions in zip(coupling.members, per_class, strict=True):
        if len(positions):
            # One tuple for all axes of a class: they are equal by construction.
            found.update(dict.fromkeys(members, tuple(positions.tolist())))
    for axis, (owner, blocks) in coupling.relative.items():
        positions = per_class[owner]
        if len(positions):
            width = int(coupling.extents[owner]) // blocks
            aligned = positions.reshape(blocks, -1) % width
            if (aligned == aligned[0]).all():
                found[axis] = tuple(aligned[0].tolist())
    removed: dict[str, dict[int, tuple[int, ...]]] = {}
    for axis in sorted(found):
        tensor, dim = axes.axis(axis)
        removed.setdefault(tensor, {})[dim] = found[axis]
    return removed


@dataclass(frozen=True)
class _Choice:
    """What goes under one treatment of grouped convolutions, what is kept, and the importance that is lost."""

    analysis: Analysis
    atoms: IntArray
    kept: IntArray
    lost: float


_GROUPINGS: Mapping[str, tuple[Grouping, ...]] = {
    **{grouping.value: (grouping,) for grouping in (Grouping.ALIGNED, Grouping.BALANCED, Grouping.WHOLE)},
    "best": (Grouping.BALANCED, Grouping.WHOLE),
}


def groupings_of(analysis: Analysis, options: PlanOptions) -> tuple[Grouping, ...]:
    """What ``grouped`` means by default: the first of these that meets the budgets."""
    # What is measured knows the same channels of every group alone.
    if options.latency is not None or options.channels is not None or options.round_to == MEASURED:
        return (Grouping.ALIGNED,)
    return groupings(rounding(options), analysis.coupling)


def _first_met(choose: Callable[[Grouping], _Choice], groupings: Sequence[Grouping]) -> _Choice:
    """The choice of the first that meets the budgets. Raises BudgetError, that of the last, if none does."""
    for grouping in groupings[:-1]:
        try:
            return choose(grouping)
        except BudgetError:
            continue
    return choose(groupings[-1])


def _least_loss(choose: Callable[[Grouping], _Choice], groupings: Sequence[Grouping]) -> _Choice:
    """The choice that loses the least importance among those that meet the budgets; the first error if none does."""
    found: list[_Choice] = []
    first: BudgetError | None = None
    for grouping in groupings:
        try:
            found.append(choose(grouping))
        except BudgetError as error:
            first = first or error
    if not found and first is not None:
        raise first
    return min(found, key=lambda choice: choice.lost)


def rounding(options: PlanOptions) -> int | str:
    """The multiple, or the multiple that is preferred, as a plan records it: nothing about it depends on the machine.

    The share of ``channels`` is taken as it is said.
    """
    round_to, latency = options.round_to, options.latency
    if isinstance(round_to, int):
        return round_to
    if round_to == MEASURED and latency is None:
        raise UsageError("round_to 'measured' needs a latency profile: pass latency=onnxprune.profile_latency(...)")
    if latency is not None and round_to in (AUTO, MEASURED):
        return latency.multiple
    if options.channels is not None:
        return 1
    return f"{AUTO}:{block()}" if round_to == AUTO else round_to


def limits_of(analysis: Analysis, options: PlanOptions) -> tuple[tuple[Metric, float], ...]:
    """Every budget as a limit, that of ``reduce`` first.

    Raises:
        UsageError: there is none, or one of time, and no times were measured.
    """
    if options.timed and "latency" not in analysis.costs.measured:
        raise UsageError("latency has to be measured first: pass latency=onnxprune.profile_latency(...)")
    if "wire" in (options.metric, *options.limits) and "wire" not in analysis.costs.measured:
        raise UsageError("what crosses depends on the cut, which 'onnxprune split --max-wire' names, or wire=...")
    options.check_budget()
    limits = list(options.limits.items())
    if options.reduce is not None:
        metric = options.metric
        limits.insert(0, (metric, analysis.costs.total(metric, analysis.costs.full) * (1 - options.reduce)))
    return tuple(limits)


def problem_of(
    analysis: Analysis,
    options: PlanOptions,
    limits: tuple[tuple[Metric, float], ...],
    exact: Callable[[Group], bool],
) -> Problem:
    include, exclude, floors = options.include, options.exclude, options.floors or {}
    coupling, layers = analysis.coupling, analysis.costs.layers
    names = [analysis.layer_name(layer) for layer in layers]
    for pattern in (*include, *exclude, *floors):
        if not any(fnmatchcase(name, pattern) for name in names):
            from onnxprune.analysis.explain import no_layer

            raise no_layer(pattern, names)
    allowed = {group.index for group in coupling.groups if exact(group)}
    if include:
        allowed &= _groups_matching(analysis, layers, names, include)
    allowed -= _groups_matching(analysis, layers, names, exclude)
    at_least = least_units(analysis, options.floor, floors, names)
    spared = tuple(int(at_least[g.index]) if g.index in allowed else g.units for g in coupling.groups)
    groups_of_layer = tuple(tuple(g.index for g in analysis.groups_of(layer) if g.index in allowed) for layer in layers)
    return Problem(analysis.costs, options.metric, coupling.groups, spared, limits, groups_of_layer)


def _groups_matching(
    analysis: Analysis, layers: Sequence[Layer], names: Sequence[str], patterns: Sequence[str]
) -> set[int]:
    return {
        group.index
        for layer, name in zip(layers, names, strict=True)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
        for group in analysis.groups_of(layer)
    }


def unmet(analysis: Analysis, problem: Problem) -> str:
    """What can be reached at best, and what stands in the way."""
    smallest = problem.kept(problem.most)
    parts = []
    for metric, limit in problem.limits:
        reachable, total = (problem.costs.total(metric, kept) for kept in (smallest, problem.costs.full))
        if reachable > limit:
            least = 1 - reachable / total if total else 0.0
            parts.append(
                f"{metric} cannot fall to {amount(metric, limit)}: the smallest reachable value is "
                f"{amount(metric, reachable)} "
                f"(reduce={least:.3f})"
            )
    left = problem.costs.per_layer(problem.metric, smallest)
    heaviest = sorted(analysis.costs.layers, key=lambda layer: -left[layer.index])[:3]
    ways = []
    for layer in heaviest:
        reasons = dict.fromkeys(pin.reason for pin in analysis.coupling.pins_on(layer.output_axis))
        why = "; ".join(reasons) or ("at its floor" if problem.groups_of_layer[layer.index] else "may not shrink")
        ways.append(f"{analysis.layer_name(layer)} ({why})")
    for grid in finer(problem.grid):
        less_round = replace(problem, grid=grid)
        if less_round.met(less_round.kept(less_round.most)):
            also = f" at multiples of {problem.grid.multiple}; round_to={grid.multiple} reaches it"
            return "; ".join(parts) + also
    stands = f". What stands in the way: {', '.join(ways)}" if ways else ". The model has no layer to prune"
    return "; ".join(parts) + stands + ". Ask for less, lower the floors, or allow more layers"


def amount(metric: Metric, value: float) -> str:
    """A budget or what is left of it, with a unit where it has one."""
    return f"{1e3 * value:.4g} ms" if metric == "latency" else f"{value:,.0f}"
