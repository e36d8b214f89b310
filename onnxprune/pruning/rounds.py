"""Pruning and recovering in steps: a part goes, the rest is refitted and recovers a little, and the next part goes.

Each round plans anew, on what the round before left, so that importance is that of a network which has adapted. The
plans are put together into one against the original: the result is that plan's, with the values of the last round.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.analysis.atoms import Grouping
from onnxprune.analysis.cost import Metric
from onnxprune.errors import PlanError, UsageError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.pruning.choosing import choose, limits_of, removed_by_axis
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.options import AUTO, CHANNELS, MEASURED, JobOptions, PlanOptions
from onnxprune.pruning.plan import Plan, Removed
from onnxprune.pruning.recovery import Recovery, recover
from onnxprune.pruning.shrinking import Shrink

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.pruning.compensation import Compensation
    from onnxprune.torch.recovery import State

#: What all rounds but the last get of the time for recovery, together.
_BEFORE = 0.5
#: What ``auto`` asks of a job to make several rounds of it: between these shares of what the budget counts are left,
#: and there are samples and minutes at least; and how many it makes then. Measured: docs/recovery.md.
_LEFT, _SAMPLES, _MINUTES, _SEVERAL = (0.25, 0.45), 128, 4.0, 3
#: A share of a layer's channels that is all of them, but for what a product of numbers loses.
_ALL = 1 - 1e-12


@dataclass(frozen=True)
class Round:
    """What one of the rounds left: ``left`` of what the budget counts, and how its recovery went (None: it had none).

    ``left`` is a share of the original's; ``damage`` what recovery measured on samples held out, before and after.
    """

    left: float
    steps: int
    damage: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Stepped:
    """What rounds make: one plan against the original, and what it makes of it, with the values the last round left.

    ``compensation`` and ``recovery`` are those of the last round; ``removed`` is the model without either.
    """

    plan: Plan
    model: Model
    removed: Model
    compensation: Compensation | None
    recovery: Recovery
    rounds: tuple[Round, ...]


def rounds_of(asked: int | str, options: PlanOptions, analysis: Analysis, samples: int, minutes: float) -> int:
    """How many rounds: as asked, or by how much is to go, the samples and the time.

    ``auto`` is three rounds where between 25 and 45 % of what the budgets count are to be left, and there are 128
    samples and 4 minutes for recovery at least; else one.

    Raises:
        UsageError: what is asked cannot be planned in rounds.
    """
    if asked == 1 or (asked == AUTO and _alone(options)):
        return 1
    if reason := _alone(options):
        raise UsageError(
            f"rounds share one budget of params, flops or memory among channels: {reason} is for one round"
        )
    if asked != AUTO:
        return int(asked)
    totals = {metric: analysis.costs.total(metric, analysis.costs.full) for metric, _ in limits_of(analysis, options)}
    left = min(limit / totals[metric] for metric, limit in limits_of(analysis, options))
    worth = _LEFT[0] <= left <= _LEFT[1] and samples >= _SAMPLES and minutes >= _MINUTES
    return _SEVERAL if worth else 1


def _alone(options: PlanOptions) -> str:
    """What is asked that speaks of the original alone, or of more than channels; empty if nothing is."""
    given = {
        "channels": options.channels is not None,
        "a time": options.timed or options.latency is not None,
        "wire": options.wire is not None,
        "sensitivity": options.sensitivity is not None,
        "exact_norm": options.exact_norm,
        f"a lever beside {CHANNELS}": options.pulled != (CHANNELS,),
        "an allocation that is measured": options.allocation == MEASURED,
    }
    return next((name for name, there in given.items() if there), "")


def in_rounds(
    analysis: Analysis,
    options: PlanOptions,
    job: JobOptions,
    fit: Samples,
    samples: Samples,
    count: int,
    progress: Callable[[str], AbstractContextManager[object]],
    watch: Callable[[State], None] | None = None,
) -> Stepped:
    """Remove, refit and recover in so many rounds.

    An interruption of a recovery keeps what is best until then; what has still to go then goes in one round, without
    recovery.

    Args:
        analysis: of the original.
        options: the budget, which the last round meets.
        job: how to compensate, and the time for all recoveries together.
        fit: the samples that plans and compensation see.
        samples: those and the ones that recovery chooses by.
        count: how many rounds, at least two.
        progress: gives a context for every step.
        watch: called after each evaluation of a recovery; its seconds are those of all rounds.

    Raises:
        BudgetError: the budget cannot be met.
        PlanError: the plans cannot be put together: a round removes what the original couples with what it keeps.
        VerificationError: the plan put together does not make the model that the rounds have made.
    """
    from onnxprune.pruning.compensation import compensate

    original = current = plain = analysis.model
    limits = dict(limits_of(analysis, options))
    totals = {metric: analysis.costs.total(metric, analysis.costs.full) for metric in limits}
    plan, found = Plan({}), None
    lesson: Recovery | None = None
    told: list[Round] = []
    number, stopped, used = 0, False, 0.0
    while number < count:
        number = count if stopped else number + 1
        title = f"Round {number} of {count}: "
        with progress(f"{title}planning"):
            here = (
                analysis
                if current is original
                else analyze(
                    current, options.input_shapes, split=options.split, state=options.state, registry=job.registry
                )
            )
            part = {m: totals[m] * min(limit / totals[m], 1.0) ** (number / count) for m, limit in limits.items()}
            chosen = choose(here, _for_round(options, part, analysis, here, fit))
        with progress(f"{title}removing channels"):
            smaller = Shrink(chosen, job.registry)(current).model
            known = known_to(chosen, original, current)
            plan = replace(chosen, removed=composed(analysis, plan, known))
            plain = Shrink(known, job.registry)(plain).model
        if job.compensation is not None:
            with progress(f"{title}compensating"):
                # What the round before left is what is to stay: it has learnt from the original.
                how: dict[str, Any] = {"method": job.compensation, "memory": job.memory, "registry": job.registry}
                found = compensate(smaller, current, chosen, fit, **how)
                smaller = found.model
        left = max(plan.after[metric] / total for metric, total in totals.items())
        if stopped:
            told.append(Round(left, 0, None))
            current = smaller
            break
        minutes = job.minutes * (1 - _BEFORE if number == count else _BEFORE / (count - 1))
        with progress(f"{title}recovering"):
            heard = None if watch is None else _later(watch, used)
            how = {"minutes": minutes, "augment": job.augment, "task": job.task, "progress": heard}
            lesson = recover(smaller, original, samples, plan=plan, **how)
        used += minutes * 60
        first, last = lesson.states[0], lesson.states[lesson.kept]
        told.append(Round(left, last.step, (first.damage, last.damage)))
        current, stopped = lesson.model, lesson.interrupted and number < count
    assert lesson is not None
    before = {name: value for name, value in analysis.totals.items() if name in plan.before}
    plan = replace(plan, settings=_settings(plan, options), before=before)
    require_composed(plan, plain, Shrink(plan, job.registry)(original).model, current)
    return Stepped(plan, current, plain, found, lesson, tuple(told))


def composed(analysis: Analysis, first: Plan, second: Plan) -> Removed:
    """What two plans remove together from the original: the second counts positions in what the first left.

    Raises:
        PlanError: that is no plan for the original.
    """
    raw: dict[str, dict[int, tuple[int, ...]]] = {tensor: dict(axes) for tensor, axes in first.removed.items()}
    for tensor, axes in second.removed.items():
        for dim, positions in axes.items():
            gone = np.array(first.removed.get(tensor, {}).get(dim, ()), dtype=np.int64)
            at = np.array(positions, dtype=np.int64)
            # Position p is what so many positions before it are gone of.
            at += np.searchsorted(gone - np.arange(len(gone)), at, side="right")
            raw.setdefault(tensor, {})[dim] = tuple(sorted({*gone.tolist(), *at.tolist()}))
    free = analysis.under(Grouping.FREE)
    coupling, axes_of = free.coupling, free.coupling.axes
    # What follows from other axes (the inputs of one group of a convolution) is told anew, where it still can be.
    own = {
        tensor: {
            d: at for d, at in axes.items() if tensor not in axes_of or axes_of.id(tensor, d) not in coupling.relative
        }
        for tensor, axes in raw.items()
    }
    try:
        per_class = removed_per_class(analysis, Plan({tensor: axes for tensor, axes in own.items() if axes}))
    except PlanError as error:
        raise PlanError(f"the rounds cannot be put together into one plan: {error}; prune in one round") from error
    atoms = [
        np.asarray(coupling.class_labels(owner))[positions]
        for owner, positions in enumerate(per_class)
        if len(positions)
    ]
    return removed_by_axis(free, np.unique(np.concatenate(atoms)) if atoms else np.zeros(0, dtype=np.int64))


def known_to(plan: Plan, model: Model, made: Model) -> Plan:
    """The plan without weights that compensation has given the made model, and that this model does not have."""
    new = made.weights.keys() - model.weights.keys()
    return replace(plan, removed={tensor: axes for tensor, axes in plan.removed.items() if tensor not in new})


def require_composed(plan: Plan, one_by_one: Model, at_once: Model, made: Model) -> None:
    """See that removing in rounds removes what their plan says.

    Args:
        plan: the plans of all rounds, put together.
        one_by_one: what is left of the original if each round's plan is applied in turn.
        at_once: what the plan leaves of it.
        made: what the rounds have made, with other values.

    Raises:
        VerificationError: a weight is that of other channels, or has another shape than that of what was made.
    """
    for name, weight in at_once.weights.items():
        twin, found = one_by_one.weights.get(name), made.weights.get(name)
        if twin is None or twin.shape != weight.shape or twin.digest != weight.digest:
            what = "is not cut from the same channels"
        elif found is None or found.shape != weight.shape or found.elem_type != weight.elem_type:
            what = "has another shape"
        else:
            continue
        raise VerificationError(
            f"the plan of {len(plan.removed)} tensors does not remove what its rounds have removed: weight '{name}' "
            f"{what}; prune in one round, and please report this"
        )


def _for_round(
    options: PlanOptions, limits: Mapping[Metric, float], original: Analysis, here: Analysis, fit: Samples
) -> PlanOptions:
    """The options of one round: its budgets, and floors that speak of the original's channels."""
    floors: dict[str, float] = {}
    now = {here.layer_name(layer): layer for layer in here.costs.layers}
    for layer in original.costs.layers:
        name = original.layer_name(layer)
        own = [value for pattern, value in (options.floors or {}).items() if fnmatchcase(name, pattern)]
        for value in [max(own)] if own else [options.floor]:
            if name in now and value < 1:
                was, is_ = _width(original, layer.output_axis), _width(here, now[name].output_axis)
                value = min(value * was / is_, _ALL)
            if name in now:
                floors[glob.escape(name)] = value
    budgets: dict[str, Any] = {f"max_{metric}": limit for metric, limit in limits.items()}
    # Whole groups that went leave fewer: where one is left, its channels are no longer those of a grouped convolution.
    grouped = "balanced" if options.grouped in (AUTO, "best") else options.grouped
    return replace(options, reduce=None, floors=floors or None, grouped=grouped, calibration=fit, **budgets)


def _width(analysis: Analysis, axis: int) -> int:
    return int(analysis.coupling.axes.extents[axis])


def _settings(plan: Plan, options: PlanOptions) -> dict[str, Any]:
    """The settings of the last round, with the budgets and floors that were asked for."""

    def is_asked(key: str) -> bool:
        return key.startswith("max_") or key in ("reduce", "floors")

    known = {key: value for key, value in options.settings().items() if is_asked(key)}
    return {**{key: value for key, value in plan.settings.items() if not is_asked(key)}, **known}


def _later(watch: Callable[[State], None], used: float) -> Callable[[State], None]:
    """Tells the seconds of all rounds, and not those of one."""

    def heard(state: State) -> None:
        watch(replace(state, seconds=state.seconds + used))

    return heard
