"""``bench``: models side by side."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune._display import seconds
from onnxprune.errors import MeasurementError, UsageError
from onnxprune.ir.engine import Engine
from onnxprune.ir.runtimes import ONNXRUNTIME
from onnxprune.ir.sampling import Clock, Rounds, sample
from onnxprune.ir.session import first_line
from onnxprune.ir.tracing import NodeTime, by_type, traced
from onnxprune.latency.memory import Memory, peak_memory
from onnxprune.latency.precision import layers_by_precision
from onnxprune.latency.statistics import Ratio, Spread, paired_ratio, spread

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import InputShapes
    from onnxprune.ir.model import Model, ModelLike

#: The middle half of the runs may spread over this fraction of the median, and a ratio be this unsure.
_QUIET, _SURE = 0.2, 0.05
_TRACED_RUNS = 20


@dataclass(frozen=True)
class ModelTimes:
    """What was measured of one model.

    Attributes:
        name: the file, or ``model 2`` for a model that has none.
        inputs: the shapes that it ran with.
        latency: seconds per run.
        ratio: its time over that of the first model, round by round; None for the first.
        memory: peak memory; None if it was not asked for, or the system does not tell.
        nodes: the time of every node, in the order of execution; empty if it was not asked for.
        layers: how many layers with weights run in ``fp32``, ``fp16`` and ``int8``; None if it was not asked for, or
            the runtime does not tell.
    """

    name: str
    inputs: Mapping[str, tuple[int, ...]]
    latency: Spread
    ratio: Ratio | None
    memory: Memory | None
    nodes: tuple[NodeTime, ...] = ()
    layers: Mapping[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data; times in seconds, memory in bytes."""
        return {
            "model": self.name,
            "input_shapes": {name: list(shape) for name, shape in self.inputs.items()},
            "latency": self.latency.to_dict(),
            "ratio": None if self.ratio is None else asdict(self.ratio),
            "memory": None if self.memory is None else asdict(self.memory),
            "layers": None if self.layers is None else dict(self.layers),
            "operators": [asdict(entry) for entry in by_type(self.nodes)],
            "nodes": [asdict(node) for node in self.nodes],
        }


@dataclass(frozen=True)
class Bench:
    """Models measured in turns; all ratios are to the first. ``noise`` says why not to trust it, or is None."""

    engine: Engine
    subjects: tuple[ModelTimes, ...]
    noise: str | None

    def beside_first(self, at: int = 1) -> str:
        """One model's time beside that of the first, in words."""
        first, other = self.subjects[0], self.subjects[at]
        ratio = other.ratio
        assert ratio is not None  # of all but the first
        return (
            f"{seconds(first.latency.median)} → {seconds(other.latency.median)}, {ratio.median:.2f} of the original's "
            f"(95 % interval {ratio.low:.2f} to {ratio.high:.2f}; {self.engine})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "engine": self.engine.to_dict(),
            "models": [subject.to_dict() for subject in self.subjects],
            "noise": self.noise,
        }


def bench(
    *models: ModelLike,
    threads: int = 1,
    inter_threads: int = 1,
    provider: str = "CPUExecutionProvider",
    runtime: str = ONNXRUNTIME,
    input_shapes: InputShapes | Sequence[InputShapes | None] | None = None,
    rounds: Rounds | None = None,
    memory: bool = True,
    per_operator: bool = False,
    precision: bool = True,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> Bench:
    """Measure models side by side, in onnxruntime or another runtime.

    After a warm-up the models run in turns, so that what disturbs the machine disturbs all of them alike.

    Args:
        models: files, Models or ModelProtos; the first is what the others are compared with.
        threads: threads inside one operator; 0 leaves it to the runtime.
        inter_threads: operators that may run at the same time.
        provider: onnxruntime's execution provider.
        runtime: what runs them; see :func:`onnxprune.ir.runtimes.names`.
        input_shapes: shapes for inputs with symbolic dimensions: one mapping for all models, or one per model.
        rounds: how often and how long; see :class:`Rounds`.
        memory: measure the peak memory of each model in a process of its own, too.
        per_operator: run each model under the runtime's profiler, too.
        precision: ask onnxruntime in which numbers it runs the layers, too.
        seed: of the random inputs.
        clock: seconds of a clock that only goes forward.

    Raises:
        UsageError: no model, or an unknown provider or runtime.
        ModelError: a model cannot be read.
        ShapeError: the shapes contradict it.
        MeasurementError: the runtime does not load or run it.
    """
    if not models:
        raise UsageError("give at least one model")
    engine = Engine(threads, inter_threads, provider, runtime)
    shapes = _shapes_per_model(input_shapes, len(models))
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
        prepared = [_prepare(model, shapes[at], folder / str(at), seed) for at, model in enumerate(models)]
        # Memory first: while the sessions below are open, less of it would be free.
        memories = [peak_memory(p.path, p.saved_inputs(), engine) if memory else None for p in prepared]
        told = [layers_by_precision(p.path, engine) if precision else None for p in prepared]
        runners = [_runner(p, engine) for p in prepared]
        times = sample(runners, rounds or Rounds(), clock)
        del runners
        nodes = [traced(p.path, p.inputs, engine, runs=_TRACED_RUNS).nodes if per_operator else () for p in prepared]
    subjects = tuple(
        ModelTimes(
            name=p.name,
            inputs=p.shapes,
            latency=spread(times[:, at]),
            ratio=paired_ratio(times[:, at], times[:, 0], seed) if at else None,
            memory=memories[at],
            nodes=nodes[at],
            layers=told[at],
        )
        for at, p in enumerate(prepared)
    )
    return Bench(engine, subjects, _noise(subjects))


@dataclass(frozen=True)
class _Prepared:
    name: str
    path: Path
    folder: Path
    inputs: Mapping[str, Any]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(array.shape) for name, array in self.inputs.items()}

    def saved_inputs(self) -> Path:
        path = self.folder / "inputs.npz"
        plain = {name: array.astype(str) if array.dtype == object else array for name, array in self.inputs.items()}
        np.savez(path, **plain)
        return path


def _prepare(source: ModelLike, shapes: InputShapes | None, folder: Path, seed: int) -> _Prepared:
    from onnxprune.analysis.binding import find_binding
    from onnxprune.ir.model import as_model
    from onnxprune.ir.session import random_inputs

    folder.mkdir()
    model: Model = as_model(source)
    inputs = random_inputs(model, find_binding(model, shapes).shapes, seed)
    path = Path(source) if isinstance(source, (str, os.PathLike)) else folder / "model.onnx"
    if not path.exists():
        model.save(path)
    return _Prepared(str(model.path or f"model {int(folder.name) + 1}"), path, folder, inputs)


def _runner(prepared: _Prepared, engine: Engine) -> Callable[[], object]:
    session = engine.session(prepared.path)

    def run() -> object:
        try:
            return session.run(None, prepared.inputs)
        except Exception as error:
            raise MeasurementError(f"{engine.runtime} does not run {prepared.name}: {first_line(error)}") from error

    return run


def _shapes_per_model(
    given: InputShapes | Sequence[InputShapes | None] | None, count: int
) -> Sequence[InputShapes | None]:
    if given is None or isinstance(given, Mapping):
        return [given] * count
    if len(given) != count:
        raise UsageError(f"give one mapping of input shapes, or one for each of the {count} models, not {len(given)}")
    return given


def _noise(subjects: Sequence[ModelTimes]) -> str | None:
    """Why these times are not to be trusted, with the spread that shows it."""
    worst = max(subjects, key=lambda subject: subject.latency.relative)
    unsure = max((s for s in subjects if s.ratio), key=lambda s: s.ratio.uncertainty if s.ratio else 0, default=None)
    parts = []
    if worst.latency.relative > _QUIET:
        parts.append(
            f"the middle half of the runs of {worst.name} spreads over {100 * worst.latency.relative:.0f} % of the "
            f"median ({1e3 * worst.latency.lower:.3g} to {1e3 * worst.latency.upper:.3g} ms)"
        )
    if unsure is not None and unsure.ratio is not None and unsure.ratio.uncertainty > _SURE:
        parts.append(
            f"the ratio of {unsure.name} is only known to lie between {unsure.ratio.low:.2f} and "
            f"{unsure.ratio.high:.2f}"
        )
    if not parts:
        return None
    return f"the machine is noisy: {' and '.join(parts)}; stop what else runs, or measure for longer"
