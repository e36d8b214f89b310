"""Calibration samples: a few dozen to a few hundred inputs, held in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxprune.data import Batches, Data, InputSpec, inputs_of, read_data
from onnxprune.data.augmenting import PLAIN, Views
from onnxprune.errors import DataError, UsageError
from onnxprune.ir.model import Model

Arrays: TypeAlias = dict[str, NDArray[Any]]

#: A SPEC, a data set, batches, or arrays [N, ...] by input name.
CalibrationSource: TypeAlias = "str | os.PathLike[str] | Data | Batches | Mapping[str, NDArray[Any]] | NDArray[Any]"

DEFAULT_COUNT = 512
"""Calibration samples if the caller does not say how many: more change little, and cost time."""

_MOST_PROVING, _MOST_CHOOSING = 10_000, 1024
_MOST_BYTES = 2 << 30
"""What samples of a proof may take, all together."""


@dataclass(frozen=True)
class Samples:
    """Inputs by name, [N, ...] in the model's type and layout; ``targets`` [N, ...] or None where unlabelled.

    ``step`` is the number of samples per batch; N is a multiple of it where the model fixes it (``fixed``). ``made``
    says of what they are made if they are synthetic. ``views`` is how a fit is to see them (:meth:`viewed`); ``seen``
    says that so many samples in series are views of one already.
    """

    inputs: Mapping[str, NDArray[Any]]
    targets: NDArray[Any] | None
    step: int
    fixed: bool = False
    made: str = ""
    views: Views = PLAIN
    seen: int = 1

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self) -> Iterator[Arrays]:
        """The inputs, ``step`` samples at a time."""
        for part in self.slices():
            yield {name: array[part] for name, array in self.inputs.items()}

    def slices(self) -> list[slice]:
        """Which samples each batch holds."""
        return [slice(start, min(start + self.step, len(self))) for start in range(0, len(self), self.step)]

    def part(self, start: int, stop: int) -> Samples:
        """Some of the samples."""
        inputs = {name: array[start:stop] for name, array in self.inputs.items()}
        targets = None if self.targets is None else self.targets[start:stop]
        return replace(self, inputs=inputs, targets=targets)

    def viewed(self) -> Samples:
        """Each sample as often, and in as many ways, as a fit is to see it: the views of one follow one another."""
        if self.views.count == 1:
            return self
        if len(self.inputs) > 1:
            raise DataError("augment is for models of one input: what is done to one would have to be done to all")
        inputs = {name: self.views.of(array) for name, array in self.inputs.items()}
        targets = None if self.targets is None else np.repeat(self.targets, self.views.count, axis=0)
        seen = self.seen * self.views.count
        # What is held out is held out by batches: no sample may be in two of them.
        step = self.step if self.fixed else -(-self.step // seen) * seen
        return replace(self, inputs=inputs, targets=targets, step=step, views=PLAIN, seen=seen)

    def first(self, count: int) -> Samples:
        """The first so many, or somewhat more where the model takes a fixed number at once."""
        return self.part(0, -(-count // self.step) * self.step if self.fixed else count)

    def take(self, places: NDArray[np.int64]) -> Samples:
        """The samples at these places, in this order."""
        inputs = {name: array[places] for name, array in self.inputs.items()}
        return replace(self, inputs=inputs, targets=None if self.targets is None else self.targets[places])

    def digests(self) -> list[bytes]:
        """A hash of the inputs of every sample."""
        arrays = [np.ascontiguousarray(array) for _, array in sorted(self.inputs.items())]
        return [hashlib.sha256(b"".join(array[i].tobytes() for array in arrays)).digest() for i in range(len(self))]

    def digest(self) -> str:
        """A hash of all inputs."""
        found = hashlib.sha256()
        for name, array in sorted(self.inputs.items()):
            found.update(f"{name}{array.dtype}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def collect(
    source: CalibrationSource, model: Model, count: int = DEFAULT_COUNT, *, step: int = 16, seed: int = 0
) -> Samples:
    """Take the first ``count`` samples of a fixed shuffle.

    Args:
        source: a SPEC (see :func:`onnxprune.data.read_data`), Data (its training part), Batches, arrays by input, or
            the array of the only input.
        model: whose inputs they are for.
        count: how many samples at most.
        step: samples per batch, where the model leaves it open.
        seed: of the shuffle.

    Raises:
        DataError: there is no sample, one is not finite, or they do not fit the model.
        UsageError: ``count`` is not positive.
    """
    if count < 1:
        raise UsageError(f"calibration takes at least one sample, not {count}")
    specs = inputs_of(model)
    source = _opened(source, model)
    made, views = (source.made, source.views) if isinstance(source, Data) else ("", PLAIN)
    if isinstance(source, Data):
        source = source.train
    fixed = {spec.batch for spec in specs if spec.batch is not None}
    if len(fixed) > 1:
        raise DataError(f"the inputs of the model have different fixed batch sizes: {sorted(fixed)}")
    step = next(iter(fixed), step)
    inputs, targets = _from_arrays(source, count) if isinstance(source, Mapping) else _from_batches(source, count, seed)
    samples = Samples(_checked(inputs, specs), targets, step, bool(fixed), made, views)
    if not fixed or len(samples) % step == 0:
        return samples
    whole = len(samples) // step * step
    if not whole:
        raise DataError(f"the model takes {step} samples at once, and there are only {len(samples)}")
    return samples.part(0, whole)


def _opened(source: CalibrationSource, model: Model) -> Data | Batches | Mapping[str, NDArray[Any]]:
    """What a SPEC names, read; an array with the name of the input that it is for."""
    if isinstance(source, (str, os.PathLike)):
        return read_data(os.fspath(source), model)
    if not isinstance(source, np.ndarray):
        return source
    names = [spec.name for spec in inputs_of(model)]
    if len(names) != 1:
        raise DataError(
            f"one array was given for {len(names)} inputs; give a mapping from {', '.join(names)} to arrays"
        )
    return {names[0]: source}


def require_variety(samples: Samples) -> None:
    """See that samples differ: from many of the same nothing more is learnt than from one.

    Raises:
        DataError: there are several, and all are alike.
    """
    if len(samples) > 1 and all(bool((array == array[:1]).all()) for array in samples.inputs.values()):
        raise DataError(f"all {len(samples)} calibration samples are alike; give samples of what the model will see")


def collect_both(
    source: CalibrationSource, model: Model, count: int = DEFAULT_COUNT, *, evaluate: int = 1024, seed: int = 0
) -> tuple[Samples, Samples, bool]:
    """Samples to calibrate with and others to evaluate with, and whether the latter had to be the same.

    To evaluate with, the test part of the data is taken if it has one, else what calibration leaves.
    """
    source = _opened(source, model)
    if isinstance(source, Data) and source.test is not None:
        others = collect(source.test, model, evaluate, seed=seed)
        return collect(source, model, count, seed=seed), replace(others, made=source.made, views=PLAIN), False
    both = collect(source, model, count + evaluate, seed=seed)
    unit = both.step if both.fixed else 1
    count = max(min(count, len(both)) // unit, 1) * unit
    first, rest = both.part(0, count), replace(both.part(count, len(both)), views=PLAIN)
    return (first, rest, False) if len(rest) else (first, first, True)


def collect_three(
    source: CalibrationSource | Samples, model: Model, count: int = DEFAULT_COUNT, *, seed: int = 0
) -> tuple[Samples, Samples, Samples]:
    """Samples to fit to, others to choose by, and the rest, that nothing but a proof may look at.

    Where the data has a test part, the last two are of it; else a third of all samples at most is for the fit. Samples
    of the proof that are the very same as others are left out. All are shuffled: parts have to be alike.

    Raises:
        DataError: as :func:`collect`, or there are fewer than a dozen samples.
    """
    source = source if isinstance(source, Samples) else _opened(source, model)
    most = max(min(_MOST_PROVING, _MOST_BYTES // _bytes_of(model)), count)
    if isinstance(source, Data) and source.test is not None:
        fit, rest = collect(source, model, count, seed=seed), collect(source.test, model, most, seed=seed)
        rest = replace(rest, made=source.made, views=PLAIN)
    else:
        every = source if isinstance(source, Samples) else collect(source, model, count + most, seed=seed)
        if not isinstance(source, Data):
            every = every.take(np.random.default_rng(seed).permutation(len(every)))
        cut = _whole(every, min(count, len(every) // 3))
        fit, rest = every.part(0, cut), replace(every.part(cut, len(every)), views=PLAIN)
    cut = _whole(rest, min(_MOST_CHOOSING, len(rest) // 5))
    choosing, proving = rest.part(0, cut), rest.part(cut, len(rest))
    seen = {*fit.digests(), *choosing.digests()}
    fresh = np.flatnonzero([one not in seen for one in proving.digests()])
    proving = proving.take(fresh[: len(fresh) // proving.step * proving.step] if proving.fixed else fresh)
    if not (len(fit) and len(choosing) and len(proving)):
        raise DataError(
            "too few samples: some are fitted to, others are chosen by, and those of the proof are apart from both"
        )
    return fit, choosing, proving


def _whole(samples: Samples, count: int) -> int:
    """So many samples, or fewer: such that no batch of a fixed size is torn."""
    return count // samples.step * samples.step if samples.fixed else count


def _bytes_of(model: Model) -> int:
    """What a sample takes; open extents count as 1."""
    return sum(int(np.prod([n or 1 for n in spec.sample])) * np.dtype(spec.dtype).itemsize for spec in inputs_of(model))


def _from_arrays(source: Mapping[str, NDArray[Any]], count: int) -> tuple[Arrays, None]:
    return {name: np.asarray(array)[:count] for name, array in source.items()}, None


def _from_batches(source: Batches, count: int, seed: int) -> tuple[Arrays, NDArray[Any] | None]:
    inputs: dict[str, list[NDArray[Any]]] = {}
    targets: list[NDArray[Any]] = []
    found = 0
    for batch in source.iterate(min(count, 64), seed=seed):
        for name, array in batch.inputs.items():
            inputs.setdefault(name, []).append(array)
        if batch.targets is not None:
            targets.append(batch.targets)
        found += len(next(iter(batch.inputs.values()), ()))
        if found >= count:
            break
    if not found:
        raise DataError("the calibration data is empty; give at least one sample")
    joined = {name: np.concatenate(arrays)[:count] for name, arrays in inputs.items()}
    return joined, np.concatenate(targets)[:count] if targets else None


def _checked(inputs: Arrays, specs: tuple[InputSpec, ...]) -> Arrays:
    checked: Arrays = {}
    lengths = {len(array) if array.ndim else 0 for array in inputs.values()}
    for spec in specs:
        if spec.name not in inputs:
            raise DataError(f"the calibration data has nothing for input '{spec.name}'")
        array = inputs[spec.name]
        wanted = spec.sample
        if array.ndim != len(spec.shape) or any(
            extent is not None and extent != found for extent, found in zip(wanted, array.shape[1:], strict=True)
        ):
            described = " × ".join("any" if extent is None else str(extent) for extent in wanted)
            raise DataError(
                f"input '{spec.name}' takes samples of {described or 'no extent'}, and those of the calibration data "
                f"are {' × '.join(map(str, array.shape[1:])) or 'single numbers'}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"the calibration data for input '{spec.name}' has NaN or infinite values; remove them")
        checked[spec.name] = array.astype(spec.dtype, copy=False)
    if lengths == {0}:
        raise DataError("the calibration data is empty; give at least one sample")
    if len(lengths) > 1:
        raise DataError(f"the inputs of the calibration data have different numbers of samples: {sorted(lengths)}")
    return checked
