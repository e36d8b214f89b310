"""Recovery without labels, on the PyTorch bridge: the original teaches the pruned model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.analysis.analyzing import analyze
from onnxprune.data.augmenting import parse_augmentations
from onnxprune.data.samples import CalibrationSource, Samples, collect, require_variety
from onnxprune.errors import PlanError, UsageError, VerificationError, installing
from onnxprune.ir.digest import model_digest
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.provenance import steps_of, with_step
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.calibration import sourced
from onnxprune.pruning.history import original_of, plan_of
from onnxprune.pruning.plan import Plan

if TYPE_CHECKING:
    from onnxprune.torch.recovery import State

#: Samples that are read at most, and the share of them that is held out to choose by (within these numbers).
_MOST_SAMPLES, _HELD_OUT, _FEWEST, _MOST = 2048, 0.15, 8, 256
#: Samples per step, from the fewest to the most, and the multiply-accumulates of the original that are enough for one.
_BATCH, _STEP_MACS = (4, 16), 1e10


@dataclass(frozen=True)
class Recovery:
    """The recovered model and how it went: states on samples held out, the first before any step, and the kept one."""

    model: Model
    states: tuple[State, ...]
    kept: int
    samples: int
    held_out: int
    blocks: tuple[str, ...]
    interrupted: bool = False
    """Whether somebody ended it."""

    def to_dict(self) -> dict[str, Any]:
        """How it went, as plain data for JSON."""
        return {
            "samples": self.samples,
            "held_out": self.held_out,
            "blocks": list(self.blocks),
            "kept": self.kept,
            "states": [asdict(state) for state in self.states],
        }


def require_bridge() -> None:
    """Raise UsageError where PyTorch is not installed."""
    try:
        import onnxprune.torch.recovery  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"recovery trains with PyTorch, which is not installed; {installing('torch')}\n"
            "Without it, compensation (a refit in closed form) is what there is"
        ) from error


def apart(samples: Samples) -> tuple[Samples, Samples]:
    """The samples that a recovery learns from, and those that it chooses by: whoever fits before it leaves them out."""
    aside = min(max(round(_HELD_OUT * len(samples)), min(_FEWEST, len(samples) // 2)), _MOST)
    if samples.fixed:
        aside = -(-aside // samples.step) * samples.step
    return samples.part(0, len(samples) - aside), samples.part(len(samples) - aside, len(samples))


def _batch_of(teacher: Model, samples: Samples) -> int:
    """Samples per step: fewer of them where each costs much, as many small steps learn more than few large ones."""
    count = samples.step if samples.fixed else 1
    analysis = analyze(teacher, {name: (count, *array.shape[1:]) for name, array in samples.inputs.items()})
    macs = analysis.totals["flops"] / count
    return int(min(max(_STEP_MACS / max(macs, 1.0), _BATCH[0]), _BATCH[1]))


def recover(
    pruned: ModelLike,
    original: ModelLike,
    data: CalibrationSource | Samples,
    *,
    plan: Plan | None = None,
    minutes: float = 10.0,
    steps: int | None = None,
    augment: str = "crop,flip,mix",
    lr: float = 1e-3,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Callable[[State], None] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    task: str = "auto",
) -> Recovery:
    """Train a pruned model, without labels, to compute what the original computes.

    Blocks are found in the graph: they lie between tensors through which everything passes, but masks and shapes. The
    first ones, as long as they hardly err, stay as they are. For a short time every block learns by itself to give what
    the original gives at its end, then all of them together, and the outputs (class probabilities where there are
    classes, directions where there are embeddings). The weights are averaged over steps, and the best average on
    samples held out is kept: the result is never worse there than what came.

    Args:
        pruned: the pruned model, compensated or not.
        original: the model before.
        data: samples: a SPEC, Data, Batches, or arrays by input; labels are not looked at.
        plan: what was removed; the pruned file tells it, if onnxprune has written it.
        minutes: the time there is.
        steps: or so many steps, whatever the time; the same arguments then give the same result.
        augment: what is done with images: of ``crop``, ``flip`` and ``mix``, with commas, or ``none``.
        lr: the highest learning rate, as a share of how large the values of a tensor are, for batches of 16; for others
            it goes with the square root of their size.
        batch_size: samples per step; 16, or fewer (4 at least) where a sample takes so much that there were few steps.
        seed: of order and augmentation.
        progress: called after each evaluation.
        checkpoint: a file that each evaluation is kept in; an interruption leaves it, the end removes it.
        resume: go on from that file: with the same models, samples and settings, but for ``minutes`` and ``steps``.
        task: what the outputs say, as for :func:`onnxprune.compress`: classes are to have the same probabilities,
            embeddings the same directions, all else the same values.

    Raises:
        CheckpointError: that file is missing, damaged, of another recovery, or cannot be written.
        UsageError: PyTorch is not installed, an argument is out of range, or the task reads none of the outputs.
        PlanError: no plan was given, and the file tells of none.
        ConversionError: the pruned model has operators that PyTorch has no converter for.
        DataError: the samples are empty, not finite, or do not fit the model.
        TrainingError: there are too few samples, or training has come apart.
        VerificationError: the original is another model.
    """
    require_bridge()
    from onnxprune.torch.recovery import Checkpoint, Teaching, follow

    student, teacher = as_model(pruned), as_model(original)
    if plan is None:
        plan, known = plan_of(student), original_of(student)
        if plan is None:
            raise PlanError("the pruned file does not tell what was removed from which model; give the plan")
        if known is not None and known != model_digest(teacher):
            raise VerificationError(
                "the teacher is not the original: the pruned file says that it was made of another model; give that "
                "one (or, in Python, the plan, if it is to learn from this one)"
            )
    # Always in the order of calibration: what is held out is then last, and what a refit was made of comes first.
    normal = normalize(teacher)
    samples = data if isinstance(data, Samples) else collect(sourced(data, normal), normal, _MOST_SAMPLES)
    require_variety(samples)
    learnt, held_out = apart(samples)
    batch_size = _batch_of(teacher, samples) if batch_size is None else batch_size
    how = Teaching(minutes, steps, parse_augmentations(augment), lr=lr, batch_size=batch_size, seed=seed)
    keeping = None
    if checkpoint is not None:
        settings = {"augment": augment, "lr": str(lr), "batch_size": str(batch_size), "seed": str(seed), "task": task}
        models = {"student": model_digest(student), "teacher": model_digest(teacher)}
        keeping = Checkpoint(checkpoint, {**models, "samples": samples.digest(), **settings}, resume)
    elif resume:
        raise UsageError("to resume a recovery takes its checkpoint; give the file")
    done = follow(student, teacher, plan.removed, learnt, held_out, how, progress, keeping, task)
    model = done.model
    if steps_of(student) and done.kept:
        damage = [round(done.states[place].damage, 3) for place in (0, done.kept)]
        told = {"samples": len(learnt), "steps": done.states[done.kept].step, "damage": damage, "augment": augment}
        model = with_step(model, "recover", told, instead="write_back")
    return Recovery(model, done.states, done.kept, len(learnt), len(held_out), done.blocks, done.interrupted)
