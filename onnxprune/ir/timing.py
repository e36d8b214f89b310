"""Timing whole models side by side."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxprune.errors import MeasurementError
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model
from onnxprune.ir.runtimes import ONNXRUNTIME
from onnxprune.ir.sampling import Clock, FloatArray, Rounds, sample
from onnxprune.ir.session import first_line

#: Seconds that a clock has to tell apart.
_FINE = 1e-6


def taking_turns(
    models: Sequence[Model], inputs: Mapping[str, Any], rounds: Rounds, engine: Engine, clock: Clock | None = None
) -> FloatArray:
    """Seconds per run, shape (rounds, models), of models that take turns.

    Args:
        models: models with the same inputs.
        inputs: what to run them on.
        rounds: how long to measure.
        engine: threads and provider.
        clock: see :func:`fitting_clock`, which is taken if not given.

    Raises:
        MeasurementError: one does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs: list[Callable[[], object]] = []
        for at, model in enumerate(models):
            path = Path(folder) / f"{at}.onnx"
            model.save(path)
            runs.append(partial(engine.session(path).run, None, dict(inputs)))
        try:
            return sample(runs, rounds, clock or fitting_clock(engine))
        except Exception as error:
            raise MeasurementError(f"{engine.runtime} does not run the model: {first_line(error)}") from error


def fitting_clock(engine: Engine) -> Clock:
    """The calling thread's time on the processor where that is all that works, which others' work on the machine does
    not change, else the time of day. Other runtimes may compute on a thread of their own: all count."""
    alone = replace(engine, runtime=ONNXRUNTIME) == Engine()
    if alone and engine.runtime != ONNXRUNTIME:
        return time.process_time if time.get_clock_info("process_time").resolution <= _FINE else time.perf_counter
    fine = alone and hasattr(time, "thread_time") and time.get_clock_info("thread_time").resolution <= _FINE
    return time.thread_time if fine else time.perf_counter
