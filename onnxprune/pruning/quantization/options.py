"""The options of quantising by itself: those of the pipeline, and the threads that times are measured with."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.pruning.options import DATA, IntegerOptions, defined


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(IntegerOptions):
    """How a model is quantised.

    Raises:
        UsageError: a value outside its range.
    """

    calibration_samples: int = defined(256, "How many to use.", panel=DATA, least=1)
    threads: int = defined(1, "Threads of onnxruntime that times are measured with.", least=1)
