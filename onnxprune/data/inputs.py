"""What a model takes, and how samples are fitted to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxprune.errors import DataError
from onnxprune.ir.model import Model

Extent = int | None


@dataclass(frozen=True)
class InputSpec:
    """A graph input: name, shape with the batch first (None where symbolic), and type of element."""

    name: str
    shape: tuple[Extent, ...]
    dtype: np.dtype[Any]

    @property
    def sample(self) -> tuple[Extent, ...]:
        """The shape of one sample, without the batch."""
        return self.shape[1:]

    @property
    def batch(self) -> Extent:
        """The number of samples that the model takes at once, None if any."""
        return self.shape[0] if self.shape else None


def inputs_of(model: Model) -> tuple[InputSpec, ...]:
    """The inputs that have to be fed. Raises DataError for one that is no tensor of known rank."""
    found = []
    for value in model.graph.input:
        if value.name in model.weights:
            continue
        tensor = value.type.tensor_type
        if not tensor.HasField("shape") or tensor.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
            raise DataError(f"input '{value.name}' of the model is no tensor of numbers with a known rank")
        # Some exporters write -1 or 0 for an open dimension.
        shape = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
        found.append(InputSpec(value.name, shape, helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return tuple(found)


@dataclass(frozen=True)
class Scaling:
    """``(x - mean) / std`` per channel, in units of images from 0 to 1; empty: left as they are."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class Fit:
    """Turns raw samples [B, ...] into what one input takes.

    Raises:
        DataError: no way of reading the raw shape gives the input's.
    """

    spec: InputSpec
    raw: tuple[int, ...]
    raw_type: np.dtype[Any]
    scaling: Scaling = Scaling()

    def __post_init__(self) -> None:
        self._arranged(np.broadcast_to(np.zeros((), self.raw_type), (1, *self.raw)))
        self._check_type()

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        array = self._arranged(samples)
        if self.spec.dtype.kind != "f":
            return np.ascontiguousarray(array, dtype=self.spec.dtype)
        factor = 1 / 255 if self.raw_type == np.uint8 else 1.0
        scaled = array.astype(np.float32) * np.float32(factor) if factor != 1.0 else array.astype(np.float32)
        if self.scaling.mean or self.scaling.std:
            mean, std = self._per_channel(self.scaling.mean or (0.0,)), self._per_channel(self.scaling.std or (1.0,))
            scaled = (scaled - mean) / std
        return np.ascontiguousarray(scaled, dtype=self.spec.dtype)

    def _check_type(self) -> None:
        given, wanted = self.raw_type.kind, self.spec.dtype.kind
        fits = given in "iub" if wanted in "iub" else given in "fiub"
        if not fits:
            raise DataError(
                f"input '{self.spec.name}' takes {self.spec.dtype}, and the data is of type {self.raw_type}; convert it"
            )

    def _arranged(self, samples: NDArray[Any]) -> NDArray[Any]:
        """The first of: as it is, a channel axis added, channels moved, flattened."""
        wanted = self.spec.sample
        if _fits(samples.shape[1:], wanted):
            return samples
        rank = samples.ndim - 1
        if rank + 1 == len(wanted):
            for position in (1, samples.ndim):
                if _fits(np.expand_dims(samples, position).shape[1:], wanted):
                    return np.expand_dims(samples, position)
        if rank == len(wanted) and rank >= 2:
            for source, target in ((samples.ndim - 1, 1), (1, samples.ndim - 1)):
                moved = np.moveaxis(samples, source, target)
                if _fits(moved.shape[1:], wanted):
                    return moved
        if len(wanted) == 1 and wanted[0] == math.prod(self.raw):
            return samples.reshape(len(samples), -1)
        described = " × ".join("any" if e is None else str(e) for e in wanted)
        raise DataError(
            f"input '{self.spec.name}' takes samples of {described or 'no extent'}, and those of the data are "
            f"{' × '.join(map(str, self.raw)) or 'single numbers'}; reshape or resize the data"
        )

    def _per_channel(self, values: tuple[float, ...]) -> NDArray[np.float32]:
        """Values that broadcast along the channels of a batch."""
        array = np.array(values, dtype=np.float32)
        sample = self.spec.sample
        if len(values) == 1:
            return array.reshape(())
        axes = [axis for axis in (0, len(sample) - 1) if sample[axis] == len(values)] if sample else []
        if not axes:
            raise DataError(
                f"mean or std has {len(values)} values, and input '{self.spec.name}' has no channel axis of as many"
            )
        return array.reshape([len(values) if axis == axes[0] else 1 for axis in range(len(sample))])


def _fits(shape: tuple[int, ...], wanted: tuple[Extent, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or w == e for e, w in zip(shape, wanted, strict=True))
