"""Numbers of 16 bits while a model learns, where the processor multiplies tiles of them.

MobileNetV2, 16 pictures there and back with one thread: 26 milliseconds per picture in floats, 15 in bfloat16 on a
processor with AMX. What is measured, and what is written, is computed in floats; weights stay floats all the time.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def learning_precision() -> AbstractContextManager[object]:
    """A context for the forward pass of a step of learning."""
    return torch.autocast("cpu", torch.bfloat16) if multiplies_tiles() else nullcontext()


def multiplies_tiles() -> bool:
    """Whether this processor has AMX: without it, bfloat16 is emulated or hardly faster."""
    known = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return known is not None and bool(known())


class _Full(nn.Conv2d):
    """A convolution in floats, whatever is around it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


def leave_strided(module: nn.Module) -> list[nn.Conv2d]:
    """Let grouped convolutions with strides compute in floats: their gradient in bfloat16 takes seven times as long.

    Gives those it changed; a ``__class__`` of ``nn.Conv2d`` makes them what they were.
    """
    found = [p for p in module.modules() if type(p) is nn.Conv2d and p.groups > 1 and max(p.stride) > 1]
    for part in found:
        part.__class__ = _Full
    return found
