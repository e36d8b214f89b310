"""Small spiking networks of snntorch, unrolled over time: neurons fire where their potential passes a threshold."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 4
INPUT = (2, 16, 16)


class SpikingConv(nn.Module):
    """Convolutions between spiking neurons and a linear read-out; the same image at every step.

    ``neuron`` builds the neurons of a layer; ``groups`` makes the second convolution depthwise-separable.
    """

    def __init__(self, neuron: Callable[[], nn.Module], width: int = 16, *, depthwise: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(INPUT[0], width, 3, padding=1), nn.BatchNorm2d(width))
        middle = [nn.Conv2d(width, width, 3, padding=1, groups=width)] if depthwise else []
        self.second = nn.Sequential(*middle, nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width))
        self.third = nn.Conv2d(2 * width, width, 3, 2, 1)
        self.out = nn.Linear(width * 16, 5)
        self.neurons = nn.ModuleList(neuron() for _ in range(4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How often the read-out neurons fired (N, 5), and their last potential (N, 5)."""
        states = [_initial(neuron) for neuron in self.neurons]
        counts: list[Tensor] = []
        for _ in range(STEPS):
            current = x
            for index, layer in enumerate((self.first, self.second, self.third, self.out)):
                current = layer(current.flatten(1) if layer is self.out else current)
                current, *states[index] = self.neurons[index](current, *states[index])
            counts.append(current)
        return torch.stack(counts).sum(dim=0), states[-1][-1]


def _initial(neuron: Any) -> list[Tensor]:
    state = neuron.reset_mem()
    return list(state) if isinstance(state, tuple) else [state]


def _snntorch() -> Any:
    return importlib.import_module("snntorch")


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "leaky_conv": lambda: SpikingConv(lambda: _snntorch().Leaky(beta=0.9, threshold=0.5)),
    "leaky_depthwise": lambda: SpikingConv(
        lambda: _snntorch().Leaky(beta=0.8, threshold=0.4, reset_mechanism="zero"), depthwise=True
    ),
    "synaptic_conv": lambda: SpikingConv(lambda: _snntorch().Synaptic(alpha=0.7, beta=0.8, threshold=0.6)),
    "lapicque_conv": lambda: SpikingConv(lambda: _snntorch().Lapicque(beta=0.9, threshold=0.5)),
}
"""The networks by name."""
