"""Other views of the same samples, which a model answers as well: crops, flips and mixtures of images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import DataError, UsageError

AUGMENTATIONS = ("crop", "flip", "mix")
#: The smallest area of a crop, and the widest aspect ratio.
_LEAST_AREA, _ASPECT = 0.25, 4 / 3
#: The share of samples that are mixed with another one.
_MIXED = 0.25
#: The fewest pixels of an image on a side.
_LEAST_SIDE = 16


@dataclass(frozen=True)
class Views:
    """How often each sample is seen, the first time as it is, and what is done with images the other times."""

    how: frozenset[str] = frozenset()
    count: int = 1

    def of(self, x: NDArray[Any], seed: int = 0) -> NDArray[Any]:
        """Samples [N, ...] seen so often [N · count, ...]: the views of one follow one another.

        Raises:
            DataError: the samples are no images.
        """
        if self.count == 1:
            return x
        if not are_images(x):
            raise DataError(f"augment is for images of one or three channels, not for samples of {x.shape[1:]}")
        rng = np.random.default_rng(seed)
        seen = [x, *(augmented(x, self.how, rng) for _ in range(self.count - 1))]
        return np.stack(seen, axis=1).reshape(len(x) * self.count, *x.shape[1:])


PLAIN = Views()
"""Each sample once, as it is."""


def parse_augmentations(text: str) -> frozenset[str]:
    """``crop,flip,mix`` as a set; ``none`` is empty. Raises UsageError for what is not known."""
    names = {name.strip() for name in text.split(",") if name.strip()} - {"none"}
    unknown = sorted(names.difference(AUGMENTATIONS))
    if unknown:
        raise UsageError(f"augmentation '{unknown[0]}' is not known; there are {', '.join(AUGMENTATIONS)}, or none")
    return frozenset(names)


def are_images(x: NDArray[Any]) -> bool:
    """Whether samples look like images: [N, C, H, W] or [N, H, W, C] of one or three channels, 16 pixels or more."""
    if x.ndim != 4 or x.dtype.kind != "f":
        return False
    first = min(x.shape[2:]) >= _LEAST_SIDE and x.shape[1] in (1, 3)
    return first or (min(x.shape[1:3]) >= _LEAST_SIDE and x.shape[3] in (1, 3))


def augmented(x: NDArray[Any], how: Collection[str], rng: np.random.Generator) -> NDArray[Any]:
    """Samples [N, ...] seen otherwise, each in its own way; those that are no images come back as they are."""
    if not how or not are_images(x):
        return x
    last = x.shape[1] not in (1, 3)
    image = np.moveaxis(x, 3, 1) if last else x
    count = len(image)
    if "crop" in how or "flip" in how:
        image = np.stack([_seen(one, how, rng) for one in image])
    if "mix" in how and count > 1:
        share = np.where(rng.random(count) < _MIXED, rng.uniform(0, 0.5, count), 0.0).astype(x.dtype)
        share = share.reshape(-1, 1, 1, 1)
        image = (1 - share) * image + share * np.roll(image, 1, axis=0)
    return np.ascontiguousarray(np.moveaxis(image, 1, 3) if last else image)


def _seen(image: NDArray[Any], how: Collection[str], rng: np.random.Generator) -> NDArray[Any]:
    """A crop of one image [C, H, W], brought to its size, perhaps mirrored."""
    width = height = 1.0
    if "crop" in how:
        area, aspect = rng.uniform(_LEAST_AREA, 1.0), np.exp(rng.uniform(-1, 1) * np.log(_ASPECT))
        width, height = min(np.sqrt(area * aspect), 1.0), min(np.sqrt(area / aspect), 1.0)
    left, top = rng.random() * (1 - width), rng.random() * (1 - height)
    image = _stretched(_stretched(image, 1, top, height), 2, left, width)
    return image[:, :, ::-1] if "flip" in how and rng.random() < 0.5 else image


def _stretched(image: NDArray[Any], axis: int, begin: float, share: float) -> NDArray[Any]:
    """A part of an axis in as many pixels as there were: linear interpolation between their centres."""
    if share == 1.0:
        return image
    size = image.shape[axis]
    place = np.clip((begin + (np.arange(size) + 0.5) / size * share) * size - 0.5, 0, size - 1)
    before = np.minimum(place.astype(np.int64), size - 2)
    weight = (place - before).astype(image.dtype).reshape([-1 if d == axis else 1 for d in range(image.ndim)])
    low, high = image.take(before, axis=axis), image.take(before + 1, axis=axis)
    return np.asarray(low + weight * (high - low))
