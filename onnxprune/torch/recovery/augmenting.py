"""Other views of the same samples, which a teacher answers as well: crops, flips and mixtures of images."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional

from onnxprune.errors import UsageError

AUGMENTATIONS = ("crop", "flip", "mix")
#: The smallest area of a crop, and the widest aspect ratio.
_LEAST_AREA, _ASPECT = 0.25, 4 / 3
#: The share of samples that are mixed with another one.
_MIXED = 0.25


def parse_augmentations(text: str) -> frozenset[str]:
    """``crop,flip,mix`` as a set; ``none`` is empty. Raises UsageError for what is not known."""
    names = {name.strip() for name in text.split(",") if name.strip()} - {"none"}
    unknown = sorted(names.difference(AUGMENTATIONS))
    if unknown:
        raise UsageError(f"augmentation '{unknown[0]}' is not known; there are {', '.join(AUGMENTATIONS)}, or none")
    return frozenset(names)


def are_images(x: Tensor) -> bool:
    """Whether samples look like images: [N, C, H, W] or [N, H, W, C] of one or three channels, 16 pixels or more."""
    if x.ndim != 4 or not x.is_floating_point():
        return False
    return (min(x.shape[2:]) >= 16 and x.shape[1] in (1, 3)) or (min(x.shape[1:3]) >= 16 and x.shape[3] in (1, 3))


def augmented(x: Tensor, how: Collection[str], generator: torch.Generator) -> Tensor:
    """Samples [N, ...] seen otherwise; those that are no images come back as they are."""
    if not how or not are_images(x):
        return x
    last = x.shape[1] not in (1, 3)
    image = x.permute(0, 3, 1, 2) if last else x
    count = len(image)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    width = height = torch.ones(count)
    mirror = torch.ones(count)
    if "crop" in how:
        area, aspect = uniform(_LEAST_AREA, 1.0), torch.exp(uniform(-1, 1) * torch.log(torch.tensor(_ASPECT)))
        width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
    if "flip" in how:
        mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    if "crop" in how or "flip" in how:
        # Where the middle of the crop is, in the units of grid_sample: from -1 to 1.
        zero = torch.zeros(count)
        across = torch.stack([width * mirror, zero, uniform(-1, 1) * (1 - width)], dim=1)
        down = torch.stack([zero, height, uniform(-1, 1) * (1 - height)], dim=1)
        grid = functional.affine_grid(torch.stack([across, down], dim=1), list(image.shape), align_corners=False)
        image = functional.grid_sample(image, grid.to(image.dtype), padding_mode="border", align_corners=False)
    if "mix" in how and count > 1:
        share = torch.where(uniform(0, 1) < _MIXED, uniform(0, 0.5), torch.zeros(count)).to(image.dtype)
        share = share.reshape(-1, 1, 1, 1)
        image = (1 - share) * image + share * image.roll(1, 0)
    return image.permute(0, 2, 3, 1).contiguous() if last else image
