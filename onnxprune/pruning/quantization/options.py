"""The options of quantising, defined once: for Python and for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from onnxprune.pruning.options import DATA, Given, Option

_T = TypeVar("_T")

METHODS = ("auto", "minmax", "entropy", "percentile")
"""How the range of a tensor follows from its values: ``auto`` is what keeps the outputs closest on other samples."""


def _option(default: _T, help: str, **said: Any) -> _T:
    found: _T = field(default=default, metadata={"option": Option(help, **said)})
    return found


@dataclass(frozen=True, kw_only=True)
class QuantizeOptions(Given):
    """How a model is quantised.

    Raises:
        UsageError: a value outside its range.
    """

    calibration_samples: int = _option(256, "How many to use.", panel=DATA, least=1)
    method: str = _option(
        "auto",
        "How a tensor's range follows from its values: minmax, entropy, percentile, or auto, which takes what keeps "
        "the outputs closest on samples held out.",
        choices=METHODS,
    )
    max_drop: float | None = _option(
        None,
        "Most of the outputs' variance that int8 may cost on samples held out (0.01 is 20 dB); layers that cost most "
        "for the time that they save stay float.",
        kind="fraction",
        example="0.01",
        valid=lambda value: 0 < value < 1,
        must="be a fraction between 0 and 1",
    )
    keep_float: str | Sequence[str] = _option(
        (), "These layers, by name or glob, stay float. Repeatable.", kind="names", example="NAME"
    )
    threads: int = _option(1, "Threads of onnxruntime that times are measured with.", least=1)

    def __post_init__(self) -> None:
        names = self.keep_float
        object.__setattr__(self, "keep_float", (names,) if isinstance(names, str) else tuple(names))
        super().__post_init__()
