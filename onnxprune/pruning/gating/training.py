"""The whole way: gates learn, what closed is removed and proven, and what is left is trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune._display import long
from onnxprune.analysis.analyzing import Analysis, MetricSource, again, analyze
from onnxprune.analysis.cost import Metric
from onnxprune.errors import BudgetError, UsageError, installing
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.passes.base import Pass
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.passes.manager import Check, PassManager
from onnxprune.passes.merge_linear import MergeLinear
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.choosing import limits_of
from onnxprune.pruning.gating.candidates import GATED, candidates
from onnxprune.pruning.options import JobOptions, PlanOptions
from onnxprune.pruning.pipeline import Compression, run

if TYPE_CHECKING:
    from onnxprune.data import Data
    from onnxprune.torch import Callback, Recipe, Training
    from onnxprune.torch.gates import Learned, Learning


@dataclass(frozen=True)
class GatedTraining:
    """What gates left, proven and trained.

    Attributes:
        model: the small model, trained.
        compression: the removal: the small model before it was trained on, the plan, and the certificate.
        learned: how gates and weights learnt.
        training: how the small model was trained on.
    """

    model: Model
    compression: Compression
    learned: Learned
    training: Training

    @property
    def seconds(self) -> float:
        """Time of all training steps."""
        return sum(epoch.seconds for epoch in self.learned.history) + self.training.seconds

    def to_dict(self) -> dict[str, Any]:
        """How gates went, as plain data for JSON."""
        open, plan, proof = self.learned.open, self.compression.plan, self.compression.certificate
        return {
            "gates": len(open),
            "closed": int((~open).sum()),
            "epochs": [epoch.to_dict() for epoch in self.learned.history],
            "last": asdict(self.learned.moments[-1]),
            "before": dict(plan.before),
            "after": {**plan.after, **analyze(self.model, plan.input_shapes or None).totals},
            "replaced": [one.to_dict() for one in plan.replaced],
            "certificate": None if proof is None else proof.to_dict(),
        }


def learn_gates(
    model: ModelLike,
    data: Data,
    options: PlanOptions,
    recipe: Recipe | None = None,
    *,
    gates: Sequence[str] = GATED,
    learning: Learning | None = None,
    teacher: ModelLike | None = None,
    checkpoint: Path | None = None,
    resume: Path | None = None,
    device: str = "auto",
    callbacks: Sequence[Callback] = (),
    job: JobOptions | None = None,
    measure: Callable[[Analysis], MetricSource] | None = None,
) -> GatedTraining:
    """Learn with gates what to remove, remove it with a certificate, and train what is left.

    Every unit of channels that can only go together has a gate, at the very places where the certificate's masked
    original reads zeros; so has every branch that an addition could do without, and every activation. Gates and weights
    learn together, with the cost that open gates have as a penalty, whose weight follows the budget. At the end each
    gate is open or closed, and what is closed makes a plan. The epochs of the recipe then train the small model.

    Args:
        model: a Model, ModelProto or path; not changed.
        data: what to learn from, and what to evaluate with after each epoch, if anything.
        options: one budget (``mode`` and ``reduce``, or ``max_params`` and its like), and what may not shrink.
        recipe: how to train the small model; gates learn with the same rate, loss, seed and start.
        gates: what has gates: of ``channels``, ``branches`` and ``activations``.
        learning: how gates learn.
        teacher: a model whose results to follow as well.
        checkpoint: a file to write after each epoch of the small model.
        resume: that file, to go on from. Gates are learnt again, to the same end.
        device: ``auto`` (a GPU if there is one), or what PyTorch calls it.
        callbacks: hear of each step and epoch.
        job: how the removal is proven.
        measure: what times of layers are measured with, where the budget is one of time and ``options`` have none.

    Raises:
        BudgetError: the budget cannot be met with all gates closed.
        ConversionError: the model has operators that PyTorch has no converter for.
        DataError: the samples do not fit the model.
        PassError: what is merged or folded after training does not equal what was trained.
        TrainingError: the gates do not close, or training diverges.
        UsageError: no budget, several, or nothing that could have a gate; PyTorch is not installed.
        VerificationError: the result does not equal the gated model.
    """
    try:
        from onnxprune.torch import Recipe, train
    except ImportError as error:
        raise UsageError(f"gates learn with PyTorch, which is not installed; {installing('torch')}") from error
    from onnxprune.torch.gates import Learning, learn
    from onnxprune.torch.training.distributed import processes
    from onnxprune.torch.training.loop import first_batch
    from onnxprune.torch.training.preparation import begun

    recipe = recipe or Recipe()
    learning = learning or Learning()
    with processes(device) as group:
        if group.count > 1:
            raise UsageError("gates learn in one process; start without torchrun")
        start, restored = begun(as_model(model), recipe, first_batch(data.train, recipe))
        shapes = options.input_shapes or None
        analysis = analyze(
            normalize(start), shapes, split=options.split, state=options.state, registry=options.registry
        )
        if options.timed and options.latency is None and measure is not None:
            options = replace(options, latency=measure(analysis))
        found = candidates(analysis, options, gates)
        learned = learn(
            found.gates(), data, recipe, learning, teacher=teacher, device=group.device, callbacks=callbacks
        )
    made = run(learned.model, found.plan(learned.open), job)
    # The rate goes on from where gates were settled.
    after = replace(recipe, start="fine-tune", restore_batchnorm=False, lr=learned.rate, warm_up=0.0)
    trained = train(
        made.model, data, after, teacher=teacher, checkpoint=checkpoint, resume=resume, device=device,
        callbacks=callbacks,
    )  # fmt: skip
    of_regions = zip(found.regions, learned.open[len(found.group) :], strict=True)
    merges = any(one.merge and not stays for one, stays in of_regions)
    steps: list[Pass] = [*([FoldBatchnorm(restored)] if restored else []), *([MergeLinear()] if merges else [])]
    # What training has checked is the model before these: outputs have to stay equal.
    final = PassManager(steps, Check.EQUALITY, shapes).run(trained.model).model
    if merges:
        _require_budget(again(analysis, final), dict(limits_of(analysis, options)))
    return GatedTraining(final, made, learned, trained)


def _require_budget(final: Analysis, limits: Mapping[Metric, float]) -> None:
    """See that a merged model meets what was counted with the merges.

    Raises:
        BudgetError: it does not: a layer whose zeros at the edge met no bias before training has one now, say.
    """
    for metric, limit in limits.items():
        if final.totals.get(metric, 0.0) > limit:
            raise BudgetError(
                f"{long(final.totals[metric])} {metric} are left after training, {long(limit)} were asked for: layers "
                "that were to merge have biases now, which zeros at the edges meet; leave activations out of the gates"
            )
