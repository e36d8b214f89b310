"""Applying plans, and the whole way from a model to a smaller, proven one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from onnxprune.analysis.analyzing import Analysis, InputShapes, analyze
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.state import State
from onnxprune.ir.validation import blaming
from onnxprune.ops import Registry
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.certificate import Certificate, check, verify
from onnxprune.pruning.choosing import plan as make_plan
from onnxprune.pruning.plan import Plan

if TYPE_CHECKING:
    import pandas as pd

    from onnxprune.data.fidelity import Fidelity
    from onnxprune.data.samples import CalibrationSource, Samples
    from onnxprune.pruning.compensation import Compensation


@dataclass(frozen=True)
class Compression:
    """The pruned model, the plan that made it, the analysis before, and the certificate (None if not asked for).

    The certificate is about the removal alone. ``compensation`` tells which weights changed after it, if any, and
    ``fidelity`` how the outputs compare with the original's where calibration data was given.
    """

    model: Model
    plan: Plan
    analysis: Analysis
    certificate: Certificate | None
    compensation: Compensation | None = None
    fidelity: Fidelity | None = None

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

    def _repr_html_(self) -> str:
        """For notebooks: what was removed where, and the certificate."""
        from onnxprune.pruning.comparison import compare

        proof = self.certificate
        told = "<p>No certificate: the result was not verified.</p>" if proof is None else proof._repr_html_()
        return compare(self.analysis, self.plan)._repr_html_() + told


def apply(model: ModelLike, plan: Plan, *, registry: Registry | None = None) -> Model:
    """Remove from a model what a plan names.

    Raises:
        PlanError: the plan does not fit the model, or is inconsistent.
    """
    from onnxprune.pruning.shrinking import Shrink

    source = as_model(model)
    with blaming(source):
        return Shrink(plan, registry)(normalize(source)).model


def compress(
    model: ModelLike,
    *,
    input_shapes: InputShapes | None = None,
    registry: Registry | None = None,
    split: str = "finest",
    state: State = None,
    certify: bool = True,
    accept_unwitnessed: bool = False,
    calibration: CalibrationSource | None = None,
    calibration_samples: int | None = None,
    compensate: str | None = None,
    **options: Any,
) -> Compression:
    """Analyse, plan, apply, verify and compensate in one go.

    Args:
        model: a Model, ModelProto or path.
        input_shapes: shapes for inputs with symbolic dimensions.
        registry: the known operators, if not the default ones.
        split: which part of an axis that a Reshape splits carries a removal; see :func:`onnxprune.analyze`.
        state: outputs that are fed to inputs in the next run, and shrink with them; see :func:`onnxprune.analyze`.
        certify: compare the result of the removal with the masked original.
        accept_unwitnessed: be content with a certificate that could not have noticed every fault.
        calibration: samples to compensate and compare with: a SPEC, Data, Batches, or arrays by input.
        calibration_samples: how many of them to use at most (256).
        compensate: how the remaining weights make good what was removed; see :func:`onnxprune.compensate`.
        options: those of :func:`onnxprune.plan`.

    Raises:
        BudgetError: the budget cannot be met.
        VerificationError: the result does not equal the masked original, or not all of it could be compared.
        DataError: the calibration data is empty, not finite, or does not fit the model.
        UsageError: a compensation that is not known, or that needs calibration data and has none.
    """
    source = as_model(model)
    analysis = analyze(source, input_shapes, split=split, state=state, registry=registry)
    given = None if calibration is None else _calibration(calibration, source, calibration_samples)
    chosen = make_plan(analysis, calibration=None if given is None else given[0], **options)
    pruned = apply(source, chosen, registry=registry)
    certificate = None
    if certify:
        with blaming(source):
            certificate = verify(source, pruned, chosen, input_shapes=input_shapes, registry=registry)
        certificate.require(accept_unwitnessed=accept_unwitnessed)
    finished = finish(source, pruned, chosen, given, compensate)
    return Compression(finished.model, chosen, analysis, certificate, finished.compensation, finished.fidelity)


def _calibration(source: CalibrationSource, model: Model, count: int | None) -> tuple[Samples, Samples, bool]:
    from onnxprune.data.samples import DEFAULT_COUNT, collect_both

    return collect_both(source, model, DEFAULT_COUNT if count is None else count)


@dataclass(frozen=True)
class Finished:
    """What becomes of a pruned model on calibration data."""

    model: Model
    compensation: Compensation | None = None
    fidelity: Fidelity | None = None


def finish(
    original: Model,
    pruned: Model,
    plan: Plan,
    given: tuple[Samples, Samples, bool] | None,
    method: str | None,
    *,
    memory: int | None = None,
) -> Finished:
    """Compensate a pruned model, if ``method`` is given, and compare it with the original, if there is data.

    Args:
        original: the model before.
        pruned: the result of applying ``plan``.
        plan: what was removed.
        given: samples to fit to, samples to compare with, and whether they are the same.
        method: see :func:`onnxprune.compensate`.
        memory: see :func:`onnxprune.compensate`.

    Raises:
        DataError: the calibration data does not fit the model.
        UsageError: an unknown method, or one that needs data and has none.
        VerificationError: the compensated model is not valid.
    """
    if given is None and method is None:
        return Finished(pruned)
    from onnxprune.data.fidelity import measure_fidelity
    from onnxprune.pruning.compensation import compensate as run

    fit, held_out, seen = given or (None, None, False)
    found = None if method is None else run(pruned, original, plan, fit, method=method, memory=memory)
    result = pruned if found is None else found.model
    if found is not None:
        check(result, "the compensated model")
    if held_out is None:
        return Finished(result, found)
    return Finished(result, found, measure_fidelity(original, result, held_out, seen=seen and found is not None))
