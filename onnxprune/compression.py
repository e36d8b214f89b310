"""Applying plans, and the whole way from a model to a smaller, proven one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import onnx

from onnxprune.analysis import Analysis, InputShapes, ModelLike, analyze, as_model, normalize
from onnxprune.certificate import Certificate, verify
from onnxprune.errors import VerificationError
from onnxprune.model import Model
from onnxprune.ops import Registry
from onnxprune.planning import plan as make_plan
from onnxprune.plans import Plan


@dataclass(frozen=True)
class Compression:
    """The pruned model, the plan that made it, the analysis before, and the certificate (None if not asked for)."""

    model: Model
    plan: Plan
    analysis: Analysis
    certificate: Certificate | None

    @property
    def proto(self) -> onnx.ModelProto:
        """The pruned model as one ModelProto. Do not change it."""
        return self.model.proto

    def save(self, path: str | os.PathLike[str], *, overwrite_input: bool = False) -> None:
        """Write the pruned model; see :meth:`Model.save`."""
        self.model.save(path, overwrite_input=overwrite_input)


def apply(model: ModelLike, plan: Plan, *, registry: Registry | None = None) -> Model:
    """Remove from a model what a plan names.

    Raises:
        PlanError: the plan does not fit the model, or is inconsistent.
    """
    from onnxprune.passes.shrink import Shrink

    return Shrink(plan, registry).run(normalize(model)).model


def compress(
    model: ModelLike,
    *,
    input_shapes: InputShapes | None = None,
    registry: Registry | None = None,
    split: str = "finest",
    certify: bool = True,
    **options: Any,
) -> Compression:
    """Analyse, plan, apply and verify in one go; ``options`` are those of :func:`onnxprune.plan`.

    Raises:
        BudgetError: the budget cannot be met.
        VerificationError: the result does not equal the masked original.
    """
    source = as_model(model)
    analysis = analyze(source, input_shapes, split=split, registry=registry)
    chosen = make_plan(analysis, **options)
    pruned = apply(source, chosen, registry=registry)
    certificate = None
    if certify:
        certificate = verify(source, pruned, chosen, input_shapes=input_shapes, registry=registry)
        require(certificate)
    return Compression(pruned, chosen, analysis, certificate)


def require(certificate: Certificate) -> None:
    """Raise VerificationError where a certificate did not pass."""
    if not certificate.passed:
        worst = max(certificate.outputs, key=lambda o: o.relative)
        raise VerificationError(
            f"the pruned model differs from the masked original: output '{worst.name}' by {worst.relative:.2e} "
            f"relative ({worst.absolute:.2e} absolute), allowed are {certificate.tolerance:.0e}; nothing was written"
        )
