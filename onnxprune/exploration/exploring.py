"""Making the runs of an exploration and recording them as they end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.data.tasks import AUTO
from onnxprune.errors import ResultsError
from onnxprune.exploration.backends import Backend, Here, Lost
from onnxprune.exploration.judging import kind_of
from onnxprune.exploration.results import Results, read_results
from onnxprune.exploration.running import Task, execute, failed, measure
from onnxprune.exploration.runs import About, Figures, Run, Setting, beside, run_key
from onnxprune.exploration.store import Store
from onnxprune.exploration.subject import Subject, default_rounds, described, open_subject
from onnxprune.ir.engine import Engine
from onnxprune.ir.sampling import Rounds

if TYPE_CHECKING:
    from onnxprune.exploration.grid import Grid


@dataclass(frozen=True)
class Progress:
    """How far an exploration is: runs in all, those recorded, and of these the ones that failed."""

    total: int
    recorded: int
    failed: int
    last: Run | None = None


def _ignore(progress: Progress) -> None:
    pass


@dataclass(frozen=True)
class Exploration:
    """How runs are made and measured; what does not decide their results.

    Attributes:
        backend: where: :class:`~onnxprune.exploration.backends.Here`, ``Processes``, or a cluster.
        engine: the runtime, its threads and provider.
        rounds: how long latencies are measured, per run; None leaves them out.
        keep: folder for the pruned models; without it, ``pick`` makes the chosen one again.
        retry: make those runs again that failed.
        progress: called when the work begins and after every run.
    """

    backend: Backend = field(default_factory=Here)
    engine: Engine = field(default_factory=Engine)
    rounds: Rounds | None = field(default_factory=default_rounds)
    keep: Path | None = None
    retry: bool = False
    progress: Callable[[Progress], None] = _ignore


def explore(
    model: str | os.PathLike[str],
    data: str,
    table: str | os.PathLike[str],
    settings: Grid | Sequence[Setting],
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    task: str = AUTO,
    how: Exploration | None = None,
) -> Results:
    """Prune a model in many ways and record what each loses and saves.

    Every run is recorded as it ends; called again with the same table, it makes only those that are missing. What
    identifies a run are the contents of model and data and its setting. A run that fails is recorded with the reason.

    Latencies are measured in turns with the original, and recorded as the ratio of the two times the latency of the
    original at the beginning: what disturbs the machine meanwhile disturbs both.

    Args:
        model: the ONNX file.
        data: SPEC of the data; see :func:`onnxprune.data.read_data`.
        table: the SQLite file to record in; it may hold runs of the same model on the same data.
        settings: the runs to make, or all of a grid.
        input_shapes: shapes for inputs with symbolic dimensions.
        task: by whose measure the answers are compared where no labelled samples are held out; ``auto`` looks at them.
        how: where runs are made, and what is measured.

    Returns:
        All runs of the table.

    Raises:
        ModelError: the model cannot be read.
        DataError: the data cannot be read, or does not fit the model.
        UsageError: the task is not known, cannot read the outputs, or labels judge.
        ResultsError: the table is damaged, or holds runs of another model or other data.
        RecordingError: a run cannot be recorded; what was recorded before is safe.
        ClusterError: the scheduler does not answer, or there are no workers left.
    """
    how = how or Exploration()
    path = Path(table)
    rounds, keep = how.rounds, how.keep
    subject = described(model, data, engine=how.engine, rounds=rounds, keep=keep, input_shapes=input_shapes, task=task)
    wanted = settings.settings() if not isinstance(settings, Sequence) else settings
    about = _about(subject, os.fspath(model), data)
    keyed = ((run_key(about, setting), setting) for setting in wanted)
    tasks = {key: Task(key, setting) for key, setting in keyed}
    if how.keep is not None:
        _make_folder(how.keep)
    with Store.open(path, about) as store:
        original = _original(subject, store)
        statuses = store.statuses()
        recorded = {key for key in tasks if key in statuses and not (how.retry and statuses[key] == "failed")}
        bad = sum(statuses[key] == "failed" for key in recorded)
        progress = Progress(len(tasks), len(recorded), bad)
        how.progress(progress)
        left = [one for key, one in tasks.items() if key not in recorded]
        for one, result in how.backend.run(partial(execute, subject), left) if left else ():
            outcome = failed(one, result.reason) if isinstance(result, Lost) else result
            run = beside(outcome.run, original)
            store.add(run, outcome.plan)
            progress = Progress(len(tasks), progress.recorded + 1, progress.failed + (not run.done), run)
            how.progress(progress)
    return read_results(path)


def _about(subject: Subject, model: str, data: str) -> About:
    from onnxprune import __version__

    opened = open_subject(subject)
    engine: dict[str, Any] = {} if subject.rounds is None else subject.engine.to_dict()
    return About(
        model=model,
        model_digest=subject.model_digest,
        data=data,
        data_digest=subject.data_digest,
        score=kind_of(opened.data),
        engine=engine,
        input_shapes=dict(subject.input_shapes),
        version=__version__,
        task=subject.task,
    )


def _original(subject: Subject, store: Store) -> Figures:
    known = store.original
    if known is not None and (subject.rounds is None or known.latency is not None):
        return known
    opened = open_subject(subject)
    figures = measure(subject, opened, opened.model, Path(subject.model))
    store.set_original(figures, {} if subject.rounds is None else subject.engine.to_dict())
    return figures


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"cannot keep models in {folder}: {error.strerror or error}") from error
