"""Random but well-scaled weights for PyTorch networks that are exported for tests.

A freshly built network makes a poor test: its biases are all zero and its BatchNorm statistics all alike, so
a pruning that keeps the wrong positions of such a vector goes unnoticed. `initialise` gives every position a
value of its own and keeps activations at a size at which the outputs still depend on the input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .exporting import Examples

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def initialise(model: nn.Module, example: Examples, seed: int = 0) -> nn.Module:
    """Fill what the constructor left constant, calibrate BatchNorm on noise, and return `model` in eval mode.

    `example` has the shape of one input batch, or of several where the network takes several; only shapes and types
    are used. The draw depends on `seed` alone.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _fill(name, parameter, generator)
            _strengthen(name, parameter)
        _calibrate(model, example, generator)
    return model.eval()


def _fill(name: str, parameter: torch.Tensor, generator: torch.Generator) -> None:
    """Redraw a parameter that holds one value everywhere: biases, scales, gains, position tables."""
    if not parameter.is_floating_point() or parameter.numel() == 0:
        return
    value = float(parameter.flatten()[0])
    if not bool((parameter == value).all()):
        return
    if value == 0 and (parameter.dim() == 0 or name.endswith("weight")):
        value = 1.0  # a scale that shuts a residual branch off
    if value == 0:
        parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
        return
    if abs(value) < 0.01:
        value = 0.3  # a layer scale that starts out almost shut
    parameter.copy_(value * (0.6 + 0.8 * torch.rand(parameter.shape, generator=generator)))


def _strengthen(name: str, weight: torch.Tensor) -> None:
    """Bring a matrix or filter bank drawn with small deviations to unit gain, or else biases drown the input."""
    if weight.dim() < 2 or not weight.is_floating_point() or not name.endswith("weight"):
        return
    fan_in = weight[0].numel()
    gain = float(weight.std()) * fan_in**0.5
    if 0 < gain < 0.8:
        weight.div_(gain)


def _calibrate(model: nn.Module, example: Examples, generator: torch.Generator) -> None:
    """Set running statistics from noise, layer by layer, then blur them so that no BatchNorm is neutral.

    The network stays in eval mode: each BatchNorm measures its input just before it is used, so dropout,
    stochastic depth and auxiliary heads need no care.
    """
    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS)]

    def measure(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, _BATCH_NORMS)
        mean_buffer, var_buffer = module.running_mean, module.running_var
        if mean_buffer is None or var_buffer is None:
            return
        value = inputs[0]
        axes = [axis for axis in range(value.dim()) if axis != 1]
        # One spread for all channels: dividing an almost constant channel by its own would blow up noise.
        spread = value.var(dim=axes, unbiased=False).mean().clamp_min(1e-4)
        offset = 0.2 * torch.randn(mean_buffer.shape, generator=generator)
        factor = 0.7 + 0.7 * torch.rand(var_buffer.shape, generator=generator)
        mean_buffer.copy_(value.mean(dim=axes) + spread.sqrt() * offset)
        var_buffer.copy_(spread * factor)

    model.eval()
    hooks = [module.register_forward_pre_hook(measure) for module in norms]
    try:
        model(*_noise(example, generator))
    finally:
        for hook in hooks:
            hook.remove()


def sensitivity(model: Callable[..., object], example: Examples) -> float:
    """The largest difference between the outputs for two noise inputs, relative to their size.

    Outputs of another shape (detections, say) count as a difference of 1.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        first = _tensors(model(*_noise(example, generator)))
        second = _tensors(model(*_noise(example, generator)))
    size = max((float(a.abs().max()) for a in first if a.numel()), default=0.0)
    if any(a.shape != b.shape for a, b in zip(first, second, strict=True)):
        return 1.0
    moved = (float((a - b).abs().max()) for a, b in zip(first, second, strict=True) if a.numel())
    return max(moved, default=0.0) / max(size, 1e-30)


def _noise(example: Examples, generator: torch.Generator) -> list[torch.Tensor]:
    """Noise of the examples' shapes; whole numbers (tokens, masks) are the examples' own, in another order."""
    examples = example if isinstance(example, tuple) else (example,)
    return [
        torch.randn(one.shape, generator=generator)
        if one.is_floating_point()
        else one[..., torch.randperm(one.shape[-1], generator=generator)]
        for one in examples
    ]


def _tensors(value: object) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value.float()]
    assert isinstance(value, (list, tuple)), "export_zoo wraps networks that return dictionaries"
    return [tensor for item in value for tensor in _tensors(item)]
