"""Control flow: what the importer makes of an If."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Conditional(nn.Module):
    """Runs one of two modules, as an If does."""

    def __init__(self, then_branch: nn.Module, else_branch: nn.Module) -> None:
        super().__init__()
        self.then_branch = then_branch
        self.else_branch = else_branch

    def forward(
        self, condition: Any, then_operands: tuple[Any, ...], else_operands: tuple[Any, ...]
    ) -> tuple[torch.Tensor, ...]:
        """The results of ``then_branch`` where the condition holds, a truth value or a tuple of one."""
        while isinstance(condition, tuple):
            (condition,) = condition
        branch, operands = (self.then_branch, then_operands) if condition else (self.else_branch, else_operands)
        results: tuple[torch.Tensor, ...] = branch(*operands)
        return results
