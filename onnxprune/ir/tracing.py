"""Time per operator, as the runtime's own profiler tells it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import MeasurementError, OnnxPruneError, UsageError
from onnxprune.ir.engine import Engine
from onnxprune.ir.runtimes import ONNXRUNTIME
from onnxprune.ir.session import first_line
from onnxprune.ir.timing import fitting_clock

_KERNEL = "_kernel_time"
_MICROSECOND = 1e-6
_ROUNDS = 8


@dataclass(frozen=True)
class NodeTime:
    """One node of the graph as onnxruntime runs it (fused, its layout changed), and the seconds it takes per run."""

    name: str
    op_type: str
    seconds: float


@dataclass(frozen=True)
class TypeTime:
    """All nodes of one operator type: how many, and the seconds they take per run."""

    op_type: str
    count: int
    seconds: float


def by_type(nodes: Sequence[NodeTime]) -> tuple[TypeTime, ...]:
    """Summed per operator type, the slowest first."""
    found: dict[str, list[float]] = {}
    for node in nodes:
        found.setdefault(node.op_type, []).append(node.seconds)
    sums = (TypeTime(op_type, len(seconds), sum(seconds)) for op_type, seconds in found.items())
    return tuple(sorted(sums, key=lambda entry: -entry.seconds))


@dataclass(frozen=True)
class Trace:
    """Where the time of a run goes: the nodes in the order of execution, and the seconds between them."""

    nodes: tuple[NodeTime, ...]
    between: float

    @property
    def total(self) -> float:
        """Seconds of a run on a quiet machine."""
        return sum(node.seconds for node in self.nodes) + self.between


def traced(
    source: str | Path | bytes, inputs: Mapping[str, Any], engine: Engine, *, runs: int, quantile: float = 0.5
) -> Trace:
    """Run a model under the runtime's profiler and see where its time goes.

    Args:
        source: a file or a serialised model.
        inputs: its inputs by name.
        engine: threads and provider.
        runs: runs that count; two more come before them.
        quantile: which of a node's times is given: 0.5 is the median, less leaves more of the disturbances out.

    Raises:
        UsageError: the runtime has no profiler.
        MeasurementError: it does not load or run the model.
    """
    warmup = 2
    if engine.runtime != ONNXRUNTIME:
        return _summed(source, inputs, engine, warmup, runs, quantile)
    with tempfile.TemporaryDirectory() as folder:
        session = engine.session(source, trace=Path(folder) / "trace")
        try:
            for _ in range(warmup + runs):
                session.run(None, dict(inputs))
        except Exception as error:
            raise MeasurementError(f"onnxruntime does not run the model: {first_line(error)}") from error
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read_trace(events, warmup, quantile)


def _summed(
    source: str | Path | bytes, inputs: Mapping[str, Any], engine: Engine, warmup: int, runs: int, quantile: float
) -> Trace:
    """The same of a runtime that sums up as it runs."""
    if not engine.profiles:
        raise UsageError(f"{engine.runtime} does not tell the time of single nodes; onnxruntime and openvino do")
    clock = fitting_clock(engine)
    found: dict[tuple[str, str], list[float]] = {}
    between: list[float] = []
    try:
        # Sums are all that some tell: a model that is compiled anew starts from nothing. Many short sums, so that what
        # disturbs the machine is in few of them.
        runs = max(2 * runs // _ROUNDS, 2)
        for _ in range(_ROUNDS):
            program = engine.session(source, trace=Path()).program(inputs)
            for _ in range(warmup):
                program.run(inputs)
            before = {(name, kind): seconds for name, kind, seconds in program.nodes()}
            start = clock()
            for _ in range(runs):
                program.run(inputs)
            total = (clock() - start) / runs
            spent = {(n, kind): max(s - before.get((n, kind), 0.0), 0.0) / runs for n, kind, s in program.nodes()}
            for node, seconds in spent.items():
                found.setdefault(node, []).append(seconds)
            between.append(max(total - sum(spent.values()), 0.0))
    except OnnxPruneError:
        raise
    except Exception as error:
        raise MeasurementError(f"{engine.runtime} does not run the model: {first_line(error)}") from error
    nodes = (NodeTime(*node, float(np.quantile(seconds, quantile))) for node, seconds in found.items())
    return Trace(tuple(nodes), float(np.quantile(between, quantile)))


def read_trace(events: Sequence[Mapping[str, Any]], warmup: int, quantile: float = 0.5) -> Trace:
    """The nodes' times in a trace, without its first ``warmup`` runs.

    Durations come in whole microseconds. What a body (If, Loop, Scan) executes shows up by itself and within its
    node's time alike; such nodes are left out in favour of what is inside.
    """
    begins = sorted(event["ts"] for event in events if event.get("name") == "model_run")[warmup:]
    if not begins:
        return Trace((), 0.0)
    kernels = [e for e in events if e.get("cat") == "Node" and str(e.get("name", "")).endswith(_KERNEL)]
    op_types: dict[tuple[str, str], str] = {}
    per_run: dict[tuple[str, str], list[float]] = {}
    gaps: dict[tuple[str, str], list[float]] = {}
    ended, ended_run = 0, -1
    for event in sorted(kernels, key=lambda event: event["ts"]):
        op_type, at = event["args"]["op_name"], event["ts"]
        run = int(np.searchsorted(begins, at, side="right")) - 1
        if run < 0 or op_type in ("If", "Loop", "Scan"):
            continue
        # Names need not differ; indices count anew in every body.
        node = (event["name"].removesuffix(_KERNEL), str(event["args"].get("node_index", "")))
        op_types.setdefault(node, op_type)
        per_run.setdefault(node, [0.0] * len(begins))[run] += event["dur"] * _MICROSECOND
        if run == ended_run:
            gaps.setdefault(node, []).append(max(at - ended, 0) * _MICROSECOND)
        ended, ended_run = at + event["dur"], run
    nodes = (
        NodeTime(node[0], op_types[node], float(np.quantile(seconds, quantile))) for node, seconds in per_run.items()
    )
    return Trace(tuple(nodes), sum(float(np.quantile(seconds, quantile)) for seconds in gaps.values()))
