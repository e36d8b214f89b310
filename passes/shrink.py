"""Apply a plan: slice the weights and let every node follow."""

from __future__ import annotations

from onnxprune.analysis.analyzing import analyze
from onnxprune.ir.model import Model
from onnxprune.ops import Registry
from onnxprune.passes.base import Pass, PassResult
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.shrinking import ShrinkRewriter


class Shrink(Pass):
    """Remove the positions that a plan names from weights, attributes and shapes."""

    name = "shrink"
    claims_equality = False

    def __init__(self, plan: Plan, registry: Registry | None = None) -> None:
        self._plan = plan
        self._registry = registry

    def run(self, model: Model) -> PassResult:
        """Shrink the (normalised) model. Raises PlanError where the plan does not fit."""
        plan = self._plan
        analysis = analyze(model, plan.input_shapes, split=plan.split, state=plan.state, registry=self._registry)
        per_class = removed_per_class(analysis, plan)
        if not any(len(positions) for positions in per_class):
            return PassResult(analysis.model, modified=False)
        return PassResult(ShrinkRewriter(analysis, per_class, exact_norm=plan.exact_norm).run(), modified=True)
