"""What can be proven of a file: the removal, also where weights have changed since, and who changed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune._display import some
from onnxprune.analysis.analyzing import InputShapes, analyze
from onnxprune.errors import UsageError
from onnxprune.ir.digest import model_digest
from onnxprune.ir.model import ModelLike, as_model
from onnxprune.ir.provenance import steps_of
from onnxprune.ops import Registry
from onnxprune.pruning.certificate import MEMORY, TOLERANCE, Certificate, verify
from onnxprune.pruning.certificate.kept import Kept
from onnxprune.pruning.certificate.values import with_original_values
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.history import PRUNE, as_left, plan_of, since_removal
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.substituting import replaced


@dataclass(frozen=True)
class Proof:
    """What was proven of a pruned model.

    Attributes:
        plan: what was removed, as was said or as the file tells.
        certificate: that this was removed; with the original's values for the weights in ``changed``.
        changed: weights whose values are not the original's.
        steps: what the file tells of since the removal.
        as_left: whether the weights are, to the bit, what the last of these steps left.
        same_original: whether the file was made of this original; None where it does not tell.
    """

    plan: Plan
    certificate: Certificate
    changed: tuple[str, ...] = ()
    steps: tuple[Mapping[str, Any], ...] = ()
    as_left: bool = False
    same_original: bool | None = None

    @property
    def explained(self) -> bool:
        """Whether values are the original's, or what a step that the file tells of has left."""
        return not self.changed or (self.as_left and bool(self.steps))

    @property
    def passed(self) -> bool:
        """Whether the removal is proven, and nothing has changed since that the file does not tell of."""
        return self.certificate.passed and self.explained

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, in words."""
        lines = []
        if self.same_original is False:
            lines.append("The file tells that it was made of another model, or of one with other metadata.")
        if not self.certificate.passed or not self.changed:
            return (*self.certificate.sentences, *lines)
        first = f"With the original's values for {len(self.changed)} weights that have others: "
        lines = [first + self.certificate.sentences[0], *self.certificate.sentences[1:], *lines]
        lines += [f"Since then: {told_of(step)}." for step in self.steps]
        if self.explained:
            lines.append(f"The values of {some(self.changed)} are, to the bit, what that left.")
        else:
            why = "since the last step that the file tells of" if self.steps else "and the file does not tell why"
            lines.append(
                f"Certificate FAILED for the values: those of {some(self.changed)} have changed {why}; "
                "train and refit with onnxprune, which writes down what it does."
            )
        return tuple(lines)

    def __repr__(self) -> str:
        """What was found, in a few lines."""
        return "\n  ".join(("Proof", *self.sentences[:9]))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {
            **self.certificate.to_dict(),
            "passed": self.passed,
            "removal_passed": self.certificate.passed,
            "changed": list(self.changed),
            "steps": [{key: value for key, value in step.items() if key != "changed"} for step in self.steps],
            "as_left": self.as_left,
            "same_original": self.same_original,
        }


def prove(
    model: ModelLike,
    pruned: ModelLike,
    plan: Plan | None = None,
    *,
    input_shapes: InputShapes | None = None,
    registry: Registry | None = None,
    tolerance: float = TOLERANCE,
    samples: int = 1,
    seed: int = 0,
    memory: int = MEMORY,
) -> Proof:
    """Compare a pruned model, refitted and trained or not, with the masked original.

    Args:
        model: the original.
        pruned: the result.
        plan: what was removed; None for what the file tells.
        input_shapes: as for :func:`onnxprune.verify`, like all that follow.
        registry: the known operators.
        tolerance: largest allowed difference.
        samples: how many random inputs.
        seed: of these.
        memory: bytes for tensors.

    Raises:
        PlanError: the plan does not fit the model, or is damaged.
        UsageError: no plan was given, and the file tells none.
        VerificationError: the pruned model is invalid, or onnxruntime does not run one of the models.
    """
    original, result = as_model(model), as_model(pruned)
    chosen = plan if plan is not None else plan_of(result)
    if chosen is None:
        raise UsageError("the pruned model does not tell what was removed; give the plan (prune --plan-out writes it)")
    how: dict[str, Any] = {"input_shapes": input_shapes, "registry": registry, "tolerance": tolerance}
    how |= {"samples": samples, "seed": seed, "memory": memory}
    shapes = input_shapes or chosen.input_shapes
    analysis = analyze(original, shapes, split=chosen.split, registry=registry, state=chosen.state)
    if chosen.replaced:
        base = replaced(analysis.model, chosen.replaced)
        analysis = analyze(base, shapes, split=chosen.split, registry=registry, state=chosen.state)
    steps = tuple(since_removal(result))
    # Normalisation that is to stay exact has weights of its own: only what is known to have changed is put back.
    only = {name for step in steps for name in step.get("changed", ())} if chosen.exact_norm else None
    kept = Kept(analysis, removed_per_class(analysis, chosen))
    restored, changed = with_original_values(analysis, kept, result, only)
    told = [step for step in steps_of(result) if step.get("step") == PRUNE]
    same = told[-1].get("original") == model_digest(original) if told else None
    certificate = verify(original, restored if changed else result, chosen, **how)
    if changed and not certificate.passed:
        # Whatever is wrong, it is to be said of the file as it is.
        certificate, changed = verify(original, result, chosen, **how), ()
    return Proof(chosen, certificate, changed, steps, as_left(result), same)


def told_of(step: Mapping[str, Any]) -> str:
    """A step that a file tells of, in words."""
    kind, names = str(step.get("step")), step.get("changed")
    said = [str(step[key]) for key in ("method", "precision") if isinstance(step.get(key), str)]
    if isinstance(step.get("data"), str):
        said.append(f"with {step['data']}")
    if isinstance(names, list):
        said.append(f"{len(names)} weights changed")
    return kind + (f" ({', '.join(said)})" if said else "")
