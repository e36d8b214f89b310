"""The learning rate as a function of the step: nothing to save, nothing to get out of step."""

from __future__ import annotations

import math

from onnxprune.torch.training.recipe import Recipe

_FIRST = 0.04
"""The share of the highest rate with which a warm-up begins."""


def rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of step ``step`` (from 0) of ``steps``."""
    warm = round(recipe.warm_up * steps)
    if step < warm:
        return recipe.lr * (_FIRST + (1 - _FIRST) * step / warm)
    if recipe.schedule == "constant":
        return recipe.lr
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
