"""Plan by prediction, measure the result, correct the prediction: until a latency is met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from onnxprune.analysis.analyzing import Analysis
from onnxprune.data.samples import Samples
from onnxprune.errors import BudgetError, MeasurementError, UsageError
from onnxprune.ir.model import Model
from onnxprune.ir.sampling import Rounds
from onnxprune.latency.machine import LocalMachine, Machine
from onnxprune.latency.model import LatencyProfile
from onnxprune.latency.profile import inputs_of, profile_latency
from onnxprune.latency.statistics import Ratio, Spread, paired_ratio, spread
from onnxprune.pruning.choosing import choose, limits_of
from onnxprune.pruning.levers import plan_levers
from onnxprune.pruning.options import CHANNELS, JobOptions, PlanOptions, by_keyword
from onnxprune.pruning.pipeline import run
from onnxprune.pruning.plan import Plan

#: Measured and asked latency may differ by this fraction.
TOLERANCE = 0.05
#: Measured are targets a little below the one that is asked for: so most results lie on the right side.
_AIM = 0.985
_MOST_TRIALS = 5
#: Where the prediction does not reach the target, plans this far back to the unpruned latency are measured.
_NEARER = (0.1, 0.3, 0.6)
_LEAST_SLOPE = 0.2
#: A latency that the unpruned model keeps, by its prediction.
_AS_IT_IS = 1.001


@dataclass(frozen=True)
class Trial:
    """One plan: its time as the profile predicts it without correction, and as measured (seconds).

    ``ratio`` is the time over that of the unpruned model, measured in turns; ``measured`` is that ratio of the
    profile's baseline.
    """

    predicted: float
    measured: float
    ratio: Ratio


@dataclass(frozen=True)
class LatencyFit:
    """The plan whose result meets a latency, the model that was timed, and what was asked, predicted and measured (s).

    ``precision`` says in which numbers it was timed: ``float`` or ``int8``.
    ``profile`` is corrected by what was measured: the next plan for the same model starts from there.
    """

    plan: Plan
    model: Model
    asked: float
    best: Trial
    trials: tuple[Trial, ...]
    profile: LatencyProfile
    precision: str = "float"

    @property
    def met(self) -> bool:
        """Whether the measured latency lies within the tolerance of the asked one."""
        return abs(self.best.measured / self.asked - 1) <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """Everything about time as plain data; seconds."""
        return {
            "asked": self.asked,
            "predicted": self.best.predicted,
            "measured": self.best.measured,
            "met": self.met,
            "precision": self.precision,
            "ratio": asdict(self.best.ratio),
            "trials": [asdict(trial) for trial in self.trials],
            "profile": self.profile.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class FitOptions(PlanOptions):
    """How a latency is met: the options of the plan, how it is measured (``latency`` is what is known so far).

    Where there is ``quantise``, what counts is the time of what it makes of a pruned model.
    """

    latency: LatencyProfile = field(kw_only=False)
    mode: str = "latency"
    machine: Machine | None = None
    rounds: Rounds | None = None
    quantise: Callable[[Model], Model] | None = None


def fit(model: Analysis, options: FitOptions) -> LatencyFit:
    """Plan until the pruned model, measured end to end beside the original, meets a latency within 5 %.

    Args:
        model: the analysis that ``latency`` was measured for.
        latency: what :func:`onnxprune.profile_latency` measured.
        mode: with ``latency``, ``reduce`` is the fraction of the time to remove.
        max_latency: largest allowed seconds per run.
        machine: the one that the profile was measured on; onnxruntime here with one thread, if not another.
        rounds: how often and how long each trial is measured.
        quantise: what becomes of a pruned model before it is timed. First it is tried on what needs nothing removed for
            the latency; only where that is too slow do channels go, as few as it takes.

    Raises:
        UsageError: no latency is asked for.
        BudgetError: no width reaches it; the message names the least.
        MeasurementError: the machine is too noisy to see whether it is met; the message gives the spread.
    """
    latency, machine, rounds = options.latency, options.machine or LocalMachine(), options.rounds
    if latency.identity != machine.identity:
        raise UsageError("the latency profile was measured on another machine, or with other settings; measure it here")
    unpruned = latency.baseline.median
    asked = options.max_latency
    if options.metric == "latency" and options.reduce is not None:
        asked = min(unpruned * (1 - options.reduce), asked or unpruned)
        options = replace(options, reduce=None)
    if asked is None:
        raise UsageError("no latency is asked for: give max_latency, or reduce with mode latency")
    inputs = inputs_of(model, options.seed)
    profile, done = latency, list[tuple[Plan, Model, Trial]]()
    quantise, options = options.quantise, replace(options, quantise=None)
    # Integers take what they take of each layer: in proportion, until more is known.
    known = [(1.0, 1.0)] if quantise is None else [(0.0, 0.0)]
    target = asked * _AIM if asked < unpruned else asked
    while len(done) < _MOST_TRIALS:
        # Only what was measured can tell that a latency is out of reach; a first prediction may be too careful.
        targets = [target, asked]
        if len(known) == 1:
            targets += [asked + part * (unpruned - asked) for part in _NEARER]
        if quantise is not None and not done:
            targets = [unpruned * _AS_IT_IS]
        plan, target = _planned(targets, partial(_chosen, model, replace(options, latency=profile)))
        pruned = run(model.model, plan, JobOptions(certify=False, registry=model.registry)).model
        pruned = pruned if quantise is None else quantise(pruned)
        ratio, original = _ratio(machine, [model.model, pruned], inputs, rounds or Rounds(least=20, seconds=6.0))
        predicted = unpruned - (unpruned - plan.after["latency"]) / profile.gain
        told = predicted if quantise is None else plan.after["latency"]
        done.append((plan, pruned, Trial(told, ratio.median * unpruned, ratio)))
        # What other budgets, or the steps of the widths, hold below the target cannot be corrected.
        idle = plan.after["latency"] < target * (1 - TOLERANCE) or not plan
        target = min(target, asked * _AIM) if asked < unpruned else asked
        off = done[-1][2].measured / asked - 1
        if abs(off) <= TOLERANCE or (off < 0 and idle):
            _check_certainty(ratio, original)
            break
        if any(abs(predicted / unpruned - r) < 1e-9 for r, _ in known):
            break
        known.append((predicted / unpruned, ratio.median))
        profile = replace(profile, gain=_gain(known, target / unpruned))
    plan, pruned, best = min(done, key=lambda trial: _distance(trial[2].measured / asked))
    if best.measured > asked * (1 + TOLERANCE):
        raise BudgetError(
            f"a latency of {1e3 * asked:.4g} ms was not reached: the nearest of {len(done)} plans takes "
            f"{1e3 * best.measured:.4g} ms ({1e3 * best.predicted:.4g} ms predicted); round channel counts less "
            f"(round_to={plan.settings['round_to']}), lower the floors, or ask for less"
        )
    trials = tuple(trial for _, _, trial in done)
    if quantise is not None:
        # What was learned is about integers; the profile is about floats.
        return LatencyFit(plan, pruned, asked, best, trials, latency, "int8")
    return LatencyFit(plan, pruned, asked, best, trials, profile)


def fit_levers(model: Analysis, options: FitOptions, samples: Samples | None, job: JobOptions) -> LatencyFit:
    """As :func:`fit`, with regions that give way, too: of plans that meet the latency, the one that loses least.

    Args:
        model: the analysis that ``latency`` was measured for.
        options: as for :func:`fit`, with ``regions`` among the levers.
        samples: to fit to and to judge by.
        job: how to compensate.

    Raises:
        UsageError: there are too few samples, or no latency is asked for.
        BudgetError: neither channels nor regions reach it.
        MeasurementError: the machine is too noisy to see whether it is met.
    """
    machine, rounds = options.machine or LocalMachine(), options.rounds or Rounds(least=20, seconds=6.0)
    inputs, unpruned = inputs_of(model, options.seed), options.latency.baseline.median
    asked = min(limit for _, limit in limits_of(model.measured(options.sources), options))

    def planned(after: Analysis, absolute: PlanOptions) -> Plan:
        same: dict[str, Any] = {
            "levers": absolute.levers,
            "calibration": absolute.calibration,
            "sensitivity": absolute.sensitivity,
        }
        how = replace(options, reduce=None, max_latency=asked, **same)
        if after is model or after.model is model.model:
            return fit(model, how).plan
        ratio, _ = _ratio(machine, [model.model, after.model], inputs, rounds)
        if ratio.median * unpruned <= asked * (1 + TOLERANCE / 2):
            return Plan({}, how.settings(), after={**after.totals, "latency": ratio.median * unpruned})
        if CHANNELS not in options.pulled:
            raise BudgetError(
                f"by {options.levers} alone {ratio.median:.2f} of the time is left, "
                f"and {asked / unpruned:.2f} was asked for; take channels, too (--levers channels,{options.levers})"
            )
        profile = profile_latency(after, machine=machine, round_to=options.latency.multiple)
        share = asked / (ratio.median * unpruned)
        return fit(after, replace(how, latency=profile, max_latency=share * profile.baseline.median)).plan

    plan = plan_levers(model.measured(options.sources), options, samples, job, planned)
    unfitted = JobOptions(certify=False, compensate="none", registry=model.registry)
    pruned = run(model.model, plan, unfitted).model
    ratio, original = _ratio(machine, [model.model, pruned], inputs, rounds)
    _check_certainty(ratio, original)
    best = Trial(ratio.median * unpruned, ratio.median * unpruned, ratio)
    return LatencyFit(plan, pruned, asked, best, (best,), options.latency)


meet_latency = by_keyword(FitOptions)(fit)
meet_latency.__name__ = meet_latency.__qualname__ = "meet_latency"


def _chosen(model: Analysis, options: FitOptions, limit: float) -> Plan:
    return choose(model, replace(options, max_latency=limit))


def _planned(targets: Sequence[float], plan: Callable[[float], Plan]) -> tuple[Plan, float]:
    """The plan for the first target that the prediction reaches. Raises BudgetError, for what was asked, if none."""
    refusals: list[BudgetError] = []
    for target in targets:
        try:
            return plan(target), target
        except BudgetError as error:
            refusals.append(error)
    raise refusals[min(1, len(refusals) - 1)]


def _ratio(machine: Machine, models: Sequence[Model], inputs: Any, rounds: Rounds) -> tuple[Ratio, Spread]:
    """Time of the second model over that of the first, and the first's; measured for longer where it is unsure."""
    for patience in (1, 4):
        longer = replace(rounds, least=rounds.least * patience, most=rounds.most * patience)
        seconds = machine.rounds(models, inputs, replace(longer, seconds=rounds.seconds * patience))
        ratio = paired_ratio(seconds[:, 1], seconds[:, 0])
        if ratio.uncertainty <= TOLERANCE / 2:
            break
    return ratio, spread(seconds[:, 0])


def _check_certainty(ratio: Ratio, original: Spread) -> None:
    if ratio.uncertainty > TOLERANCE:
        raise MeasurementError(
            f"the machine is too noisy to see whether a latency is met within {100 * TOLERANCE:.0f} %: after "
            f"{original.count} rounds the pruned model takes between {ratio.low:.2f} and {ratio.high:.2f} of the "
            f"original's time, whose middle half spreads over {100 * original.relative:.0f} % of the median; stop "
            "what else runs, or plan by the prediction alone"
        )


def _gain(known: Sequence[tuple[float, float]], target: float) -> float:
    """The gain that makes the prediction right at the target, from (predicted, measured) fractions of the original.

    A straight line through the two measurements around the target, or the two that come nearest to it.
    """
    order = sorted(known, key=lambda pair: pair[1])
    at = next((i for i, (_, measured) in enumerate(order) if measured >= target), len(order) - 1)
    (r0, m0), (r1, m1) = (order[at - 1], order[at]) if at > 0 else (order[0], order[1])
    slope = max((m1 - m0) / (r1 - r0), _LEAST_SLOPE) if abs(r1 - r0) > 1e-9 else 1.0
    wanted = min(max(r1 + (target - m1) / slope, 0.0), 0.999)
    return (1 - target) / (1 - wanted)


def _distance(fraction: float) -> float:
    """How far from the asked latency; too slow is worse than too fast, but within the tolerance."""
    return abs(fraction - 1) + (10.0 if fraction > 1 + TOLERANCE else 0.0)
