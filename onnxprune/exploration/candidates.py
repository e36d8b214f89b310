"""Candidates of ``auto``: how each is made, and what it takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from onnxprune._display import long, percent, seconds
from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.arena import arena
from onnxprune.errors import BudgetError, ShapeError
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model
from onnxprune.ir.sampling import Rounds
from onnxprune.latency.planner import taken
from onnxprune.latency.predicting import Elsewhere
from onnxprune.pruning.options import CHANNELS, AutoOptions, PlanOptions
from onnxprune.pruning.pipeline import Calibration, Compression, Progress, Work, make, planned
from onnxprune.pruning.promising import Promise, Trial

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.pruning.quantization.quantizing import Quantization

_ROUNDS = Rounds(warmup=2, least=7, most=200, seconds=0.3)
#: Share of the time after which the search in floats ends.
_SEARCHING = 0.4
#: Bytes that a file has room for at least, to tell of the promise and of twenty candidates.
_TOLD = 2560


@dataclass(frozen=True)
class Candidate:
    """A result, how it was made, and what it takes: seconds per run, bytes of the file and of the arena.

    ``levers`` are those of its plan. ``flash`` has room for what the file will tell of the promise; ``ram`` is None
    where shapes depend on data.
    """

    made: Compression
    reduce: float
    seconds: float
    flash: int
    ram: int | None
    levers: str = CHANNELS

    @property
    def int8(self) -> bool:
        """Whether some of its layers compute in integers."""
        return self.made.quantization is not None and bool(self.made.quantization.layers)

    def over(self, options: AutoOptions) -> list[str]:
        """The budgets that it exceeds, in words."""
        found = [
            ("a run takes", self.seconds, options.max_latency, seconds),
            ("the file has", float(self.flash), options.max_flash, lambda value: long(value, "B")),
            ("activations take", float(self.ram or 0), options.max_ram, lambda value: long(value, "B")),
        ]
        return [
            f"{what} {write(value)} ({write(most)} allowed)"
            for what, value, most, write in found
            if most is not None and value > most
        ]

    def to_dict(self) -> dict[str, Any]:
        """All but the model, as plain data for JSON."""
        recovered = self.made.recovery is not None
        how = {"reduce": self.reduce, "levers": self.levers, "int8": self.int8, "recovered": recovered}
        return {**how, "seconds": self.seconds, "flash": self.flash, "ram": self.ram}


@dataclass
class Searching:
    """What all candidates share."""

    options: AutoOptions
    work: Work
    data: Calibration
    promise: Promise
    how: PlanOptions
    progress: Progress
    original: Candidate
    began: float
    elsewhere: Elsewhere | None = None
    skipped: list[str] = field(default_factory=list)
    known: list[Trial[Candidate]] = field(default_factory=list)

    @property
    def left(self) -> float:
        """Minutes."""
        return self.options.minutes - (time.monotonic() - self.began) / 60

    def late(self, part: float = 1.0) -> bool:
        """Whether the time for this part of the search in floats is over."""
        return self.left < (1 - part * _SEARCHING) * self.options.minutes

    def floats(self, reduce: float, levers: str = CHANNELS) -> Trial[Candidate]:
        """A pruned and refitted candidate. Raises BudgetError where so much cannot go."""
        what = "time" if self.how.metric == "latency" else "MACs"
        with self.progress(f"Trying to remove {percent(reduce)} of the {what} ({levers})"):
            asked = replace(self.how, reduce=reduce, levers=levers)
            plan = planned(self.work.analysis, asked, self.work.fit, self.work.job)
            for one in self.known:
                was = one.made.made.plan
                if (was.removed, was.replaced) == (plan.removed, plan.replaced):
                    return one
            found = self.measured(make(self.work, plan), reduce, levers if plan.replaced else CHANNELS)
            self.known.append(self.promise.tried(f"{found.levers} {percent(reduce)}", found, found.made.model))
            return self.known[-1]

    def integers(self, trial: Trial[Candidate]) -> Trial[Candidate] | None:
        """The same with layers in integers; None where it is no faster."""
        from onnxprune.pruning.history import with_integers
        from onnxprune.pruning.quantization.quantizing import quantise_model

        before = trial.made.made
        with self.progress(f"Trying {trial.name} in int8"):
            engine, fit = Engine(self.options.threads), self.work.fit
            assert fit is not None
            done: Quantization = quantise_model(before.model, fit, self.data.held_out, self.work.job, engine=engine)
            if not done.layers:
                return None
            made = replace(before, model=with_integers(done, self.work.job), quantization=done)
            found = self.measured(made, trial.made.reduce, trial.made.levers)
            return self.promise.tried(f"{trial.name}, int8", found, made.model)

    def recovered(self, trial: Trial[Candidate], minutes: float) -> Trial[Candidate]:
        """The same, taught by the original for some minutes."""
        from onnxprune.pruning.recovery import recover

        before = trial.made.made
        with self.progress(f"Recovering {trial.name} for {minutes:.1f} min"):
            lesson = recover(before.model, self.work.source, self.data.fit, plan=before.plan, minutes=minutes)
            made = replace(before, model=lesson.model, recovery=lesson)
            found = self.measured(made, trial.made.reduce, trial.made.levers)
            return self.promise.tried(f"{trial.name}, recovered", found, made.model)

    def measured(self, made: Compression, reduce: float, levers: str) -> Candidate:
        """What a result takes: measured beside the original, or predicted from times of elsewhere."""
        model = made.model
        if self.elsewhere is None:
            share = _share(model, self.work.source, self.data.held_out, self.options)
        else:
            share = made.plan.after["latency"] / self.elsewhere.unpruned
        taken = share * self.original.seconds
        return Candidate(made, reduce, taken, model.file_size + _TOLD, ram_of(model, self.options), levers)


def _share(model: Model, source: Model, samples: Samples, options: AutoOptions) -> float:
    """A candidate's time over the original's, in turns: the machine may have been busier when that was measured."""
    from onnxprune.pruning.quantization.measuring import seconds_of

    before, after = seconds_of([source, model], samples, Engine(options.threads), _ROUNDS)
    return after / before


def original_of(
    source: Model, analysis: Analysis, samples: Samples, options: AutoOptions, elsewhere: Elsewhere | None
) -> Candidate:
    """The original, and what it takes."""
    from onnxprune.pruning.plan import Plan
    from onnxprune.pruning.quantization.measuring import seconds_of

    if elsewhere is None:
        (taken,) = seconds_of([source], samples, Engine(options.threads), _ROUNDS)
    else:
        taken = elsewhere.unpruned
    nothing = Compression(source, Plan({}, {}, analysis.totals, analysis.totals), analysis, None)
    return Candidate(nothing, 0.0, taken, source.file_size, ram_of(source, options))


def ram_of(model: Model, options: AutoOptions) -> int | None:
    """Bytes of activations; None if they are not known, and none are promised. Raises BudgetError."""
    try:
        return taken(model).size if options.ram_of == "onnxruntime" else arena(model).size
    except ShapeError as error:
        if options.max_ram is not None:
            raise BudgetError(f"max_ram cannot be promised: {error}; leave it out") from error
        return None
