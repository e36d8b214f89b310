"""What the reference models learn: the inputs, the targets and the metric of each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from models.data import Split

Floats = NDArray[np.float32]
Targets = NDArray[Any]  # class numbers are integers, masks are floats
Layout = Literal["NCHW", "NHWC"]

FOREGROUND = 32  # grey levels of 255; darker pixels are background
BLOCK = 4  # side of a pixelated block


@dataclass(frozen=True)
class Task:
    """A task on Fashion-MNIST.

    ``prepare`` gives inputs (N, 28, 28) float32 in [0, 1] and targets: (N,) int64 class numbers, or
    (N, 28, 28) float32 masks. ``score`` compares the model's outputs, with the channel axis of a mask
    squeezed, with the targets; it is a fraction, 1 is perfect.
    """

    name: str
    metric: str
    prepare: Callable[[Split], tuple[Floats, Targets]]
    score: Callable[[Floats, Targets], float]


def _classification(split: Split) -> tuple[Floats, Targets]:
    return (split.images / 255).astype(np.float32), split.labels.astype(np.int64)


def _accuracy(logits: Floats, labels: Targets) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


def _segmentation(split: Split) -> tuple[Floats, Targets]:
    count, height, width = split.images.shape
    blocks = split.images.reshape(count, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    means = blocks.mean(axis=(2, 4)) / 255
    pixelated = means.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)
    return pixelated.astype(np.float32), (split.images >= FOREGROUND).astype(np.float32)


def _intersection_over_union(logits: Floats, masks: Targets) -> float:
    predicted, expected = logits > 0, masks > 0
    axes = (1, 2)
    union = (predicted | expected).sum(axes)
    return float(((predicted & expected).sum(axes) / np.maximum(union, 1)).mean())


#: Which of ten kinds of garment is it?
CLASSIFY = Task("classify", "accuracy", _classification, _accuracy)
#: Given the image pixelated to 7 x 7 blocks: which of the 28 x 28 pixels belong to the garment?
SEGMENT = Task("segment", "mean IoU", _segmentation, _intersection_over_union)

TASKS = {task.name: task for task in (CLASSIFY, SEGMENT)}


def with_channel(images: Floats, layout: Layout) -> Floats:
    """Give (N, 28, 28) images their channel axis: (N, 1, 28, 28) for NCHW, (N, 28, 28, 1) for NHWC."""
    return images[:, None] if layout == "NCHW" else images[..., None]
