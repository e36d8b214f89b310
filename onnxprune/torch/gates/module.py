"""A module whose gates are open or closed, and learn through both."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from onnxprune.torch.gates.spec import BoolArray, Gates
from onnxprune.torch.module import OnnxModule

_UNIT, _REGION = 1.0, 3.0
"""The scores that gates begin with: open, those of regions by more, which are few and each a large step."""


class GatedModule(nn.Module):
    """The gated model as a module that takes what the model without gates takes.

    A gate is exactly 1 where its score is above 0, else exactly 0; its gradient is that of the sigmoid of the score
    (straight-through). A slope at 1 says little of what a whole region is worth: where weights have settled it is 0,
    whatever the region does. So a few gates of regions, others in each step, are the other way round, and what the two
    states say counts alike. Settled gates learn nothing more.
    """

    def __init__(self, inner: OnnxModule, gates: Gates, flipped: float) -> None:
        super().__init__()
        self.inner = inner
        regions = torch.from_numpy(gates.regions)
        self.scores = nn.Parameter(torch.where(regions, _REGION, _UNIT))
        self.now: Tensor = torch.ones(gates.count)
        self._gates = gates
        self._settled: BoolArray | None = None
        self._chance: Tensor
        self.register_buffer("_chance", torch.where(regions, flipped, 0.0), persistent=False)
        by_name = {vector.name: vector.gates for vector in gates.vectors}
        self._vectors = [name for name in inner.onnx_inputs if name in by_name]
        for number, name in enumerate(self._vectors):
            at = np.where(by_name[name] < 0, gates.count, by_name[name])
            self.register_buffer(f"_at_{number}", torch.from_numpy(at), persistent=False)

    @property
    def open(self) -> BoolArray:
        """Which gates are open."""
        if self._settled is not None:
            return self._settled
        return self._gates.open(self.scores.detach().cpu().double().numpy())

    @property
    def settled(self) -> bool:
        """Whether gates learn nothing more."""
        return self._settled is not None

    def settle(self, open: BoolArray) -> None:
        """Leave these gates open for good, and close all others."""
        self._settled = open

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the model gives with its gates as they are; these are kept in ``now``, with their gradient."""
        factors = self.now = torch.from_numpy(self.open).to(self.scores)
        if self._settled is None:
            soft = torch.sigmoid(self.scores)
            through = soft - soft.detach()
            self.now = factors + through
            flips = torch.rand(len(factors), device=factors.device) < self._chance
            rare = self._chance > 0
            weight = torch.where(flips, 0.5 / self._chance, torch.where(rare, 0.5 / (1 - self._chance), 1.0))
            factors = torch.where(flips, 1 - factors, factors) + weight * through
        factors = torch.cat([factors, factors.new_ones(1)])
        vectors = (factors[getattr(self, f"_at_{number}")] for number in range(len(self._vectors)))
        found: Tensor | tuple[Tensor, ...] = self.inner(*inputs, *vectors)
        return found
