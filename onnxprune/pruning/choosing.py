"""From budgets to a plan."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.analysis.analyzing import Analysis, InputShapes, MetricSource, analyze
from onnxprune.analysis.atoms import Group, Grouping
from onnxprune.analysis.cost import METRICS, FloatArray, Layer, Metric
from onnxprune.analysis.prunability import why_nothing
from onnxprune.errors import BudgetError, UsageError
from onnxprune.ir.model import ModelLike
from onnxprune.ir.state import State
from onnxprune.ops import Registry
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.allocation import LossCurves, Problem, give_back, global_, same_share
from onnxprune.pruning.allocation import allocation as find_allocation
from onnxprune.pruning.criteria import Criterion, Scoring, comparable, default_registry
from onnxprune.pruning.floors import least_units
from onnxprune.pruning.plan import Plan

if TYPE_CHECKING:
    from onnxprune.data.samples import CalibrationSource, Samples

MODES: Mapping[str, Metric] = {
    "params": "params",
    "pa": "params",
    "flops": "flops",
    "fa": "flops",
    "memory": "memory",
    "ma": "memory",
    "latency": "latency",
    "la": "latency",
}
DEFAULT_FLOOR = 0.1


def plan(
    model: ModelLike | Analysis,
    *,
    mode: str = "flops",
    reduce: float | None = None,
    max_params: float | None = None,
    max_flops: float | None = None,
    max_memory: float | None = None,
    max_latency: float | None = None,
    latency: MetricSource | None = None,
    channels: float | None = None,
    allocation: str = "complexity",
    criterion: str | Criterion = "l2",
    calibration: CalibrationSource | Samples | None = None,
    sensitivity: LossCurves | None = None,
    seed: int = 0,
    floor: float = DEFAULT_FLOOR,
    floors: Mapping[str, float] | None = None,
    round_to: int | str = 1,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    exact_only: bool = False,
    exact_norm: bool = False,
    grouped: str = "aligned",
    split: str = "finest",
    state: State = None,
    input_shapes: InputShapes | None = None,
    registry: Registry | None = None,
) -> Plan:
    """Choose what to remove.

    Args:
        model: a Model, ModelProto or path, or an Analysis to use again.
        mode: the complexity that layers are drawn by and that ``reduce`` counts: ``params`` (``pa``), ``flops``
            (``fa``, multiply-accumulates), ``memory`` (``ma``, bytes of weights and output activations) or
            ``latency`` (``la``, seconds as ``latency`` predicts them).
        reduce: the fraction of that complexity to remove, between 0 and 1.
        max_params: largest allowed number of parameters. All given budgets must hold.
        max_flops: largest allowed number of multiply-accumulates.
        max_memory: largest allowed bytes of weights and output activations.
        max_latency: largest allowed seconds per run, as ``latency`` predicts them.
        latency: what was measured of this model; see :func:`onnxprune.profile_latency`. Planning itself measures
            nothing.
        channels: instead of a budget, the fraction to remove from every group's channels.
        allocation: ``complexity``, ``complexity-mean``, ``uniform``, or ``global`` (channels of all layers compete:
            what goes first is what loses the least importance per cost saved).
        criterion: which channels of a group go first: ``random``, ``l1``, ``l2``, ``fpgm``, ``lamp``, ``bn_scale``;
            with calibration data ``activation``, ``relief``, ``variance``, ``reconstruction``, ``refit``, ``taylor``;
            or a Criterion of your own.
        calibration: samples for criteria that look at data: a SPEC, Data, Batches, or arrays by input.
        sensitivity: what was measured of this model; see :func:`onnxprune.scan_sensitivity`. Allocation ``global``
            weighs its curves with the scores.
        seed: of the draws; equal seeds give equal plans.
        floor: what every layer keeps at least: a fraction below 1, or a number of channels.
        floors: the same for layers by name or glob, which goes before ``floor``.
        round_to: keep channel counts multiples of this where channels are removed; ``auto`` is the multiple of
            ``latency``.
        include: names or globs of the only layers that may lose filters, besides those coupled with them.
        exclude: names or globs of layers that keep all filters, and so do those coupled with them.
        exact_only: leave approximate groups alone.
        exact_norm: let normalisations and means over removed channels compute with the statistics of all channels,
            the removed ones read as zero; such groups are exact then, at the price of some more nodes.
        grouped: how grouped convolutions shrink: ``aligned`` (the same relative channels of every group),
            ``balanced`` (every group chooses its own, equally many), ``whole`` (whole groups), or ``best`` (balanced
            or whole, whichever keeps more importance).
        split: which part of an axis that a Reshape splits carries a removal; see :func:`onnxprune.analyze`. Like
            ``state``, ``input_shapes`` and ``registry`` it is not looked at if ``model`` is an Analysis.
        state: outputs that are fed to inputs in the next run, and shrink with them; see :func:`onnxprune.analyze`.
        input_shapes: shapes for inputs with symbolic dimensions.
        registry: the known operators, if not the default ones.

    Raises:
        UsageError: an argument outside its range, no budget at all, or a criterion without the data it needs.
        DataError: the calibration data is empty, not finite, or does not fit the model.
        BudgetError: the budget cannot be met; the message names the smallest reachable value.
    """
    if not isinstance(model, Analysis):
        model = analyze(model, input_shapes, split=split, state=state, registry=registry)
    metric = _metric(mode)
    model = model.measured("latency", latency)
    absolute: dict[Metric, float | None] = {"params": max_params, "flops": max_flops, "memory": max_memory}
    absolute["latency"] = max_latency
    limits = _limits(model, metric, reduce, absolute, channels)
    chooser = default_registry().find(criterion) if isinstance(criterion, str) else criterion
    allocate = find_allocation(allocation)
    multiple = _multiple(round_to, latency)
    if seed < 0:
        raise UsageError(f"seed must not be negative: {seed}")
    # A single name is meant as one, not as its letters.
    include, exclude = ((names,) if isinstance(names, str) else names for names in (include, exclude))
    if not model.coupling.groups:
        raise BudgetError(why_nothing(model))

    samples = None if calibration is None else _collected(calibration, model)
    exact = (lambda group: group.is_exact(exact_norm=exact_norm)) if exact_only else (lambda group: True)

    def choose(grouping: Grouping) -> _Choice:
        analysis = model.under(grouping).measured("latency", latency)
        problem = _problem(analysis, metric, limits, floor, dict(floors or {}), multiple, include, exclude, exact)
        rng = np.random.default_rng(seed)
        scoring = Scoring(analysis, rng, samples)
        scores = None
        if allocate is global_ and channels is None:
            scores = chooser.scores(scoring)
            losses = _losses(problem, scoring, scores, chooser)
            if sensitivity is not None:
                losses = sensitivity.losses(problem.groups, losses)
            problem = replace(problem, losses=losses)
        removed = same_share(problem, channels) if channels is not None else allocate(problem, rng)
        kept = problem.kept(removed)
        if not problem.met(kept):
            raise BudgetError(_unmet(analysis, problem))
        if channels is None:
            removed = give_back(problem, removed)
            kept = problem.kept(removed)
        if scores is None:
            scores = chooser.scores(scoring)
        lowest = [group.lowest(int(units), scores) for group, units in zip(problem.groups, removed, strict=True)]
        atoms = np.concatenate(lowest) if lowest else np.zeros(0, dtype=np.int64)
        return _Choice(analysis, atoms, kept, float(scores[atoms].sum()))

    chosen = _least_loss(choose, _groupings(grouped))
    settings: dict[str, Any] = {
        "mode": metric,
        "allocation": allocation,
        "criterion": chooser.name,
        "seed": seed,
    }
    given = {"reduce": reduce, "channels": channels, **{f"max_{m}": v for m, v in absolute.items()}}
    settings.update({name: value for name, value in given.items() if value is not None})
    must_stay = {"floors": dict(floors or {}), "include": list(include), "exclude": list(exclude)}
    settings.update(floor=floor, round_to=multiple, exact_only=exact_only)
    if exact_norm:
        settings["exact_norm"] = True
    settings.update({name: value for name, value in must_stay.items() if value})
    settings.update(grouped=chosen.analysis.coupling.grouping.value, split=model.split.value)
    if model.state:
        settings["state"] = dict(model.state)
    if repeat := model.shapes.bound.to_repeat:
        settings["input_shapes"] = {name: list(shape) for name, shape in repeat.items()}
    if channels is not None:
        del settings["allocation"]
    return Plan(
        removed=removed_by_axis(chosen.analysis, chosen.atoms),
        settings=settings,
        before={**model.totals, **{m: model.costs.total(m, model.costs.full) for m in model.costs.measured}},
        after={
            **{m: chosen.analysis.costs.total(m, chosen.kept) for m in (*METRICS, *chosen.analysis.costs.measured)},
            "peak_activations": chosen.analysis.costs.peak_activations(chosen.kept),
        },
    )


def _collected(calibration: CalibrationSource | Samples, analysis: Analysis) -> Samples:
    from onnxprune.data.samples import Samples, collect

    return calibration if isinstance(calibration, Samples) else collect(calibration, analysis.model)


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


_BEST = "best"


def _groupings(name: str) -> tuple[Grouping, ...]:
    choices: dict[str, tuple[Grouping, ...]] = {
        g.value: (g,) for g in (Grouping.ALIGNED, Grouping.BALANCED, Grouping.WHOLE)
    }
    choices[_BEST] = (Grouping.BALANCED, Grouping.WHOLE)
    if name not in choices:
        raise UsageError(f"grouped '{name}' is not known; choose one of {', '.join(choices)}")
    return choices[name]


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


def _multiple(round_to: int | str, latency: MetricSource | None) -> int:
    if round_to == "auto":
        if latency is None:
            raise UsageError("round_to 'auto' needs a latency profile: pass latency=onnxprune.profile_latency(...)")
        return latency.multiple
    if not isinstance(round_to, int) or round_to < 1:
        raise UsageError(f"round_to must be at least 1, not {round_to}")
    return round_to


def _metric(mode: str) -> Metric:
    try:
        return MODES[mode.lower()]
    except KeyError:
        raise UsageError(f"mode '{mode}' is not known; choose one of {', '.join(MODES)}") from None


def _limits(
    analysis: Analysis,
    metric: Metric,
    reduce: float | None,
    absolute: Mapping[Metric, float | None],
    channels: float | None,
) -> tuple[tuple[Metric, float], ...]:
    if (metric == "latency" or absolute["latency"] is not None) and "latency" not in analysis.costs.measured:
        raise UsageError("latency has to be measured first: pass latency=onnxprune.profile_latency(...)")
    for name, value in (("reduce", reduce), ("channels", channels)):
        if value is not None and not 0 < value < 1:
            raise UsageError(f"{name} must lie between 0 and 1, not {value}")
    limits: list[tuple[Metric, float]] = []
    if reduce is not None:
        limits.append((metric, analysis.costs.total(metric, analysis.costs.full) * (1 - reduce)))
    for name, limit in absolute.items():
        if limit is not None:
            if not limit > 0:
                raise UsageError(f"max_{name} must be positive, not {limit}")
            limits.append((name, float(limit)))
    if channels is not None and limits:
        raise UsageError("give either channels, or budgets (reduce, max_params, max_flops, max_memory, max_latency)")
    if channels is None and not limits:
        raise UsageError("give a budget: reduce, max_params, max_flops, max_memory or max_latency, or channels")
    return tuple(limits)


def _problem(
    analysis: Analysis,
    metric: Metric,
    limits: tuple[tuple[Metric, float], ...],
    floor: float,
    floors: Mapping[str, float],
    round_to: int,
    include: Sequence[str],
    exclude: Sequence[str],
    exact: Callable[[Group], bool],
) -> Problem:
    coupling, layers = analysis.coupling, analysis.costs.layers
    names = [analysis.layer_name(layer) for layer in layers]
    for pattern in (*include, *exclude, *floors):
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no layer is called '{pattern}'; 'onnxprune analyze' lists the layers")
    for value in (floor, *floors.values()):
        if not 0 <= value < math.inf:
            raise UsageError(f"a floor is a fraction below 1 or a number of channels, not {value}")
    allowed = {group.index for group in coupling.groups if exact(group)}
    if include:
        allowed &= _groups_matching(analysis, layers, names, include)
    allowed -= _groups_matching(analysis, layers, names, exclude)
    at_least = least_units(analysis, floor, floors, names)
    levels = tuple(
        _levels(group, int(at_least[group.index]), round_to) if group.index in allowed else np.zeros(1, dtype=np.int64)
        for group in coupling.groups
    )
    groups_of_layer = tuple(tuple(g.index for g in analysis.groups_of(layer) if g.index in allowed) for layer in layers)
    return Problem(analysis.costs, metric, coupling.groups, levels, limits, groups_of_layer)


def _groups_matching(
    analysis: Analysis, layers: Sequence[Layer], names: Sequence[str], patterns: Sequence[str]
) -> set[int]:
    return {
        group.index
        for layer, name in zip(layers, names, strict=True)
        if any(fnmatchcase(name, pattern) for pattern in patterns)
        for group in analysis.groups_of(layer)
    }


def _levels(group: Group, least: int, round_to: int) -> IntArray:
    """The numbers of units that may go, so that at least ``least`` stay and counts are multiples of ``round_to``."""
    kept = np.arange(group.units, least - 1, -1, dtype=np.int64)
    if round_to > 1:
        kept = kept[(kept == group.units) | (kept * group.width % round_to == 0)]
        kept = kept[(kept > 0) | (least == 0)]
    return group.units - kept


def _unmet(analysis: Analysis, problem: Problem) -> str:
    """What can be reached at best, and what stands in the way."""
    smallest = problem.kept(problem.most)
    parts = []
    for metric, limit in problem.limits:
        reachable, total = (problem.costs.total(metric, kept) for kept in (smallest, problem.costs.full))
        if reachable > limit:
            least = 1 - reachable / total if total else 0.0
            parts.append(
                f"{metric} cannot fall to {_amount(metric, limit)}: the smallest reachable value is "
                f"{_amount(metric, reachable)} "
                f"(reduce={least:.3f})"
            )
    left = problem.costs.per_layer(problem.metric, smallest)
    heaviest = sorted(analysis.costs.layers, key=lambda layer: -left[layer.index])[:3]
    ways = []
    for layer in heaviest:
        reasons = dict.fromkeys(pin.reason for pin in analysis.coupling.pins_on(layer.output_axis))
        why = "; ".join(reasons) or ("at its floor" if problem.groups_of_layer[layer.index] else "may not shrink")
        ways.append(f"{analysis.layer_name(layer)} ({why})")
    stands = f". What stands in the way: {', '.join(ways)}" if ways else ". The model has no layer to prune"
    return "; ".join(parts) + stands + ". Ask for less, lower the floors, or allow more layers"


def _amount(metric: Metric, value: float) -> str:
    return f"{1e3 * value:.4g} ms" if metric == "latency" else f"{value:,.0f}"
