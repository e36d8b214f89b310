"""Whether another runtime computes of a model what onnxruntime does."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model
from onnxprune.ir.session import first_line

TOLERANCE = 1e-3
"""Outputs agree up to this share of their spread."""
_SMALL = 1e-3
"""The least spread: near zero, onnxruntime's own sigmoid is off by 1e-7."""


@dataclass(frozen=True)
class Agreement:
    """What a runtime makes of a model.

    Attributes:
        difference: the largest one from onnxruntime's outputs, as a share of an output's spread; infinite where shapes
            or finite values differ, nan where the runtime refuses the model.
        refusal: why it does, or None.
    """

    difference: float
    refusal: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the runtime takes the model and agrees."""
        return self.refusal is None and self.difference <= TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        if self.refusal is not None:
            return f"is refused: {self.refusal}"
        return f"differs from onnxruntime by {self.difference:.0e} of an output's spread ({TOLERANCE:.0e} allowed)"


def agreement(model: Model, inputs: Mapping[str, Any], engine: Engine) -> Agreement:
    """Run a model in onnxruntime and in another runtime, and compare the outputs.

    Raises:
        MeasurementError: onnxruntime does not take it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model.save(path)
        wanted = Engine().session(path).run(None, dict(inputs))
        try:
            found = engine.session(path).run(None, dict(inputs))
        except Exception as error:  # whatever an engine fails with is its answer
            return Agreement(math.nan, first_line(error))
    if len(wanted) != len(found):
        return Agreement(math.inf)
    return Agreement(max((_gap(np.asarray(a), np.asarray(b)) for a, b in zip(wanted, found, strict=True)), default=0.0))


def _gap(wanted: Any, found: Any) -> float:
    if wanted.shape != found.shape:
        return math.inf
    if not wanted.size:
        return 0.0
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    gap = float(np.abs(a - b).max()) / max(float(np.ptp(a)) or float(np.abs(a).max()), _SMALL)
    return gap if math.isfinite(gap) else math.inf
