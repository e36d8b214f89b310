"""Trains a PyTorch network: one thread, fixed seed, AdamW with a one-cycle learning rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (PyTorch's own habit)

from models.data import Split
from models.tasks import CLASSIFY, Task, with_channel


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train; ``images`` is how much of the training split is used."""

    epochs: int
    images: int = 60_000
    batch: int = 128
    rate: float = 1e-2
    decay: float = 1e-2
    seed: int = 0


def train(build: Callable[[], nn.Module], task: Task, split: Split, recipe: Recipe) -> nn.Module:
    """Build a network, train it, and return it in evaluation mode."""
    torch.manual_seed(recipe.seed)
    network = build()
    inputs, targets = task.prepare(Split(split.images[: recipe.images], split.labels[: recipe.images]))
    x, y = torch.from_numpy(with_channel(inputs, "NCHW")), torch.from_numpy(targets)
    steps = len(x) // recipe.batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=recipe.epochs * steps)
    network.train()
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(x))[: steps * recipe.batch].view(steps, recipe.batch):
            loss = _loss(task, network(x[chosen]), y[chosen])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def _loss(task: Task, logits: Tensor, targets: Tensor) -> Tensor:
    if task is CLASSIFY:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits.squeeze(1), targets)
