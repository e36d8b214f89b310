"""The ranges of tensors, by the calibrators of onnxruntime.quantization."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.samples import Samples
from onnxprune.errors import UsageError
from onnxprune.ir.model import Model
from onnxprune.ir.session import first_line
from onnxprune.pruning.quantization.quietly import quietly

#: Samples that histograms are taken of; the values of more change little, and cost time.
_MOST = 32
#: Samples per run: the values of all tensors are held at once.
_STEP = 4
_BINS = 2048
#: Bins that the search for the least entropy gets: its time grows with their square.
_ENTROPY_BINS = 256

PERCENTILES = (99.9, 99.99, 99.999)


@dataclass(frozen=True)
class Ranges:
    """The smallest and the largest value of every float tensor, by name, and how they were found."""

    method: str
    found: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]

    def to_onnxruntime(self) -> Any:
        """The same as onnxruntime.quantization takes it."""
        from onnxruntime.quantization import CalibrationMethod, TensorsData

        return TensorsData(CalibrationMethod.MinMax, dict(self.found))


def methods_of(asked: str) -> tuple[str, ...]:
    """The methods that an option stands for; percentiles come with their number."""
    percentiles = tuple(f"percentile {share}" for share in PERCENTILES)
    every = {"minmax": ("minmax",), "percentile": percentiles, "entropy": ("entropy",)}
    return tuple(name for names in every.values() for name in names) if asked == "auto" else every[asked]


@dataclass(frozen=True)
class Histograms:
    """How often every float tensor had which values: (counts, edges, smallest, largest, ...) as onnxruntime has it."""

    collector: Any

    def ranges(self, method: str) -> Ranges:
        """The ranges by one of :func:`methods_of`."""
        kept = self.collector.histogram_dict
        if method == "minmax":
            found = {name: (entry[2], entry[3]) for name, entry in kept.items()}
        else:
            self.collector.method, _, share = method.partition(" ")
            if share:
                self.collector.percentile = float(share)
            try:
                if not share:
                    self.collector.histogram_dict = {name: _coarser(entry) for name, entry in kept.items()}
                with quietly():
                    result = self.collector.compute_collection_result()
            finally:
                self.collector.histogram_dict = kept
            found = {name: (entry[0], entry[1]) for name, entry in result.items()}
        return Ranges(method, MappingProxyType(found))


def collect_histograms(prepared: Model, samples: Samples) -> Histograms:
    """Run a model on samples and count the values of its tensors.

    Raises:
        UsageError: onnxruntime.quantization cannot calibrate the model.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    some = samples.part(0, max(_MOST // samples.step, 1) * samples.step if samples.fixed else _MOST)
    some = some if some.fixed else replace(some, step=_STEP)
    with tempfile.TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "float.onnx"
        prepared.save(path)
        try:
            calibrator = create_calibrator(
                path,
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=CalibrationMethod.Percentile,
                extra_options={"num_bins": _BINS},
            )
            for batch in some.batches():
                # One batch at a time: onnxruntime keeps all values of what it is given at once.
                calibrator.collect_data(_Once(batch))
        except Exception as error:
            raise UsageError(f"onnxruntime.quantization cannot calibrate the model: {first_line(error)}") from error
        collector = calibrator.collector
    collector.num_quantized_bins = 128
    return Histograms(collector)


class _Once:
    """A single batch, as a calibrator reads it."""

    def __init__(self, batch: Mapping[str, NDArray[Any]]) -> None:
        self._left = [dict(batch)]

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The batch, then None."""
        return self._left.pop() if self._left else None


def _coarser(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    """A histogram with wider bins, zero in the middle as before."""
    counts, edges, *rest = entry
    factor = max(len(counts) // _ENTROPY_BINS, 1)
    missing = -len(counts) % (2 * factor)
    width = edges[1] - edges[0]
    low = edges[0] - missing // 2 * width
    counts = np.pad(counts, (missing // 2, missing - missing // 2))
    merged = counts.reshape(-1, factor).sum(axis=1)
    coarse = (low + np.arange(len(merged) + 1) * width * factor).astype(edges.dtype)
    return (merged, coarse, *rest)
