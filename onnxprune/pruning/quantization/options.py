"""The options of quantising by itself: those of the pipeline and threads; and those of forms without calibration."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.pruning.options import DATA, Given, IntegerOptions, defined


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(IntegerOptions):
    """How a model is quantised.

    Raises:
        UsageError: a value outside its range.
    """

    calibration_samples: int = defined(256, "How many to use.", panel=DATA, least=1)
    threads: int = defined(1, "Threads of onnxruntime that times are measured with.", least=1)


_OTHER = "Other forms, which need no samples"


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Given):
    """Into which form a model is brought that needs no calibration; samples serve the comparison of outputs.

    Raises:
        UsageError: a value outside its range, or more than one form.
    """

    fp16: bool = defined(False, "Numbers of 16 bits: half the file. Inputs and outputs stay as they are.", panel=_OTHER)
    weights: str | None = defined(
        None,
        "Weights of 8 or 4 bits, computed with in floats: int8, or int4 (those of MatMul and Gemm, in blocks of 32).",
        panel=_OTHER,
        valid=lambda value: value in ("int8", "int4"),
        must="be int8 or int4",
    )
    dynamic: bool = defined(
        False,
        "LSTM, MatMul and Gemm in 8-bit integers, with ranges found as it runs. Without samples or another form it is "
        "tried, and written where it is faster.",
        panel=_OTHER,
    )
    threads: int = defined(1, "Threads of onnxruntime that times are measured with.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fp16 + self.dynamic + (self.weights is not None) > 1:
            raise UsageError("give one form: fp16, weights or dynamic")

    @property
    def form(self) -> str | None:
        """What is asked for, in words; None if nothing is."""
        if self.weights is not None:
            return f"{self.weights} weights"
        return "float16" if self.fp16 else "dynamic int8" if self.dynamic else None
