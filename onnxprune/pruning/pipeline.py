"""Applying plans, and the whole way from a model to a smaller, proven one."""

from __future__ import annotations

import html
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx

from onnxprune._display import TOTALS, long
from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.errors import AnswersError, UsageError
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.validation import blaming
from onnxprune.ops import Registry
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.certificate import Certificate, check, verify
from onnxprune.pruning.choosing import choose
from onnxprune.pruning.history import with_answers, with_integers, with_promise, with_removal, with_repair, with_rounds
from onnxprune.pruning.options import (
    AUTO,
    CHANNELS,
    MEASURED,
    CompressOptions,
    JobOptions,
    PlanOptions,
    PromiseOptions,
    by_keyword,
)
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.substituting import replaced

if TYPE_CHECKING:
    import pandas as pd

    from onnxprune.data.fidelity import Fidelity
    from onnxprune.data.samples import CalibrationSource, Samples
    from onnxprune.ir.engine import Engine
    from onnxprune.pruning.compensation import Compensation
    from onnxprune.pruning.promising import Kept
    from onnxprune.pruning.quantization.quantizing import Quantization
    from onnxprune.pruning.recovery import Recovery
    from onnxprune.pruning.rounds import Round, Stepped
    from onnxprune.torch.recovery import State


@dataclass(frozen=True)
class Compression:
    """The pruned model, the plan that made it, the analysis before, and the certificate (None if not asked for).

    The certificate is about the removal alone. ``compensation`` and ``recovery`` tell what changed weights later (of
    several ``rounds``, in the last), and ``fidelity`` how the outputs compare with the original's where calibration
    data was given. ``quantization`` has its own certificate, about the step from floats to integers. ``promise`` tells
    what is proven of the loss, where one was promised.
    """

    model: Model
    plan: Plan
    analysis: Analysis
    certificate: Certificate | None
    compensation: Compensation | None = None
    fidelity: Fidelity | None = None
    recovery: Recovery | None = None
    quantization: Quantization | None = None
    promise: Kept[Compression] | None = None
    rounds: tuple[Round, ...] = ()

    @property
    def proto(self) -> onnx.ModelProto:
        """The pruned model as one ModelProto. Do not change it."""
        return self.model.proto

    def save(self, path: str | os.PathLike[str], *, overwrite_input: bool = False) -> None:
        """Write the pruned model; see :meth:`Model.save`."""
        self.model.save(path, overwrite_input=overwrite_input)

    def to_pandas(self) -> pd.DataFrame:
        """A row per layer, before and after. Raises UsageError where pandas is not installed."""
        from onnxprune.pruning.comparison import compare

        return compare(self.analysis, self.plan).to_pandas()

    def __repr__(self) -> str:
        """A few lines: what went, what was proven, what is left."""
        return "\n".join(["Compression", *(f"  {line}" for line in self._lines)])

    @property
    def _lines(self) -> list[str]:
        before, after = self.plan.before, self.plan.after
        gone = [
            f"{title} {long(before[key], unit)} → {long(after[key], unit)}"
            for key, (title, unit) in TOTALS.items()
            if key in before and key in after
        ]
        proof, done, fidelity = self.certificate, self.compensation, self.fidelity
        lines = [", ".join(gone), "not verified" if proof is None else proof.sentences[0]]
        if done is not None:
            lines.append(f"{done.method} with {done.samples} samples: {len(done.changed)} layers changed")
        if fidelity is None:
            lines.append("answers unknown: give calibration data")
        else:
            where = " on the samples that it was fitted to" if fidelity.seen else ""
            where = " on synthetic samples, no evidence about real data" if fidelity.made else where
            lines += [f"answers {one.verdict} ({one.task}){where}: {one.words}" for one in fidelity.answers[:3]]
        return [line for line in [*lines, *([] if self.promise is None else self.promise.sentences)] if line]

    def _repr_html_(self) -> str:
        """For notebooks: what was removed where, the certificate, and what is left of the answers."""
        from onnxprune.pruning.comparison import compare

        proof = self.certificate
        told = "<p>No certificate: the result was not verified.</p>" if proof is None else proof._repr_html_()
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in self._lines[2:])
        return compare(self.analysis, self.plan)._repr_html_() + told + rest


VERIFYING = "Verifying"
"""The step of :func:`run` in which the result is compared with the masked original."""
Progress = Callable[[str], AbstractContextManager[object]]
"""Called with what a step does; the step is done within the context."""


def _quietly(step: str) -> AbstractContextManager[None]:
    return nullcontext()


def apply(model: ModelLike, plan: Plan, *, registry: Registry | None = None) -> Model:
    """Remove from a model what a plan names.

    Raises:
        PlanError: the plan does not fit the model, or is inconsistent.
    """
    from onnxprune.pruning.shrinking import Shrink

    source = as_model(model)
    with blaming(source):
        base = replaced(normalize(source), plan.replaced)
        return Shrink(plan, registry)(base).model if plan.removed or not plan.replaced else base


def run(
    model: ModelLike,
    options: PlanOptions | Plan,
    job: JobOptions | None = None,
    *,
    engine: Engine | None = None,
    progress: Progress = _quietly,
    watch: Callable[[State], None] | None = None,
    promise: PromiseOptions | None = None,
) -> Compression:
    """The main job: analyse, plan, remove, verify, compensate, and compare with the original.

    Args:
        model: a Model, ModelProto or path.
        options: how to plan, or the plan.
        job: how to prove and repair.
        engine: what times of integers are measured with; onnxruntime with one thread if not given.
        progress: gives a context for every step, by what the step does; see :data:`VERIFYING`.
        watch: called after each evaluation of a recovery.
        promise: what the result may lose; how much is removed is then searched.

    Raises:
        BudgetError: the budget cannot be met.
        PlanError: the plan does not fit the model.
        VerificationError: the result does not equal the masked original, or not all of it could be compared.
        DataError: the calibration data is empty, not finite, or does not fit the model.
        AnswersError: less is left of what the model says than ``min_agreement``, or the promise cannot be kept.
        UsageError: a compensation or task that is not known, or that needs calibration data and has none.
    """
    job = job or JobOptions()
    if promise is not None and promise.max_loss is not None:
        if isinstance(options, Plan):
            raise UsageError("a plan says what goes; max_loss would decide that")
        promise.check_alone(options, job)
    source = as_model(model)
    registry = job.registry or (None if isinstance(options, Plan) else options.registry)
    shapes = options.input_shapes or None
    analysis = analyze(source, shapes, split=options.split, state=options.state or None, registry=registry)
    if job.keep_float:
        from onnxprune.pruning.quantization.quantizing import require_known

        # What is misspelled is told before the work, not after it.
        require_known(job.keep_float, [layer.name for layer in analysis.layers])
    asked = promise is not None and promise.max_loss is not None
    data = with_proof(source, job) if asked else calibrated(source, job)
    fit = None if data is None else data.fit
    if fit is not None and job.recover:
        from onnxprune.pruning.recovery import apart, require_bridge

        require_bridge()
        # A recovery chooses by samples that nothing before it was fitted to.
        fit = apart(fit)[0]
    work = Work(source, analysis, registry, job, data, fit, engine, progress, watch)
    if isinstance(options, Plan):
        if job.rounds not in (1, AUTO):
            raise UsageError("a plan says what goes, all at once; rounds plan by a budget")
        return make(work, options)
    if fit is not None:
        options = replace(options, calibration=fit)
    if promise is not None and promise.max_loss is not None and data is not None:
        return _promised(work, data, options, promise)
    if fit is not None and data is not None and job.rounds != 1:
        from onnxprune.pruning.rounds import in_rounds, rounds_of

        count = rounds_of(job.rounds, options, analysis, len(fit), job.minutes)
        if count > 1:
            stepped = in_rounds(analysis, options, job, fit, data.fit, count, progress, watch)
            return make(work, stepped.plan, stepped)
    with progress("Planning"):
        plan = planned(analysis, options, fit, job)
    return make(work, plan)


def planned(analysis: Analysis, options: PlanOptions, samples: Samples | None, job: JobOptions) -> Plan:
    """What :func:`choose` gives, or where levers or allocations are tried out ``levers.plan_levers``."""
    if options.pulled == (CHANNELS,) and options.allocation != MEASURED:
        return choose(analysis, options if samples is None else replace(options, calibration=samples))
    from onnxprune.pruning.levers import plan_levers

    return plan_levers(analysis, options, samples, job)


@dataclass(frozen=True)
class Work:
    """What all results of one job share."""

    source: Model
    analysis: Analysis
    registry: Registry | None
    job: JobOptions
    data: Calibration | None
    fit: Samples | None
    engine: Engine | None
    progress: Progress
    watch: Callable[[State], None] | None


def make(work: Work, plan: Plan, stepped: Stepped | None = None) -> Compression:
    """What a plan makes of the model: removed, verified, compensated, and compared with the original.

    Where rounds have done all but verifying and comparing, ``stepped`` is what they have made.
    """
    source, job, data, progress = work.source, work.job, work.data, work.progress
    if plan.new_layers and job.compensation != "refit" and job.compensate != "none":
        raise UsageError(
            f"{plan.new_layers} layers of the plan stand for regions and hold random weights until they are fitted: "
            "give calibration (--calibrate), or say that you train them (--compensate none)"
        )
    with progress("Removing channels"):
        result = apply(source, plan, registry=work.registry) if stepped is None else stepped.removed
    certificate = certified(work, result, plan) if job.certify else None
    if job.provenance:
        result = with_removal(result, source, plan, certificate, job)
    method = job.compensation
    if data is None and method is None:
        return Compression(result, plan, work.analysis, certificate)
    found = lesson = fidelity = None
    before = result
    if stepped is not None:
        found, lesson = stepped.compensation, stepped.recovery if stepped.rounds[-1].damage is not None else None
        result = stepped.model
        if job.provenance:
            result = with_rounds(result, before, [one.to_dict() for one in stepped.rounds], job)
        check(result, "the recovered model")
    elif method is not None:
        from onnxprune.pruning.compensation import compensate

        with progress("Compensating"):
            how: dict[str, Any] = {"method": method, "memory": job.memory, "registry": work.registry}
            found = compensate(result, source, plan, work.fit, **how)
            result = found.model
            if left := found.unfitted(plan):
                raise UsageError(f"what stands for a region could not be fitted: {'; '.join(left)}; allow more memory")
            check(result, "the compensated model")
    if job.recover and data is not None and stepped is None:
        from onnxprune.pruning.recovery import recover

        if job.provenance and found is not None:
            result = with_repair(result, before, found, job)
        with progress("Recovering"):
            how = {"minutes": job.minutes, "augment": job.augment, "task": job.task, "progress": work.watch}
            lesson = recover(result, source, data.fit, plan=plan, **how)
            result = lesson.model
            check(result, "the recovered model")
    if data is not None:
        from onnxprune.data.fidelity import measure_fidelity

        with progress("Comparing"):
            seen = data.same and result is not before
            fidelity = measure_fidelity(source, result, data.held_out, seen=seen, task=job.task)
            if not job.int8:
                _require_answers(fidelity, job.min_agreement)
    if job.provenance and found is not None and lesson is None and stepped is None:
        result = with_repair(result, before, found, job)
    if job.provenance:
        result = with_answers(result, fidelity)
    made = Compression(result, plan, work.analysis, certificate, found, fidelity, lesson)
    if stepped is not None:
        made = replace(made, rounds=stepped.rounds)
    return made if data is None or not job.int8 else _in_integers(made, source, data, job, work.engine, progress)


def certified(work: Work, result: Model, plan: Plan) -> Certificate:
    """The comparison of a result with the masked original. Raises VerificationError where they differ."""
    job = work.job
    with work.progress(VERIFYING), blaming(work.source):
        how: dict[str, Any] = {"registry": work.registry, "memory": job.verify_memory}
        certificate = verify(work.source, result, plan, input_shapes=plan.input_shapes or None, **how)
        certificate.require(accept_unwitnessed=job.accept_unwitnessed)
    return certificate


def _promised(work: Work, data: Calibration, options: PlanOptions, wanted: PromiseOptions) -> Compression:
    """The most reduced result whose loss is proven to be small enough."""
    from onnxprune.pruning.criteria import default_registry
    from onnxprune.pruning.promising import Promise, Remembered, Trial, kept, prove, search

    assert wanted.max_loss is not None
    assert data.proof is not None
    with work.progress("Running the original"):
        promise = Promise.of(
            work.source,
            data.held_out,
            data.proof,
            most=wanted.max_loss,
            confidence=wanted.confidence,
            task=work.job.task,
        )
    options = options.decided()
    named = options.criterion
    criterion = Remembered(default_registry().find(named) if isinstance(named, str) else named)
    quietly = replace(work, progress=_quietly, job=replace(work.job, certify=False))

    def candidate(reduce: float) -> Trial[Compression]:
        with work.progress(f"Trying to remove {reduce:.1%}"):
            asked = replace(options, reduce=reduce, criterion=criterion)
            made = make(quietly, planned(work.analysis, asked, work.fit, work.job))
            return promise.tried(f"--reduce {reduce:.4g}", made, made.model)

    metric = options.metric

    def left(trial: Trial[Compression]) -> float:
        return trial.made.plan.after[metric]

    trials = sorted(search(candidate, promise.excess), key=lambda trial: (trial.damage, -left(trial)))
    with work.progress("Proving"):
        found: Kept[Compression] = kept(promise, prove(promise, trials, lambda made: made.model), left)
    made = found.best.made
    if work.job.certify:
        # The removal is proven as it was before weights were fitted; removing is cheap.
        certificate = certified(work, apply(work.source, made.plan, registry=work.registry), made.plan)
        made = replace(made, certificate=certificate)
    model = with_promise(made.model, found) if work.job.provenance else made.model
    return replace(made, model=model, promise=found)


def _in_integers(
    made: Compression, source: Model, data: Calibration, job: JobOptions, engine: Engine | None, progress: Progress
) -> Compression:
    """The result quantised, and its answers."""
    from onnxprune.data.fidelity import measure_fidelity
    from onnxprune.pruning.quantization.quantizing import quantise_model

    quantized = quantise_model(made.model, data.fit, data.held_out, job, engine=engine, progress=progress)
    with progress("Comparing"):
        fidelity = measure_fidelity(source, quantized.model, data.held_out, seen=data.same, task=job.task)
        _require_answers(fidelity, job.min_agreement)
    model = with_answers(with_integers(quantized, job), fidelity) if job.provenance else quantized.model
    return replace(made, model=model, fidelity=fidelity, quantization=quantized)


def _require_answers(fidelity: Fidelity, least: float | None) -> None:
    """See that enough is left of what the model says. Raises AnswersError."""
    if least is not None and fidelity.made:
        raise AnswersError(
            "min_agreement takes real samples: what is left of the answers on synthetic ones is no evidence"
        )
    if least is None or (fidelity.share is not None and fidelity.share >= least):
        return
    said = "; ".join(f"{one.verdict}: {one.words}" for one in fidelity.answers) or "nothing can be compared"
    share = "" if fidelity.share is None else f", {fidelity.share:.3f}"
    raise AnswersError(
        f"less than {least:g} of the original's answers is left{share} ({said}); remove less, give more samples, or "
        "train the result with the original as its teacher"
    )


def _compressed(model: ModelLike, options: CompressOptions) -> Compression:
    """Analyse, plan, apply, verify and compensate in one go.

    Args:
        model: a Model, ModelProto or path.

    Raises:
        BudgetError: the budget cannot be met.
        VerificationError: the result does not equal the masked original, or not all of it could be compared.
        DataError: the calibration data is empty, not finite, or does not fit the model.
        AnswersError: less is left of what the model says than ``min_agreement``, or the promise cannot be kept.
        UsageError: a compensation or task that is not known, or that needs calibration data and has none.
    """
    return run(model, options, options, promise=options)


compress = by_keyword(CompressOptions)(_compressed)
compress.__name__ = compress.__qualname__ = "compress"


@dataclass(frozen=True)
class Calibration:
    """Samples to fit to, samples to compare with, and whether they are the same.

    ``proof`` are those that a promise is proven on, apart from both.
    """

    fit: Samples
    held_out: Samples
    same: bool
    proof: Samples | None = None


def calibrated(model: Model, job: JobOptions) -> Calibration | None:
    """The samples that a job asks for, None if it does not. Those of a SPEC are read once for a model.

    Raises:
        DataError: they are empty, not finite, or do not fit the model.
    """
    from onnxprune.data.samples import Samples

    source = job.calibration
    if source is None:
        return None
    if isinstance(source, Samples):
        return Calibration(source, source, True)
    read = _Reading(source, job.calibration_samples)
    return model.derived(read) if isinstance(source, str) else read(model)


def with_proof(model: Model, job: JobOptions) -> Calibration:
    """The samples of a job that promises something: three parts that have none in common.

    Where the data has a part of its own for tests, that is what is chosen by and proven on; else a third of the samples
    at most is for fitting.

    Raises:
        DataError: they are empty, not finite, too few, or do not fit the model.
    """
    source = job.calibration
    assert source is not None
    read = _Reading(source, job.calibration_samples, apart=True)
    return model.derived(read) if isinstance(source, str) else read(model)


@dataclass(frozen=True)
class _Reading:
    """Reading these samples: a key that the model can remember them by."""

    source: CalibrationSource | Samples
    count: int
    apart: bool = False
    """Whether some are to be left for a proof."""

    def __call__(self, model: Model) -> Calibration:
        from onnxprune.data.samples import Samples, collect_both, collect_three, require_variety
        from onnxprune.pruning.calibration import sourced

        source = self.source if isinstance(self.source, Samples) else sourced(self.source, model)
        if self.apart:
            fit, choosing, proving = collect_three(source, model, self.count)
            found = Calibration(fit, choosing, False, proving)
        else:
            assert not isinstance(source, Samples)
            found = Calibration(*collect_both(source, model, self.count))
        require_variety(found.fit)
        return found
