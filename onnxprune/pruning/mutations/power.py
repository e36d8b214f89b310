"""How much a certificate notices on a model: faults are put into the pruned file, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from onnxprune.analysis.analyzing import analyze
from onnxprune.errors import VerificationError
from onnxprune.ir.model import ModelLike, as_model
from onnxprune.pruning.certificate.rehearsal import Rehearsal
from onnxprune.pruning.certificate.verifying import certifier_of, usual_inputs
from onnxprune.pruning.mutations import mutations
from onnxprune.pruning.plan import Plan

_MOST_SAID = 5


@dataclass(frozen=True)
class Power:
    """Of ``tried`` faults, ``by_tensors`` changed a compared tensor, ``refused`` were not run by onnxruntime.

    ``by_weights`` were noticed by comparing weights alone: what they change shows in no tensor, however it is fed.
    ``unnoticed`` describes the others.
    """

    tried: int
    by_tensors: int
    by_weights: int
    refused: int
    unnoticed: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The figures in words."""
        first = (
            f"Power: of {self.tried} faults put into the pruned model, {self.by_tensors} change tensors that are "
            f"compared, {self.refused} do not run, {self.by_weights} show in the weights alone, "
            f"{len(self.unnoticed)} would pass."
        )
        return (first, *(f"Would pass: {fault}." for fault in self.unnoticed[:_MOST_SAID]))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return asdict(self)


def measure_power(
    model: ModelLike,
    pruned: ModelLike,
    plan: Plan,
    count: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Power:
    """Put ``count`` faults into a pruned model, and ask the certificate of each.

    Args:
        model: the original.
        pruned: a result that is certified.
        plan: what was removed.
        count: how many faults; fewer, where the model has no room for so many.
        seed: of the faults.
        progress: called with the number of faults tried and of all.

    Raises:
        PlanError: the plan does not fit the model.
        VerificationError: onnxruntime does not run the original.
    """
    original, result = as_model(model), as_model(pruned)
    analysis = analyze(original, plan.input_shapes, split=plan.split, state=plan.state)
    certifier = certifier_of(analysis, plan)
    rehearsal = Rehearsal(certifier, result, usual_inputs(analysis))
    tried = by_tensors = by_weights = refused = 0
    unnoticed: list[str] = []
    for mutation in islice(mutations(result, analysis, plan, seed), count):
        tried += 1
        faulty = mutation.apply(result)
        try:
            if rehearsal.differing(faulty):
                by_tensors += 1
            elif rehearsal.changed_weights(faulty):
                by_weights += 1
            else:
                unnoticed.append(str(mutation))
        except VerificationError:
            refused += 1
        progress(tried, count)
    return Power(tried, by_tensors, by_weights, refused, tuple(unnoticed))
