"""One run: prune, do what follows, judge and measure. Works in any process that sees model and data."""

from __future__ import annotations

import hashlib
import json
import platform
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.errors import OnnxPruneError
from onnxprune.exploration.runs import Figures, Run, Setting, run_of
from onnxprune.exploration.subject import Opened, Subject, open_subject
from onnxprune.ir.model import Model
from onnxprune.pruning.plan import Plan


@dataclass(frozen=True)
class Task:
    """One run to make, under its key."""

    key: str
    setting: Setting


@dataclass(frozen=True)
class Outcome:
    """A run, and its plan as JSON (None where there is none)."""

    run: Run
    plan: str | None = None


def execute(subject: Subject, task: Task) -> Outcome:
    """Make one run. What goes wrong in it becomes its message.

    ``latency`` is that on this machine; see :func:`onnxprune.exploration.explore` for what becomes of it.

    Raises:
        OnnxPruneError: model or data cannot be read here; no other run would work either.
    """
    opened = open_subject(subject)
    begin, started = time.perf_counter(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    plan: str | None = None
    try:
        figures, plan, digest = _made(subject, opened, task)
        values: dict[str, Any] = {**asdict(figures), "digest": digest}
    except OnnxPruneError as error:
        values = {"status": "failed", "message": str(error)}
    except MemoryError:
        values = {"status": "failed", "message": "there was not enough memory"}
    except Exception as error:
        values = {"status": "failed", "message": f"unexpected {type(error).__name__}: {error}"}
    seconds = time.perf_counter() - begin
    values.update(run_of(task.key, task.setting), seconds=seconds, started=started, machine=platform.node())
    return Outcome(Run(**values), plan)


def failed(task: Task, message: str) -> Outcome:
    """The outcome of a run that was lost with its process."""
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Outcome(Run(**run_of(task.key, task.setting), status="failed", message=message, started=started))


def _made(subject: Subject, opened: Opened, task: Task) -> tuple[Figures, str, str]:
    chosen, model = prune(subject, opened, task.setting)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx" if subject.keep is None else kept_path(Path(subject.keep), task.key)
        model.save(path)
        figures = measure(subject, opened, model, path)
        digest = "" if subject.keep is None else file_digest(path)
    return figures, json.dumps(chosen.to_dict(), separators=(",", ":")), digest


def prune(subject: Subject, opened: Opened, setting: Setting, plan: Plan | None = None) -> tuple[Plan, Model]:
    """Plan (if there is none yet) and model of one run: pruned and certified, and whatever follows done."""
    from onnxprune.pruning.pipeline import run

    options = replace(setting, calibration=opened.calibration, input_shapes=subject.shapes)
    if setting.timed and plan is None:
        options = replace(options, latency=opened.times)
    made = run(opened.model, options if plan is None else plan)
    model = made.model
    for step in (setting.then, setting.precision):
        model = step(model, opened.model, made.plan, opened.data, setting.seed)
    return made.plan, model


def measure(subject: Subject, opened: Opened, model: Model, path: Path) -> Figures:
    """Judge a model and measure what it takes.

    Args:
        subject: how to measure.
        opened: the original to compare with.
        model: the model that was written to ``path``.
        path: its file.
    """
    analysis = opened.analysis if model is opened.model else analyze(model, subject.shapes)
    connected = analysis.connectivity
    figures = Figures(
        accuracy=opened.judge.score(model, subject.engine.threads),
        params=analysis.totals["params"],
        flops=analysis.totals["flops"],
        memory=analysis.totals["memory"],
        peak_activations=analysis.totals["peak_activations"],
        size=float(model.file_size),
        depth=connected.depth,
        mean_depth=connected.mean_depth,
        width=connected.width,
        paths=connected.paths if connected.paths >= 0 else None,
    )
    return _timed(subject, opened, analysis, path, figures)


def _timed(subject: Subject, opened: Opened, analysis: Analysis, path: Path, figures: Figures) -> Figures:
    if subject.rounds is None:
        return figures
    from onnxprune.ir.sampling import sample
    from onnxprune.ir.session import random_inputs

    inputs = random_inputs(opened.model, opened.analysis.shapes.binding, seed=0)
    sessions = [subject.engine.session(source) for source in (subject.model, path)]
    runners = [partial(session.run, None, inputs) for session in sessions]
    seconds = sample(runners, subject.rounds)
    # The fastest turns: other runs are made on the same machine meanwhile, and medians would tell of them. With eight
    # busy processes on two processors, fastest turns of equal models differ by 5 %, medians by a factor of two.
    original, other = seconds.min(axis=0).tolist()
    return replace(figures, latency=other, latency_ratio=other / original)


def kept_path(folder: Path, key: str) -> Path:
    """Where the model of a run is kept."""
    return folder / f"{key}.onnx"


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            state.update(block)
    return state.hexdigest()
