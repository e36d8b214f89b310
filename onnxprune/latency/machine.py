"""The machine that is measured on. Tests put another in its place, whose times are known."""

from __future__ import annotations

import platform
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onnxprune.errors import MeasurementError
from onnxprune.ir.engine import Engine
from onnxprune.ir.sampling import Clock, FloatArray, Rounds
from onnxprune.ir.timing import fitting_clock, taking_turns
from onnxprune.ir.tracing import Trace, traced
from onnxprune.latency.layer_models import Point, side_by_side, times_of_points

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

#: Of the times of one node, this quantile counts: what else runs on the machine only ever makes it slower.
_QUIET = 0.25
_RUNS = 12


class Machine(Protocol):
    """What latency mode asks a machine."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What times hold for: processor, version and settings of the runtime."""

    def points(self, points: Sequence[Point]) -> list[float | None]:
        """Seconds of each layer at its widths; None for what cannot be run."""

    def trace(self, model: Model, inputs: Mapping[str, Any]) -> Trace:
        """Where the time of a whole model goes."""

    def rounds(self, models: Sequence[Model], inputs: Mapping[str, Any], rounds: Rounds) -> FloatArray:
        """Seconds per run, shape (rounds, models), of models that take turns."""


class LocalMachine:
    """This machine.

    Args:
        engine: the runtime, threads and provider; onnxruntime with one thread if not given.
        clock: what whole models are timed by. If not given: the calling thread's time on the processor where that
            is all that works, which others' work on the machine does not change, else the time of day.
    """

    def __init__(self, engine: Engine | None = None, clock: Clock | None = None) -> None:
        self.engine = engine or Engine()
        self._clock = clock or fitting_clock(self.engine)

    @property
    def identity(self) -> Mapping[str, str]:
        """Processor, version of the runtime, threads, and whose kernels run."""
        return {
            "processor": processor(),
            self.engine.runtime: self.engine.version(),
            "threads": str(self.engine.threads),
            "inter_threads": str(self.engine.inter_threads),
            "provider": self.engine.kernels,
        }

    def points(self, points: Sequence[Point]) -> list[float | None]:
        """Seconds of each layer at its widths, all of them in one model; None for what cannot be run, or not told."""
        if not self.engine.profiles:
            return [None] * len(points)
        try:
            proto, inputs = side_by_side(points)
            trace = traced(proto.SerializeToString(), inputs, self.engine, runs=_RUNS, quantile=_QUIET)
        except MeasurementError:
            if len(points) == 1:
                return [None]
            # One that the runtime refuses takes the others with it: find it.
            half = len(points) // 2
            return [*self.points(points[:half]), *self.points(points[half:])]
        return times_of_points(trace.nodes, len(points))

    def trace(self, model: Model, inputs: Mapping[str, Any]) -> Trace:
        """Where the time of a whole model goes. Raises MeasurementError where it does not run.

        What a runtime does not tell of single nodes counts as between them.
        """
        if not self.engine.profiles:
            return Trace((), float(np.median(self.rounds([model], inputs, Rounds(most=_RUNS)))))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            model.save(path)
            return traced(path, inputs, self.engine, runs=_RUNS, quantile=_QUIET)

    def rounds(self, models: Sequence[Model], inputs: Mapping[str, Any], rounds: Rounds) -> FloatArray:
        """Seconds per run, shape (rounds, models). Raises MeasurementError where one does not run."""
        return taking_turns(models, inputs, rounds, self.engine, self._clock)


def processor() -> str:
    """The name of the processor."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()
