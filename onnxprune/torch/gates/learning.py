"""Gates and weights learn together, under a penalty whose weight follows a budget.

Each gate is a factor of 0 or 1. What is minimised is the loss plus a weight times the share of the cost that is left;
the weight is the multiplier of an augmented Lagrangian for a limit that falls from the whole cost to what is asked.
For the last steps gates are settled, so that the weights get used to what there is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from onnxprune.data.logits import ENDINGS, head_of
from onnxprune.errors import TrainingError
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.torch.gates.module import GatedModule
from onnxprune.torch.gates.spec import BoolArray, Gates
from onnxprune.torch.training.distributed import Processes
from onnxprune.torch.training.engine import LossEngine, Tally, Teacher, View, finite
from onnxprune.torch.training.history import Callback, Epoch, Step
from onnxprune.torch.training.loop import AUTOCAST, first_batch, reproducible, teacher_of
from onnxprune.torch.training.losses import is_classification, make_objective
from onnxprune.torch.training.optimizers import make_optimizer
from onnxprune.torch.training.preparation import logits_module, with_surrogate
from onnxprune.torch.training.recipe import Recipe
from onnxprune.torch.training.schedule import rate
from onnxprune.torch.writing import write_back

if TYPE_CHECKING:
    from onnxprune.data import Data

_SLOWEST, _WAY = 0.05, 10.0
"""The least rate of scores, and how far they could go in all steps: many times what lies between open and closed."""
_NEAR = 0.01
"""The share of the whole cost within which gates are at the limit."""


@dataclass(frozen=True)
class Learning:
    """How gates learn.

    Attributes:
        epochs: passes over the samples.
        lr: the rate of Adam at which scores move, which begin at 1 and close at 0; None suits it to the steps.
        begin: the share of the steps after which the limit starts to fall,
        reach: after which it is what was asked,
        settle: and after which gates are settled, or a little later, when the limit is reached.
        pull: how much the multiplier grows in all steps per share of the cost that is too much.
        flipped: the share of regions' gates that are the other way round in a step, to see what that does.
        push: how much the penalty weighs more at once, per share of the cost that is too much.
    """

    epochs: int = 1
    lr: float | None = None
    begin: float = 0.1
    reach: float = 0.6
    settle: float = 0.8
    pull: float = 200.0
    push: float = 10.0

    flipped: float = 0.1

    def rate(self, steps: int) -> float:
        """The rate of scores, where so many steps are taken."""
        return max(_SLOWEST, _WAY / steps) if self.lr is None else self.lr

    def limit(self, progress: float, last: float) -> float:
        """The share of the cost that is allowed when such a share of the steps is done; ``last`` is what was asked."""
        done = min(max((progress - self.begin) / (self.reach - self.begin), 0.0), 1.0)
        return 1.0 + (last - 1.0) * done


@dataclass(frozen=True)
class Moment:
    """How far it is: the step, shares of the cost that are left and allowed, and what a whole cost weighs."""

    step: int
    left: float
    allowed: float
    weight: float


@dataclass(frozen=True)
class Learned:
    """The model without gates with its learnt weights, which gates stay open, and how it went."""

    model: Model
    open: BoolArray
    history: tuple[Epoch, ...]
    moments: tuple[Moment, ...]
    rate: float


def learn(
    gates: Gates,
    data: Data,
    recipe: Recipe,
    how: Learning,
    *,
    teacher: ModelLike | None = None,
    device: torch.device | None = None,
    callbacks: Sequence[Callback] = (),
) -> Learned:
    """Train a gated model until its gates are settled, and its weights used to that.

    The learning rate is that of the first ``how.epochs`` of all epochs that this and the recipe ask for.

    Raises:
        ConversionError: the model has operators that PyTorch has no converter for.
        DataError: the samples do not fit the model.
        TrainingError: the loss is not finite, or the gates do not close.
    """
    group = Processes(0, 1, device or torch.device("cpu"))
    with reproducible(recipe.seed, group):
        run = _Run(gates, data, recipe, how, None if teacher is None else as_model(teacher), group)
        for epoch in range(how.epochs):
            run.epoch(epoch, callbacks)
        return run.result()


class _Run:
    """The state of one learning."""

    def __init__(
        self, gates: Gates, data: Data, recipe: Recipe, how: Learning, tutor: Model | None, group: Processes
    ) -> None:
        self._gates, self._data, self._recipe, self._how = gates, data, recipe, how
        if recipe.precision == "float16":
            raise TrainingError("gates learn in float32 or bfloat16: float16 would need a scaled loss")
        first = first_batch(data.train, recipe)
        head = head_of(gates.base, recipe.output)
        cut = ENDINGS if is_classification(recipe, first.targets) else ()
        fed = {value.name for value in gates.base.graph.input}
        inner = logits_module(gates.model, head, cut, among=fed)
        opened = {vector.name: np.ones(len(vector.gates), dtype=np.float32) for vector in gates.vectors}
        with_surrogate(inner, {**first.inputs, **opened}, head, recipe)
        self._module = GatedModule(inner, gates, how.flipped)
        self._module.to(group.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._module.train()
        view = View(tuple(name for name in inner.onnx_inputs if name in fed), head, group.device)
        student: Teacher | None = teacher_of(tutor, group, cut)
        self._engine = LossEngine(
            self._module, view, make_objective(recipe, first.targets), student, AUTOCAST[recipe.precision]
        )
        self._optimizer = make_optimizer(inner, recipe)
        self._steps = max(len(data.train) // recipe.batch_size, 1)
        lr = how.rate(how.epochs * self._steps)
        self._scores = torch.optim.Adam([self._module.scores], lr=lr, betas=(0.9, 0.99))
        self._weight = 0.0
        self._lr = recipe.lr
        self._history: list[Epoch] = []
        self._moments: list[Moment] = []

    def epoch(self, index: int, callbacks: Sequence[Callback]) -> None:
        """Pass over the samples once."""
        recipe, how, tally = self._recipe, self._how, Tally()
        order, dropout = np.random.SeedSequence([recipe.seed, index]).generate_state(2)
        torch.manual_seed(int(dropout))
        begin = time.perf_counter()
        steps, total = how.epochs * self._steps, (how.epochs + recipe.epochs) * self._steps
        samples = self._data.train.iterate(recipe.batch_size, seed=int(order))
        for number, batch in enumerate(itertools.islice(samples, self._steps), index * self._steps):
            self._lr = rate(recipe, number, total)
            for parameters in self._optimizer.param_groups:
                parameters["lr"] = self._lr
            if self._is_time(number / steps):
                self._settle()
            loss, right = self._engine.loss(batch)
            value = finite(loss, number + 1, self._lr)
            self._optimizer.zero_grad()
            self._scores.zero_grad()
            if not self._is_settled:
                loss = loss + self._penalty(number, steps)
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_(self._module.inner.parameters(), recipe.clip)
            self._optimizer.step()
            if not self._is_settled:
                self._scores.step()
            tally.add(value, right, 0 if batch.targets is None else batch.targets.size, len(batch))
            for callback in callbacks:
                sofar = tally.score()
                callback.stepped(Step(number + 1, steps, index, sofar.loss, sofar.accuracy))
        epoch = Epoch(index, self._lr, tally.score(), None, time.perf_counter() - begin)
        self._history.append(epoch)
        for callback in callbacks:
            callback.epoch_ended(epoch)

    def _is_time(self, progress: float) -> bool:
        """Whether gates are to be settled: they have had their time, and are near to the limit or have no more."""
        if progress < self._how.settle:
            return False
        gates = self._gates
        near = gates.cost.total(self._module.open) <= gates.limit + _NEAR * gates.full
        return near or progress >= (1 + self._how.settle) / 2

    @property
    def _is_settled(self) -> bool:
        return bool(self._module.settled)

    def _penalty(self, number: int, steps: int) -> torch.Tensor:
        """The cost's share that is left, times what it weighs now; to the gates it is linear."""
        gates, how = self._gates, self._how
        open = self._module.open
        left = gates.cost.total(open) / gates.full
        allowed = how.limit(number / steps, gates.limit / gates.full)
        over = left - allowed
        self._weight = max(self._weight + how.pull / steps * over, 0.0)
        weight = max(self._weight + how.push * over, 0.0)
        self._moments.append(Moment(number + 1, left, allowed, weight))
        slope = torch.from_numpy(gates.cost.gradient(open) / gates.full).to(self._module.now)
        return weight * (slope * self._module.now).sum()

    def _settle(self) -> None:
        if not self._is_settled:
            self._module.settle(self._gates.settle(self._module.scores.detach().cpu().double().numpy()))

    def result(self) -> Learned:
        """The weights without the gates."""
        self._settle()
        inner = self._module.inner.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if not all(bool(torch.isfinite(value).all()) for value in inner.state_dict().values()):
            raise TrainingError("weights are not finite after the gates were learnt; take a smaller learning rate")
        model = write_back(inner, self._gates.base)
        return Learned(model, self._module.open, tuple(self._history), tuple(self._moments), self._lr)
