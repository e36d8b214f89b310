"""The options of proving and repairing a result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.pruning.options.definition import DATA, Given, defined, names
from onnxprune.pruning.options.planning import AUTO

MOST_ROUNDS = 16
RANGE_METHODS = ("auto", "minmax", "entropy", "percentile")
"""How the range of a tensor follows from its values: ``auto`` is what keeps the outputs closest on other samples."""


@dataclass(frozen=True, kw_only=True)
class IntegerOptions(Given):
    """What becomes 8-bit integers, and how.

    Raises:
        UsageError: a value outside its range.
    """

    method: str = defined(
        "auto",
        "How a tensor's range follows from its values in int8. minmax, entropy, percentile, or auto, which takes what "
        "keeps the outputs closest on samples held out.",
        panel=DATA,
        choices=RANGE_METHODS,
        rare=True,
    )
    max_drop: float | None = defined(
        None,
        "Most of the outputs' variance that int8 may cost. On samples held out; 0.01 is 20 dB. Layers that cost most "
        "for the time that they save stay float.",
        kind="fraction",
        example="0.01",
        panel=DATA,
        valid=lambda value: 0 < value < 1,
        must="be a fraction between 0 and 1",
        rare=True,
    )
    keep_float: str | Sequence[str] = defined(
        (),
        "These layers, by name or glob, stay float in int8. Repeatable.",
        kind="names",
        example="NAME",
        panel=DATA,
        rare=True,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep_float", names(self.keep_float))
        super().__post_init__()


_INTEGERS = {f.name for f in dataclasses.fields(IntegerOptions)} - {f.name for f in dataclasses.fields(Given)}


@dataclass(frozen=True, kw_only=True)
class JobOptions(IntegerOptions):
    """How a result is proven and repaired.

    Raises:
        UsageError: a value outside its range.
    """

    compensate: str | None = defined(
        None,
        "How weights make good what was removed. refit (least squares, layer by layer), bias, batchnorm "
        "(its statistics anew), or none. Without data only bias, from the statistics of BatchNormalization.",
        panel=DATA,
        text="refit with --calibrate",
    )
    recover: bool = defined(
        False,
        "After that, the original teaches the result on the samples, without labels (with PyTorch).",
        panel=DATA,
    )
    minutes: float = defined(
        10.0, "The time that it takes.", panel=DATA, valid=lambda value: value > 0, must="be positive"
    )
    rounds: int | str = defined(
        1,
        "Remove in so many steps, with recovery between them. The budget is met by the last; they share the time. "
        "auto: three where 25 to 45 % are to be left and samples and time suffice, else one.",
        kind="rounding",
        example="auto|N",
        panel=DATA,
        text="1",
        valid=lambda value: value == AUTO or (isinstance(value, int) and 1 <= value <= MOST_ROUNDS),
        must="be auto, or a number from 1 to 16",
        rare=True,
    )
    augment: str = defined(
        "crop,flip,mix", "What it does with images, to see more of them: any of these, or none.", panel=DATA
    )
    task: str = defined(
        "auto",
        "What the outputs say, for how much of it is left: classes, labels, detection, segmentation, text, embeddings, "
        "values, a plugin's, or auto, which looks at them.",
        panel=DATA,
        rare=True,
    )
    min_agreement: float | None = defined(
        None,
        "Write nothing if less is left of the answers. The share of the original's answers that has to be left.",
        kind="fraction",
        example="0.9",
        panel=DATA,
        valid=lambda value: 0 < value <= 1,
        must="be a share above 0, at most 1",
    )
    calibration_samples: int = defined(512, "How many to use.", panel=DATA, least=1, rare=True)
    memory: int | None = defined(
        None,
        "What compensation may take beside models and samples; layers that need more keep their weights.",
        kind="quantity",
        example="4GB",
        whole=True,
        panel=DATA,
        text="half of what is free",
        rare=True,
    )
    certify: bool = defined(
        True, "Write without proof. Neither onnx.checker nor onnxruntime see the result.", flag="--no-verify"
    )
    int8: bool = defined(
        False,
        "In the end, layers become 8-bit integers. Where that is measured to be faster, with calibration data: see "
        "onnxprune quantize.",
        panel=DATA,
    )
    provenance: bool = defined(
        True, "Do not write into the file what was done (plan, refit, versions).", flag="--no-provenance", rare=True
    )
    accept_unwitnessed: bool = defined(
        False, "Write although no input can show some faults (they are named).", rare=True
    )
    verify_memory: int = defined(
        10**9,
        "Bytes that the certificate may take for tensors.",
        kind="quantity",
        example="1G",
        whole=True,
        text="1G",
        valid=lambda value: value > 0,
        must="be positive",
        rare=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_agreement is not None and self.calibration is None:
            raise UsageError(
                "how much is left of the answers is measured with samples: min_agreement needs calibration data"
            )
        if self.rounds != 1 and not self.recover:
            raise UsageError(
                "rounds are for recovery: removing and refitting in steps, without learning between them, gave no "
                "better answers than one step (docs/recovery.md); give recover (--recover), too, or no rounds"
            )
        if self.recover and self.calibration is None:
            raise UsageError("recovery learns from samples: recover needs calibration data")
        if self.int8 and self.calibration is None:
            raise UsageError("the ranges of int8 follow from samples: int8 needs calibration data (--calibrate)")
        if not self.int8 and (alone := _INTEGERS & self.given().keys()):
            raise UsageError(f"{', '.join(sorted(alone))} say how layers become int8: give int8 (--int8), too")
        if self.task != "auto":
            from onnxprune.data.tasks import find_task

            find_task(self.task)

    @property
    def compensation(self) -> str | None:
        """How what was removed is made good: as asked, else a refit where there is data; None for not at all."""
        asked = self.compensate or ("none" if self.calibration is None else "refit")
        return None if asked == "none" else asked
