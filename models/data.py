"""Fashion-MNIST as Debian's package ``dataset-fashion-mnist`` installs it, and the committed sample of it."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SAMPLE_FILE = Path(__file__).with_name("fashion_sample.npz")
SAMPLE_PER_CLASS = 50
CLASSES = 10

# An IDX file starts with a magic number and one extent per dimension, four bytes each.
_IMAGE_HEADER = 16
_LABEL_HEADER = 8


@dataclass(frozen=True)
class Split:
    """Some of the data set: ``images`` (N, 28, 28) uint8, ``labels`` (N,) uint8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load_split(name: str, folder: Path = DEBIAN_FOLDER) -> Split:
    """Read the split ``train`` (60,000 images) or ``t10k`` (10,000 images).

    Raises:
        FileNotFoundError: the data set is not in ``folder``.
    """
    image_file = folder / f"{name}-images-idx3-ubyte.gz"
    label_file = folder / f"{name}-labels-idx1-ubyte.gz"
    for file in (image_file, label_file):
        if not file.exists():
            raise FileNotFoundError(
                f"{file} is missing: install Debian's package dataset-fashion-mnist, "
                "or name the folder that holds the data set with --data"
            )
    images = np.frombuffer(gzip.decompress(image_file.read_bytes()), np.uint8, offset=_IMAGE_HEADER)
    labels = np.frombuffer(gzip.decompress(label_file.read_bytes()), np.uint8, offset=_LABEL_HEADER)
    return Split(images.reshape(-1, 28, 28), labels)


def write_sample(test: Split, file: Path = SAMPLE_FILE) -> None:
    """Store the first images of every class of the test split, in their original order."""
    chosen = np.sort(np.concatenate([np.flatnonzero(test.labels == c)[:SAMPLE_PER_CLASS] for c in range(CLASSES)]))
    np.savez_compressed(file, images=test.images[chosen], labels=test.labels[chosen])


def load_sample(file: Path = SAMPLE_FILE) -> Split:
    """Read the committed sample: 50 images of each class of the test split."""
    with np.load(file) as arrays:
        return Split(arrays["images"], arrays["labels"])
