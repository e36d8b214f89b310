"""Images that make layers see what they saw in training, by gradients with respect to the pixels.

BatchNormalization holds the mean and the variance of what it saw. Images are changed until the layers' statistics on
them are these, batch by batch; classes that differ are asked of the outputs, so that images do not all show the same.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from onnxprune.data.inputs import Fit
from onnxprune.data.synthetic import Seen
from onnxprune.ir.model import Model
from onnxprune.torch.module import to_module
from onnxprune.torch.outputs import giving
from onnxprune.torch.training.batching import any_batch

#: Images of a batch, whose statistics are matched together, and steps of Adam.
_BATCH, _STEPS = 32, 24
#: The size of a step in pixels from 0 to 1, the weights of smoothness and of classes, and how far images are shifted.
_RATE, _SMOOTH, _CLASSES, _SHIFT = 0.03, 0.1, 0.5, 8


def match(
    model: Model, images: NDArray[np.float32], how: Fit, seen: tuple[Seen, ...], seed: int, *, steps: int = _STEPS
) -> NDArray[np.float32]:
    """Change images until BatchNormalizations see what they saw in training.

    Args:
        model: a (normalised) model of one input.
        images: [N, C, H, W] from 0 to 1, to begin with.
        how: what makes an input of them.
        seen: what BatchNormalizations saw.
        seed: of flips, shifts and classes.
        steps: of Adam for every batch.

    Raises:
        ConversionError: an operator has no converter.
    """
    outputs = [value.name for value in model.graph.output]
    module = to_module(giving(any_batch(model), outputs, [one.tensor for one in seen]))
    module.requires_grad_(False)
    # The input is a linear function of the pixels: two images tell it.
    dark, light = (how(np.full((1, *images.shape[1:]), value, dtype=np.float32)) for value in (0.0, 1.0))
    moved = how.spec.sample[0] != images.shape[1]
    shift, span = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (dark, light - dark))
    wanted = [tuple(torch.from_numpy(x.astype(np.float32)) for x in (one.mean, one.deviation)) for one in seen]
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for start in range(0, len(images), _BATCH):
        begin = torch.from_numpy(images[start : start + _BATCH].copy())
        # What changes has half of the resolution: single pixels would satisfy layers with what no picture shows.
        change = torch.zeros_like(functional.avg_pool2d(begin, 2, ceil_mode=True)).requires_grad_()
        optimizer = torch.optim.Adam([change], lr=_RATE)
        classes: Tensor | None = None
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = _RATE * (0.52 + 0.48 * float(np.cos(np.pi * step / steps)))
            x = _changed(begin, change)
            view = _seen(x, generator)
            given = (view.permute(0, 2, 3, 1) if moved else view) * span + shift
            found = module(given.contiguous())
            results, inner = found[: len(outputs)], found[len(outputs) :]
            if classes is None and results[0].ndim == 2 and results[0].shape[1] > 1:
                classes = torch.randint(results[0].shape[1], (len(x),), generator=generator)
            loss = torch.stack([_strange(got, *want) for got, want in zip(inner, wanted, strict=True)]).mean()
            loss = loss + _SMOOTH * ((x.diff(dim=2).abs().mean()) + x.diff(dim=3).abs().mean())
            if classes is not None:
                loss = loss + _CLASSES * functional.cross_entropy(results[0], classes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        parts.append(_changed(begin, change.detach()).numpy())
    return np.concatenate(parts)


def _changed(begin: Tensor, change: Tensor) -> Tensor:
    size = [int(extent) for extent in begin.shape[2:]]
    return (begin + functional.interpolate(change, size=size, mode="bilinear", align_corners=False)).clamp(0, 1)


def _seen(x: Tensor, generator: torch.Generator) -> Tensor:
    """The images shifted by a few pixels, and perhaps mirrored."""
    down, across, mirrored = torch.randint(2 * _SHIFT + 1, (3,), generator=generator).tolist()
    x = x.roll((down - _SHIFT, across - _SHIFT), (2, 3))
    return x.flip(3) if mirrored % 2 else x


def _strange(got: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """How far a tensor's channels are from what they were, in units of their deviation."""
    others = [dim for dim in range(got.ndim) if dim != 1]
    here = got.mean(dim=others)
    # Twice as fast as Tensor.var.
    spread = (got.square().mean(dim=others) - here.square()).clamp(min=1e-12).sqrt()
    return (((here - mean) / deviation).square() + ((spread - deviation) / deviation).square()).mean()
