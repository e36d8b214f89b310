"""Folders of images, decoded as they are needed."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.inputs import InputSpec
from onnxprune.errors import DataError
from onnxprune.ops.relations import IntArray

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


@dataclass(frozen=True)
class ImageFiles:
    """Image files as raw samples [N, height, width, channels] (or [N, height, width] for one channel), uint8.

    Every image is cropped about its centre to the aspect ratio of ``size`` and resized to it.
    """

    files: tuple[Path, ...]
    size: tuple[int, int]
    channels: int

    def __len__(self) -> int:
        return len(self.files)

    def take(self, index: IntArray) -> NDArray[Any]:
        return np.stack([self._read(self.files[i]) for i in index.tolist()])

    def _read(self, file: Path) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        height, width = self.size
        try:
            with warnings.catch_warnings():
                # PIL only warns of images between one and two times its limit (Image.MAX_IMAGE_PIXELS).
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(file) as image:
                    image = ImageOps.exif_transpose(image).convert("L" if self.channels == 1 else "RGB")
                    return np.asarray(ImageOps.fit(image, (width, height)), dtype=np.uint8)
        except Exception as error:  # a damaged image fails in as many ways as there are decoders
            raise DataError(f"image {file} cannot be read: {error}; remove or replace it") from error


def image_shape(spec: InputSpec, size: tuple[int, int] | None) -> tuple[tuple[int, int], int]:
    """The (height, width) and channels that an input wants of images.

    Raises:
        DataError: the input is no image, or its size is open and none was given.
    """
    sample = spec.sample
    if len(sample) == 2:
        extents, channels = sample, 1
    elif len(sample) == 3 and sample[0] in (1, 3):
        extents, channels = sample[1:], int(sample[0])
    elif len(sample) == 3 and sample[2] in (1, 3):
        extents, channels = sample[:2], int(sample[2])
    else:
        raise DataError(f"input '{spec.name}' with shape {spec.shape} does not take images of one or three channels")
    fixed = tuple(e for e in extents if e is not None)
    if len(fixed) == 2:
        if size is not None and size != fixed:
            raise DataError(f"input '{spec.name}' takes images of {fixed[0]}x{fixed[1]}, not {size[0]}x{size[1]}")
        return (fixed[0], fixed[1]), channels
    if size is None:
        raise DataError(f"input '{spec.name}' takes images of any size; choose one with '?size=224' or '?size=224x320'")
    return size, channels


def images_below(folder: Path) -> tuple[tuple[Path, ...], NDArray[np.int64] | None, tuple[str, ...]]:
    """The image files of a folder, their class numbers, and the names of the classes.

    Sub-folders are classes, in alphabetical order; without any, the images have no labels.
    """
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not classes:
        return _images(folder), None, ()
    per_class = [_images(folder / name) for name in classes]
    for name, files in zip(classes, per_class, strict=True):
        if not files:
            raise DataError(f"class folder {folder / name} has no images; remove it or fill it")
    numbers = np.repeat(np.arange(len(classes)), [len(files) for files in per_class])
    return tuple(file for files in per_class for file in files), numbers, tuple(classes)


def _images(folder: Path) -> tuple[Path, ...]:
    found = (f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    return tuple(sorted(f for f in found if f.is_file()))  # not folders, and not pipes, which have no end


def digest_of_files(files: Sequence[Path]) -> str:
    """Identifies files by path, size and time of change: reading gigabytes of images only to hash them is too slow."""
    state = hashlib.sha256()
    for file in files:
        status = file.stat()
        state.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return state.hexdigest()
