"""``auto``: channels, integers and recovery searched together, for the best model that keeps all promises."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxprune._display import long, percent, seconds
from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.analysis.arena import held
from onnxprune.errors import AnswersError, BudgetError, ConversionError, TrainingError, UsageError
from onnxprune.exploration.candidates import Candidate, Searching, original_of, ram_of
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.latency.predicting import Elsewhere
from onnxprune.pruning.criteria import default_registry
from onnxprune.pruning.options import (
    CHANNELS,
    INT8,
    RECOVERY,
    RESOLUTION,
    AutoOptions,
    JobOptions,
    PlanOptions,
    by_keyword,
)
from onnxprune.pruning.pipeline import Compression, Progress, Work, certified, with_proof
from onnxprune.pruning.promising import Kept, Promise, Remembered, Trial, kept, prove, search
from onnxprune.pruning.resizing import why_not_smaller

#: Samples that importance and refit see of those that a recovery learns from.
_FITTED = 512
#: What a recovery gets of the time that is left.
_RECOVERING = 0.45
#: How far beyond what a refit allows a recovery begins, of what is left, and the loss that is too much to begin with.
_BOLDER, _RUINED = (0.6, 0.4, 0.2, 0.1), 0.5
#: Minutes that a recovery is not worth beginning below.
_LEAST_MINUTES = 1.0


@dataclass(frozen=True)
class Auto:
    """The best model that keeps all promises, and how it was found.

    Attributes:
        best: the model with its certificate, and what is proven of its loss (``promise``).
        chosen: what it takes.
        original: what the original takes.
        kept: the loss, with all candidates in the order of the tests.
        options: what was promised.
        seconds: that it took to find.
        skipped: levers that could not be pulled, with reasons.
        elsewhere: the times that latency was predicted from, where it was not measured.
    """

    best: Compression
    chosen: Candidate
    original: Candidate
    kept: Kept[Candidate]
    options: AutoOptions
    seconds: float
    skipped: tuple[str, ...] = ()
    elsewhere: Elsewhere | None = None

    @property
    def model(self) -> Model:
        """The result."""
        return self.best.model

    @property
    def sentences(self) -> list[str]:
        """What was promised, on how many samples, what was measured, what it cost."""
        was, is_, options = self.original, self.chosen, self.options
        budgets = {
            "a run in at most": (options.max_latency, seconds),
            "a file of at most": (options.max_flash, lambda value: long(value, "B")),
            "activations of at most": (options.max_ram, lambda value: long(value, "B")),
        }
        promised = [f"{words} {write(value)}" for words, (value, write) in budgets.items() if value is not None]
        lines = self.kept.sentences if options.max_loss is not None else [self.kept.measured]
        if promised:
            lines.append(f"Promised besides: {', '.join(promised)}.")
        ram = "memory not known, as shapes depend on data"
        if was.ram is not None and is_.ram is not None:
            how = "in onnxruntime, as foreseen" if options.ram_of == "onnxruntime" else "as planned"
            ram = f"activations {long(was.ram, 'B')} → {long(is_.ram, 'B')} {how}"
        known, engine = "Measured", str(Engine(options.threads))
        if self.elsewhere is not None:
            known, engine = "Predicted, not measured", f"{self.elsewhere.engine}, by {self.elsewhere.file}"
        lines.append(
            f"{known}: {was.seconds / is_.seconds:.2f} × as fast ({seconds(was.seconds)} → {seconds(is_.seconds)}, "
            f"{engine}); the file {long(was.flash, 'B')} → {long(is_.flash, 'B')}; {ram}."
        )
        lines.append(f"It took {self.seconds / 60:.1f} min and {len(self.kept.trials)} candidates.")
        return [*lines, *self.skipped]

    def command(self, model: Path, output: Path) -> str:
        """What makes the same again, without a search; nothing where the original was chosen."""
        made = self.chosen.made
        if made is self.original.made:
            return ""
        words = ["onnxprune", "prune" if self.chosen.reduce else "quantize", str(model), "-o", str(output)]
        if self.chosen.reduce:
            words += ["--reduce", f"{self.chosen.reduce:.6g}", *(["--int8"] if self.chosen.int8 else [])]
            words += ["--levers", self.chosen.levers] if self.chosen.levers != CHANNELS else []
            words += ["--mode", "latency", "--times", self.elsewhere.file] if self.elsewhere is not None else []
        spec = self.options.calibration if isinstance(self.options.calibration, str) else "SPEC"
        done, most = made.compensation, self.options.calibration_samples
        samples = min(most, _FITTED) if done is None else done.samples
        words += ["--calibrate", spec, "--calibration-samples", str(most if made.recovery is not None else samples)]
        if made.recovery is not None:
            words += ["--recover", "--minutes", f"{made.recovery.states[-1].seconds / 60:.1f}"]
        return shlex.join(words)

    def to_dict(self) -> dict[str, Any]:
        """Everything but models, as plain data for JSON."""
        proof = self.best.certificate
        return {
            "promise": self.kept.to_dict(),
            "original": self.original.to_dict(),
            "chosen": self.chosen.to_dict(),
            "candidates": [{**trial.to_dict(), **trial.made.to_dict()} for trial in self.kept.trials],
            "certificate": None if proof is None else proof.to_dict(),
            "quantization": None if self.best.quantization is None else self.best.quantization.to_dict(),
            "seconds": self.seconds,
            "skipped": list(self.skipped),
            "times": None if self.elsewhere is None else self.elsewhere.file,
            "sentences": self.sentences,
        }


def run(model: ModelLike, options: AutoOptions, *, progress: Progress, path: Callable[[str], None]) -> Auto:
    """Search; see :func:`onnxprune.auto`. ``path`` is told of every candidate, in a line."""
    options.check()
    began = time.monotonic()
    source = as_model(model)
    spec = options.calibration
    job = JobOptions(calibration=spec, calibration_samples=options.calibration_samples, int8=True, certify=False)
    with progress("Reading data"):
        analysis = analyze(source)
        elsewhere = None if options.times is None else Elsewhere.load(options.times, analysis)
        data = with_proof(source, job)
    _possible(source, options, analysis)
    skipped = list[str]()
    others = [name for name in options.pulled if name != RESOLUTION]
    if others and len(others) < len(options.pulled) and (reason := why_not_smaller(analysis.model)) is not None:
        options = replace(options, levers=",".join(others))
        skipped.append(f"No smaller maps: {reason}.")
    assert data.proof is not None
    with progress("Running the original"):
        most = 1.0 if options.max_loss is None else options.max_loss
        promise = Promise.of(
            source, data.held_out, data.proof, most=most, confidence=options.confidence, task=options.task
        )
    fit = data.fit.first(_FITTED)
    work = Work(source, analysis, None, job, None, fit, None, progress, None)
    how = PlanOptions(calibration=fit, latency=elsewhere, mode="flops" if elsewhere is None else "latency").decided()
    how = replace(how, criterion=Remembered(default_registry().find(str(how.criterion))))
    original = original_of(source, analysis, data.held_out, options, elsewhere)
    searching = Searching(options, work, data, promise, how, progress, original, began, elsewhere, skipped)
    trials = _trials(searching, path)
    tested = _tested(searching, trials)
    found = kept(promise, tested, lambda trial: (trial.made.seconds, trial.made.flash))
    if found.best.made is original and options.max_loss is not None:
        raise AnswersError(_nothing(found))
    chosen = found.best.made
    best = chosen.made
    from onnxprune.pruning.history import with_promise
    from onnxprune.pruning.pipeline import apply

    if best.plan:
        best = replace(best, certificate=certified(work, apply(source, best.plan), best.plan))
    if chosen is not original:
        best = replace(best, model=with_promise(best.model, found))
        chosen = replace(chosen, flash=best.model.file_size)
    if chosen.over(options):
        raise BudgetError(f"{found.best.name}, with what is told of the promise: {'; '.join(chosen.over(options))}")
    return Auto(best, chosen, original, found, options, time.monotonic() - began, tuple(searching.skipped), elsewhere)


def _nothing(found: Kept[Candidate]) -> str:
    """Why the original is all that is left, and how near another came."""
    most = found.promise.most
    failed = next((t for t in found.trials if t.bound is not None and t.bound.upper > most), None)
    if failed is None or failed.bound is None:
        return f"none of {len(found.trials)} candidates is faster than the original and within the budgets"
    bound = failed.bound
    return (
        f"nothing faster than the original keeps the promise. The nearest, {failed.name}: "
        f"{found.promise.proven_on.what} {100 * bound.mean:.2f} % on {bound.samples:,} samples, and so at most "
        f"{100 * bound.upper:.2f} % at {100 * bound.confidence:g} % confidence ({100 * most:g} % was promised); "
        "promise less, give more samples, or more time for recovery"
    )


def _possible(source: Model, options: AutoOptions, analysis: Analysis) -> None:
    """See that no promise contradicts what must stay. Raises BudgetError."""
    if options.max_ram is None:
        return
    ram_of(source, options)
    if options.ram_of == "onnxruntime":
        return  # inputs are the caller's
    graph = analysis.coupling.graph
    least = held(graph, (*graph.inputs, *graph.outputs))
    largest = max((held(graph, (name,)) for name in (*graph.inputs, *graph.outputs)), default=0)
    if largest > options.max_ram:
        raise BudgetError(
            f"max_ram {long(options.max_ram, 'B')} cannot hold: inputs and outputs stay as they are, and take "
            f"{long(least, 'B')}, one of them {long(largest, 'B')}"
        )


def _trials(searching: Searching, path: Callable[[str], None]) -> list[Trial[Candidate]]:
    """All candidates: pruned by halving, with maps or channels alone and then with all levers of a plan; then the best
    of them in integers, then one recovered."""
    options, promise = searching.options, searching.promise
    levers, found = options.pulled, list[Trial[Candidate]]()
    integers = INT8 in levers and searching.elsewhere is None
    if INT8 in levers and not integers:
        searching.skipped.append(
            "No int8: times of another machine tell of floats, and where int8 is faster is measured."
        )
    # One alone, from the cheapest to find, then all together.
    alone = [name for name in (RESOLUTION, CHANNELS) if name in levers]
    ways = [way for way in dict.fromkeys((*alone, options.planned)) if way]

    def noted(trial: Trial[Candidate] | None) -> Trial[Candidate] | None:
        if trial is not None:
            found.append(trial)
            path(_line(trial, searching.original, promise))
        return trial

    def made(reduce: float, way: str) -> Trial[Candidate]:
        trial = searching.floats(reduce, way)
        return trial if any(one is trial for one in found) else noted(trial) or trial

    def excess(trial: Trial[Candidate]) -> float:
        if options.max_loss is not None:
            return promise.excess(trial)
        # No loss is promised: as little goes as the budgets need, in integers where they may be.
        other = noted(searching.integers(trial)) if integers and not searching.late() else None
        return -1.0 if all(one.made.over(options) for one in (trial, other) if one is not None) else 1.0

    whole = promise.tried("the original", searching.original, searching.work.source)
    floats = [whole]
    if options.max_loss is None and not searching.original.over(options):
        return floats  # nothing need be lost
    if not searching.work.analysis.coupling.groups:
        ways = [way for way in ways if way != CHANNELS]
    for number, way in enumerate(ways, 1):
        floats += search(partial(made, way=way), excess, enough=partial(searching.late, number / len(ways)))
    if integers and options.max_loss is not None:
        # From bold to mild, until one is foreseen to keep the promise.
        for trial in sorted(filter(promise.foresees, floats), key=lambda trial: trial.made.seconds):
            other = noted(searching.integers(trial))
            if other is not None and promise.foresees(other):
                break
    if RECOVERY in levers and len(floats) > 1 and options.max_loss is not None:
        _recover(searching, max(t.made.reduce for t in floats if promise.foresees(t) or t is whole), noted)
    return [whole, *found]


def _recover(
    searching: Searching, refitted: float, noted: Callable[[Trial[Candidate] | None], Trial[Candidate] | None]
) -> None:
    """Let the original teach bolder candidates than a refit makes good (``refitted``), the boldest first, while there
    is time, until one is foreseen to keep the promise."""
    from onnxprune.pruning.recovery import require_bridge

    try:
        require_bridge()
        for share in _BOLDER:
            minutes = searching.left * _RECOVERING
            if minutes < _LEAST_MINUTES:
                searching.skipped.append(
                    f"No time for more recovery: {max(searching.left, 0):.1f} min were left, and one is begun with "
                    f"{_LEAST_MINUTES / _RECOVERING:.1f} min at least; give more minutes."
                )
                return
            try:
                trial = searching.floats(refitted + share * (1 - refitted), searching.options.planned or CHANNELS)
            except BudgetError:
                continue
            if trial.losses.mean > _RUINED:
                continue
            taught = noted(searching.recovered(trial, minutes))
            if taught is not None and searching.promise.foresees(taught):
                if INT8 in searching.options.pulled and searching.elsewhere is None:
                    noted(searching.integers(taught))
                return
    except (UsageError, ConversionError, TrainingError) as error:
        searching.skipped.append(f"No recovery: {error}.")


def _tested(searching: Searching, trials: Sequence[Trial[Candidate]]) -> tuple[Trial[Candidate], ...]:
    """Those that keep the budgets, tested from the least damage on, but for those that another beats in loss and time;
    then all others.

    Raises:
        BudgetError: none keeps the budgets.
    """
    options = searching.options
    fitting = [trial for trial in trials if not trial.made.over(options)]
    if not fitting:
        near = min(trials, key=lambda trial: len(trial.made.over(options)) * 1e3 + _excess(trial.made, options))
        raise BudgetError(
            f"no candidate keeps the budgets; the nearest ({near.name}, of {len(trials)}): "
            f"{'; '.join(near.made.over(options))}; its loss is {percent(near.losses.mean)}; allow more, or more levers"
        )
    order: list[Trial[Candidate]] = []

    def first(trial: Trial[Candidate]) -> tuple[float, float]:
        # Where no loss is promised one is taken, and what is won by chance counts as nothing lost.
        damage = max(trial.losses.mean, 0.0) if options.max_loss is None else trial.damage
        return damage, trial.made.seconds

    for trial in sorted(fitting, key=first):
        if not order or trial.made.seconds < order[-1].made.seconds:
            order.append(trial)
    if options.max_loss is None:
        order = order[:1]
    with searching.progress("Proving"):
        proven = prove(searching.promise, order, lambda candidate: candidate.made.model)
    beaten = [trial for trial in trials if all(trial is not one for one in order)]
    return (*proven, *beaten)


def _excess(candidate: Candidate, options: AutoOptions) -> float:
    """By how much budgets are exceeded: the largest factor."""
    pairs = (
        (candidate.seconds, options.max_latency),
        (candidate.flash, options.max_flash),
        (candidate.ram or 0, options.max_ram),
    )
    return max((value / most for value, most in pairs if most is not None), default=0.0)


def _line(trial: Trial[Candidate], original: Candidate, promise: Promise) -> str:
    """A candidate in a line."""
    one = trial.made
    return (
        f"{trial.name}: {one.seconds / original.seconds:.2f} of the time, {long(one.flash, 'B')}, "
        f"loss {percent(trial.losses.mean)} on {len(trial.losses.values)} samples to choose by"
    )


def _auto(model: ModelLike, options: AutoOptions) -> Auto:
    """Search channels, integers and recovery together for the best model that keeps all promises.

    Args:
        model: a Model, ModelProto or path.

    Raises:
        UsageError: nothing is promised, or a value is out of range.
        DataError: there are too few samples for the promise (the message says how many it takes), they are made up,
            or labels do not fit.
        BudgetError: no candidate keeps the budgets; the message names the nearest.
        AnswersError: no candidate keeps the loss; the message says how near the mildest came.
    """
    from contextlib import nullcontext

    return run(model, options, progress=lambda step: nullcontext(), path=lambda line: None)


auto = by_keyword(AutoOptions)(_auto)
auto.__name__ = auto.__qualname__ = "auto"
