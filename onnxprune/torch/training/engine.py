"""One step and one pass over the samples: forward, loss, backward."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from onnxprune.data.evaluation import Score
from onnxprune.data.logits import Head
from onnxprune.errors import DataError, TrainingError
from onnxprune.torch.module import OnnxModule
from onnxprune.torch.training.distributed import Processes
from onnxprune.torch.training.kernels import channels_last
from onnxprune.torch.training.losses import Objective, right_answers

if TYPE_CHECKING:
    from onnxprune.data import Batch


class Tally:
    """Adds up losses and right answers."""

    def __init__(self) -> None:
        self.loss, self.right, self.places, self.samples = 0.0, 0.0, 0.0, 0.0

    def add(self, loss: float, right: int | None, places: int, samples: int) -> None:
        """One batch: its mean loss, and how many of its ``places`` are right."""
        self.loss += loss * samples
        self.samples += samples
        if right is not None:
            self.right += right
            self.places += places

    def score(self, processes: Processes | None = None) -> Score:
        """The means, over all processes if they are given."""
        values = [self.loss, self.right, self.places, self.samples]
        loss, right, places, samples = processes.sum(values) if processes is not None else values
        return Score(loss / max(samples, 1), right / places if places else None, int(samples))


@dataclass(frozen=True)
class View:
    """How samples go through a module: by which inputs, and which of its results counts."""

    inputs: tuple[str, ...]
    head: Head
    device: torch.device

    @staticmethod
    def of(module: OnnxModule, head: Head, device: torch.device) -> View:
        """For a module of ``to_module``."""
        return View(module.onnx_inputs, head, device)

    def run(self, module: nn.Module, batch: Batch) -> Tensor:
        """The result for a batch.

        Raises:
            DataError: an input is missing, or the module cannot take it.
        """
        missing = [name for name in self.inputs if name not in batch.inputs]
        if missing:
            raise DataError(f"the data has nothing for the model's input '{missing[0]}'")
        arguments = [tensor(batch.inputs[name], self.device) for name in self.inputs]
        try:
            results = module(*arguments)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise TrainingError("there is not enough memory on the device; choose a smaller batch size") from error
            shapes = ", ".join(f"{n} {tuple(a.shape)} {a.dtype}" for n, a in zip(self.inputs, arguments, strict=True))
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(f"the model cannot be run on a batch of {shapes}: {reason}") from error
        result: Tensor = results if isinstance(results, Tensor) else results[self.head.position]
        return result


def tensor(values: Any, device: torch.device) -> Tensor:
    """An array as a tensor on a device; images lie channels last."""
    return channels_last(torch.from_numpy(values).to(device))


def target_of(batch: Batch, device: torch.device) -> Tensor | None:
    """The labels of a batch, or None."""
    return None if batch.targets is None else torch.from_numpy(batch.targets).to(device)


@dataclass(frozen=True)
class Teacher:
    """A trained model whose results the student follows."""

    module: OnnxModule
    view: View

    def results(self, batch: Batch) -> Tensor:
        """Its results for a batch, without gradient."""
        with torch.no_grad():
            return self.view.run(self.module, batch)


@dataclass(frozen=True)
class LossEngine:
    """Runs batches through a module.

    Attributes:
        module: the module, possibly wrapped for several processes.
        view: how samples go through it.
        objective: what is minimised.
        teacher: for distillation, or None.
        autocast: the type that matrix products are computed in, or None for the module's.
    """

    module: nn.Module
    view: View
    objective: Objective
    teacher: Teacher | None
    autocast: torch.dtype | None

    def loss(self, batch: Batch) -> tuple[Tensor, int | None]:
        """The loss of a batch, and how many answers are right.

        Raises:
            DataError: the batch does not fit the model.
            TrainingError: the loss is not finite.
        """
        targets = target_of(batch, self.view.device)
        with self._precision():
            result = self.view.run(self.module, batch)
        result = self.objective.arranged(result, targets)
        wanted = None
        if self.teacher is not None:
            wanted = self.objective.arranged(self.teacher.results(batch), targets)
        loss = self.objective(result, targets, wanted)
        return loss, right_answers(self.objective.kind, result.detach(), targets)

    def evaluate(self, module: nn.Module, batches: Iterable[Batch], processes: Processes) -> Score:
        """Loss (that of the labels alone) and accuracy on held-out samples."""
        tally = Tally()
        module.eval()
        plain = Objective(self.objective.kind)
        with torch.no_grad():
            for batch in batches:
                targets = target_of(batch, self.view.device)
                if targets is None:
                    raise DataError("the held-out samples have no labels to compare with")
                with self._precision():
                    result = plain.arranged(self.view.run(module, batch), targets)
                right = right_answers(plain.kind, result, targets)
                tally.add(float(plain(result, targets)), right, targets.numel(), len(batch))
        module.train()
        return tally.score(processes)

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        if self.autocast is None:
            yield
            return
        with torch.autocast(self.view.device.type, dtype=self.autocast):
            yield


def finite(loss: Tensor, step: int, lr: float) -> float:
    """The value of a loss. Raises TrainingError if it is NaN or infinite."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} at step {step}: training has diverged, nothing was written. "
            f"Take a smaller learning rate than {lr:.3g}, clip the gradient, or look for bad values in the data"
        )
    return value
