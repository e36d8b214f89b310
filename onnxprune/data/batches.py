"""Batches of samples: the one form in which data reaches training, calibration and evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.augmenting import PLAIN, Views
from onnxprune.data.inputs import Fit
from onnxprune.errors import DataError
from onnxprune.ops.relations import IntArray


@dataclass(frozen=True)
class Batch:
    """``inputs`` by graph input, [B, ...] in the model's layout and type.

    ``targets`` are int64 class numbers [B], float32 values [B, ...], or None where there are no labels.
    """

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[Any] | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Batches(Protocol):
    """Samples that can be gone through again and again."""

    def __len__(self) -> int:
        """The number of samples."""

    def iterate(self, size: int, *, seed: int | None = None, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """All samples once, ``size`` at a time (the last batch may be smaller).

        Args:
            size: samples per batch.
            seed: of the order; None leaves the order of the source.
            rank: which of ``ranks`` equal shares to give; the shares of batch b together are batch b of one process
                that takes ``size * ranks`` at a time. Some samples come twice where the number does not divide.
            ranks: the number of processes.
        """


@dataclass(frozen=True)
class Data:
    """Samples to learn or calibrate with, and held-out ones to evaluate with, if the source has any.

    ``classes`` names the classes where that is known; ``digest`` identifies the contents. ``views`` is what calibration
    sees of each sample to learn from. ``made`` says of what samples
    are made that are synthetic, and is empty for others.
    """

    train: Batches
    test: Batches | None
    classes: tuple[str, ...] = ()
    digest: str = ""
    made: str = ""
    views: Views = PLAIN


class RandomAccess(Protocol):
    """Random access to raw samples of one input."""

    def __len__(self) -> int: ...

    def take(self, index: IntArray) -> NDArray[Any]:
        """The samples at these positions, [len(index), ...]."""


@dataclass(frozen=True)
class Held:
    """Raw samples in memory (or a memory-mapped file), [N, ...]."""

    array: NDArray[Any]

    def __len__(self) -> int:
        return len(self.array)

    def take(self, index: IntArray) -> NDArray[Any]:
        return np.asarray(self.array[index])


@dataclass(frozen=True)
class ArrayBatches:
    """Batches of samples that can be reached by number.

    ``samples`` and ``fits`` are by graph input; ``targets`` [N, ...] or None; ``chosen`` the positions in use.
    """

    samples: Mapping[str, RandomAccess]
    fits: Mapping[str, Fit]
    targets: NDArray[Any] | None
    chosen: IntArray
    what: str = "the data"

    def __len__(self) -> int:
        return len(self.chosen)

    def iterate(self, size: int, *, seed: int | None = None, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        order = self.chosen if seed is None else np.random.default_rng(seed).permutation(self.chosen)
        if ranks > 1:
            order = np.resize(order, -(-len(order) // ranks) * ranks)[rank::ranks]
        for start in range(0, len(order), size):
            index = order[start : start + size]
            inputs = {name: self._read(name, index) for name in self.samples}
            yield Batch(inputs, None if self.targets is None else self.targets[index])

    def part(self, chosen: IntArray) -> ArrayBatches:
        """Only the samples at these positions of the source."""
        return ArrayBatches(self.samples, self.fits, self.targets, chosen, self.what)

    def _read(self, name: str, index: IntArray) -> NDArray[Any]:
        array = self.fits[name](self.samples[name].take(index))
        if array.dtype.kind == "f":
            finite = np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            if not finite.all():
                bad = int(index[int(np.argmin(finite))])
                raise DataError(f"sample {bad} of {self.what} (input '{name}') has NaN or infinite values; remove it")
        return array


def labels(values: NDArray[Any], count: int, what: str) -> NDArray[Any]:
    """Targets in their common form: int64 class numbers [N] or float32 values [N, ...].

    Raises:
        DataError: there are not as many as samples, they are no numbers, or not finite.
    """
    array = np.asarray(values)
    if array.ndim == 0 or len(array) != count:
        found = len(array) if array.ndim else "one"
        raise DataError(f"{what}: there are {count} samples and {found} labels")
    if array.dtype.kind not in "fiub":
        raise DataError(f"{what}: labels of type {array.dtype} are not numbers")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"{what}: some labels are NaN or infinite")
        return array.astype(np.float32)
    whole = array.astype(np.int64)
    return whole.reshape(count) if whole.size == count else whole
