"""Training: a model, data and a recipe in; the trained model and how it went out."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils import deterministic

from onnxprune.data.evaluation import Score
from onnxprune.data.logits import head_of
from onnxprune.errors import CheckpointError, DataError, TrainingError
from onnxprune.ir.files import same_place
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.provenance import steps_of, with_step
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.surrogates import Surrogate
from onnxprune.torch.training import checkpoints
from onnxprune.torch.training.checking import check_written
from onnxprune.torch.training.distributed import Processes, processes
from onnxprune.torch.training.engine import LossEngine, Tally, Teacher, View, finite
from onnxprune.torch.training.history import Callback, Epoch, Step
from onnxprune.torch.training.kernels import quicken
from onnxprune.torch.training.losses import make_objective
from onnxprune.torch.training.optimizers import make_optimizer
from onnxprune.torch.training.preparation import Prepared, logits_module, prepare
from onnxprune.torch.training.recipe import Recipe
from onnxprune.torch.training.schedule import rate

if TYPE_CHECKING:
    from onnxprune.data import Batch, Batches, Data

AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Training:
    """What training gave.

    Attributes:
        model: the trained model: the graph that was given, with other values.
        module: the trained module; it gives logits where the model gives probabilities.
        history: the figures of every epoch.
        kept: the epoch (from 0) whose weights these are.
        surrogate: what passed gradients through thresholds, or would have had to; None where weights reach the output
            without.
    """

    model: Model
    module: OnnxModule
    history: tuple[Epoch, ...]
    kept: int
    surrogate: Surrogate | None = None

    @property
    def seconds(self) -> float:
        """Time of all training steps."""
        return sum(epoch.seconds for epoch in self.history)

    @property
    def test(self) -> Score | None:
        """The figures of the kept epoch on the held-out samples."""
        return self.history[self.kept].test


def train(
    model: ModelLike,
    data: Data,
    recipe: Recipe | None = None,
    *,
    teacher: ModelLike | None = None,
    checkpoint: Path | None = None,
    resume: Path | None = None,
    device: str = "auto",
    callbacks: Sequence[Callback] = (),
) -> Training:
    """Train an ONNX model, and give it back as the same graph with other values.

    The same arguments give the same result, to the bit on a CPU with the same number of threads. Under ``torchrun``
    all processes call this with the same arguments, share each batch, and get the same result.

    Args:
        model: a Model, ModelProto or path; not changed.
        data: what to learn from, and what to evaluate with after each epoch, if anything.
        recipe: how to train; None is ``Recipe()``.
        teacher: a model whose results to follow as well (distillation).
        checkpoint: a file to write after each epoch; None writes none.
        resume: the checkpoint of the same training, to go on from; the curve is that of a training in one go.
        device: ``auto`` (a GPU if there is one), or what PyTorch calls it.
        callbacks: hear of each step and epoch.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, of another training, or cannot be written.
        ConversionError: the model has operators that PyTorch has no converter for.
        DataError: the samples do not fit the model.
        ModelError: the model cannot be read.
        TrainingError: the loss is not finite, or a setting does not fit the model or machine.
        VerificationError: onnxruntime does not give with the result what PyTorch gives.
    """
    recipe = recipe or Recipe()
    with processes(device) as group, reproducible(recipe.seed, group):
        first = first_batch(data.train, recipe)
        source = as_model(model)
        if checkpoint is not None and any(same_place(checkpoint, read) for read in source.sources):
            raise CheckpointError(f"checkpoint {checkpoint} is a file of the model; give another name")
        prepared = prepare(source, recipe, first)
        tutor = None if teacher is None else as_model(teacher)
        identity = checkpoints.Identity(
            checkpoints.digest(prepared.model), data.digest, checkpoints.digest(tutor), recipe.to_dict()
        )
        run = _Run(prepared, data, recipe, teacher_of(tutor, group, prepared.cut), group, first)
        if resume is not None:
            progress = checkpoints.load(resume, identity)
            try:
                run.restore(progress)
            except Exception as error:  # PyTorch says in many ways that a state is not that of its module
                raise CheckpointError(f"the states in {resume} do not fit; train without resuming") from error
        for epoch in run.epochs(callbacks):
            if group.first:
                if checkpoint is not None:
                    checkpoints.save(checkpoint, identity, run.progress())
                for callback in callbacks:
                    callback.epoch_ended(epoch)
            group.wait()
        return run.result()


class _Run:
    """The state of one training."""

    def __init__(
        self,
        prepared: Prepared,
        data: Data,
        recipe: Recipe,
        teacher: Teacher | None,
        group: Processes,
        first: Batch,
    ) -> None:
        self._prepared, self._data, self._recipe, self._group = prepared, data, recipe, group
        self._first = first
        self._plain: nn.Module = prepared.module.to(group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._plain.train()
        view = View.of(prepared.module, prepared.head, group.device)
        objective = make_objective(recipe, first.targets)
        self._optimizer = make_optimizer(self._plain, recipe)
        self._engine = LossEngine(
            group.wrapped(self._plain, len(prepared.module.onnx_outputs)),
            view,
            objective,
            teacher,
            AUTOCAST[recipe.precision],
        )
        on_processor = group.device.type == "cpu"
        self._undo = quicken(prepared.module, self._engine.autocast) if on_processor else lambda: None
        if recipe.precision == "float16" and on_processor:
            raise TrainingError("float16 needs a GPU; use bfloat16")
        self._scaler = torch.amp.GradScaler(group.device.type, enabled=recipe.precision == "float16")
        self._steps = max(len(data.train) // recipe.batch_size, 1)
        self._share = group.share(recipe.batch_size)
        self._history: list[Epoch] = []
        self._best: checkpoints.State = {}
        self._best_epoch = -1

    def epochs(self, callbacks: Sequence[Callback]) -> Iterator[Epoch]:
        """Train epoch by epoch."""
        recipe = self._recipe
        while len(self._history) < recipe.epochs and not self._is_stuck():
            index = len(self._history)
            # Each epoch has random numbers of its own, so that nothing of their state has to be kept.
            order, dropout = np.random.SeedSequence([recipe.seed, index]).generate_state(2)
            torch.manual_seed(int(dropout) + self._group.rank)
            begin = time.perf_counter()
            score, lr = self._learn(index, int(order), callbacks)
            seconds = time.perf_counter() - begin
            test = None if self._data.test is None else self._evaluate(self._data.test)
            epoch = Epoch(index, lr, score, test, seconds)
            self._history.append(epoch)
            self._remember(epoch)
            yield epoch

    def _learn(self, index: int, order: int, callbacks: Sequence[Callback]) -> tuple[Score, float]:
        recipe, group, tally, lr = self._recipe, self._group, Tally(), 0.0
        total = recipe.epochs * self._steps
        samples = self._data.train.iterate(self._share, seed=order, rank=group.rank, ranks=group.count)
        for number, batch in enumerate(itertools.islice(samples, self._steps), index * self._steps):
            lr = rate(recipe, number, total)
            for parameters in self._optimizer.param_groups:
                parameters["lr"] = lr
            loss, right = self._engine.loss(batch)
            value = finite(loss, number + 1, lr)
            self._optimizer.zero_grad()
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if recipe.clip is not None:
                self._scaler.unscale_(self._optimizer)
                nn.utils.clip_grad_norm_(self._plain.parameters(), recipe.clip)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            tally.add(value, right, 0 if batch.targets is None else batch.targets.size, len(batch))
            if callbacks and group.first:
                sofar = tally.score()
                for callback in callbacks:
                    callback.stepped(Step(number + 1, total, index, sofar.loss, sofar.accuracy))
        return tally.score(group), lr

    def _evaluate(self, samples: Batches) -> Score:
        group = self._group
        share = samples.iterate(self._share, rank=group.rank, ranks=group.count)
        return self._engine.evaluate(self._plain, share, group)

    def _remember(self, epoch: Epoch) -> None:
        if self._recipe.patience is None:
            return
        if self._best_epoch < 0 or _merit(epoch) > _merit(self._history[self._best_epoch]):
            self._best_epoch = epoch.index
            self._best = copy.deepcopy(self._plain.state_dict())

    def _is_stuck(self) -> bool:
        patience = self._recipe.patience
        return patience is not None and len(self._history) - 1 - self._best_epoch >= patience and bool(self._history)

    def progress(self) -> checkpoints.Progress:
        """Where the training stands."""
        return checkpoints.Progress(
            list(self._history),
            self._plain.state_dict(),
            self._optimizer.state_dict(),
            self._scaler.state_dict(),
            self._best,
            self._best_epoch,
        )

    def restore(self, progress: checkpoints.Progress) -> None:
        """Go on from there. Raises whatever PyTorch does where a state does not fit."""
        for state in (progress.best, progress.module):
            if state:
                self._plain.load_state_dict(state)
        self._optimizer.load_state_dict(progress.optimizer)
        if progress.scaler:
            self._scaler.load_state_dict(progress.scaler)
        self._history, self._best, self._best_epoch = list(progress.history), progress.best, progress.best_epoch

    def result(self) -> Training:
        """The trained model, compared with the module in onnxruntime."""
        if self._best:
            self._plain.load_state_dict(self._best)
        self._undo()
        module = self._prepared.module.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        module.eval()
        model = self._prepared.finished()
        check_written(module, model, self._prepared, self._first.inputs)
        if steps_of(model):
            told = {"recipe": self._recipe.to_dict(), "epochs": len(self._history)}
            model = with_step(model, "train", told, instead="write_back")
        kept = self._best_epoch if self._best else len(self._history) - 1
        return Training(model, module, tuple(self._history), kept, self._prepared.surrogate)


def _merit(epoch: Epoch) -> float:
    """The larger the better: accuracy if there is one, else minus the loss."""
    score = epoch.test or epoch.train
    return score.accuracy if epoch.test is not None and score.accuracy is not None else -score.loss


def first_batch(samples: Batches, recipe: Recipe) -> Batch:
    """Some samples. Raises DataError if there are none."""
    batch = next(iter(samples.iterate(min(recipe.batch_size, 32), seed=recipe.seed)), None)
    if batch is None or not len(samples):
        raise DataError("there are no samples to train with")
    return batch


def teacher_of(model: Model | None, group: Processes, cut: Collection[str]) -> Teacher | None:
    """A model as a teacher whose results lack what is cut from the student's."""
    if model is None:
        return None
    head = head_of(model)
    module = logits_module(model, head, cut).to(group.device)
    module.eval().requires_grad_(False)
    return Teacher(module, View.of(module, head, group.device))


@contextmanager
def reproducible(seed: int, group: Processes) -> Iterator[None]:
    """Seeded and deterministic inside; as it was outside."""
    devices = [group.device] if group.device.type == "cuda" else []
    strict, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing here reads memory that nobody wrote, and filling all of it takes time.
        deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
            torch.use_deterministic_algorithms(strict, warn_only=warn)
