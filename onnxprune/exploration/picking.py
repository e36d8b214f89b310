"""Choosing one run by limits, and writing its model: measured again before it is handed over."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from onnxprune.data.reading import is_function
from onnxprune.errors import BudgetError, ResultsError, UsageError, unknown
from onnxprune.exploration.pareto import ACCURACY, RESOURCES, beats, number
from onnxprune.exploration.results import Results, read_results
from onnxprune.exploration.running import file_digest, kept_path, measure, prune
from onnxprune.exploration.runs import Figures, Run, Setting
from onnxprune.exploration.steps import Float, Step, step_of
from onnxprune.exploration.subject import Opened, Subject, described, open_subject
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model, load
from onnxprune.ir.plain import parse
from onnxprune.ir.sampling import Rounds
from onnxprune.pruning.plan import Plan

_UNITS = {"params": "parameters", "flops": "MACs", "memory": "bytes of memory", "latency": "s", "size": "bytes on disk"}
_TRIES = 5


@dataclass(frozen=True)
class Limits:
    """What a model may take at most, and how accurate it must be; None does not matter.

    ``max_params`` in elements, ``max_flops`` in multiply-accumulates, ``max_memory`` and ``max_size`` in bytes,
    ``max_latency`` in seconds, ``min_accuracy`` from 0 to 1.
    """

    max_params: float | None = None
    max_flops: float | None = None
    max_memory: float | None = None
    max_latency: float | None = None
    max_size: float | None = None
    min_accuracy: float | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, limit.name) is not None for limit in fields(self))

    def excess(self, figures: Figures) -> dict[str, float]:
        """By how much each limit is broken, as a fraction of it; infinite where the figure is not known."""
        found = {}
        for name in RESOURCES:
            limit, value = getattr(self, f"max_{name}"), getattr(figures, name)
            if limit is not None and not number(value) <= limit:
                found[name] = float("inf") if value is None or not limit else value / limit - 1
        if self.min_accuracy is not None and not number(figures.accuracy) >= self.min_accuracy:
            # Counted in errors, so that it compares with resources: 4 % instead of 2 % is twice as much.
            known = figures.accuracy is not None and self.min_accuracy < 1
            found[ACCURACY] = (1 - number(figures.accuracy)) / (1 - self.min_accuracy) - 1 if known else float("inf")
        return found

    def broken(self, figures: Figures) -> str:
        """The broken limits in words."""
        return "; ".join(self._words(name, figures) for name in self.excess(figures))

    def _words(self, name: str, figures: Figures) -> str:
        value = getattr(figures, name)
        if value is None:
            return f"its {name} was not measured"
        if name == ACCURACY:
            return f"accuracy {value:.4f} instead of {self.min_accuracy:.4f}"
        limit = getattr(self, f"max_{name}")
        if name == "latency":
            return f"latency {1e3 * value:.3f} ms instead of {1e3 * limit:.3f} ms"
        return f"{value:,.0f} {_UNITS[name]} instead of {limit:,.0f}"


@dataclass(frozen=True)
class Picked:
    """What was written: run and plan, figures as measured again, how the model was come by, and what was passed over.

    ``origin`` is ``kept`` (the very file of the run) or ``rebuilt`` (from its plan and recipe).
    """

    run: Run
    plan: Plan
    checked: Figures
    origin: Literal["kept", "rebuilt"]
    passed_over: tuple[tuple[Run, str], ...]


def choose(results: Results, limits: Limits, best: str | None = None) -> tuple[Run, ...]:
    """The finished runs that keep all limits and that the original does not beat in what matters, the best first.

    Args:
        results: the runs.
        limits: what has to hold.
        best: ``accuracy`` (the greatest) or a resource (the least). Without it accuracy, or where only accuracy is
            limited, latency (FLOPs if it was not measured).

    Raises:
        BudgetError: no run does; the message names the nearest, or says that the original is better.
        UsageError: ``best`` is not known.
    """
    wanted = best or _default(results, limits)
    if wanted != ACCURACY and wanted not in RESOURCES:
        raise UsageError(unknown("best", wanted, (ACCURACY, *RESOURCES)))
    if not results.done:
        raise BudgetError(f"{results.path} has no finished run to pick from")
    fitting = [run for run in results.done if not limits.excess(run)]
    if not fitting:
        raise BudgetError(_nearest(results, limits))
    matters = [name for name in RESOURCES if wanted == name or getattr(limits, f"max_{name}") is not None]
    matters = matters or list(results.weighed)
    better = [run for run in fitting if not beats(results.original, run, matters)]
    if not better:
        raise BudgetError(
            f"{len(fitting)} runs keep the limits, and the original beats them all: it is as accurate, with no more "
            f"{' and '.join(matters)}. Keep it, or explore further"
        )

    def order(run: Run) -> tuple[float, ...]:
        accuracy, resources = -number(run.accuracy), [number(getattr(run, name)) for name in results.resources]
        return (accuracy, *resources) if wanted == ACCURACY else (number(getattr(run, wanted)), accuracy)

    return tuple(sorted(better, key=order))


def _default(results: Results, limits: Limits) -> str:
    if any(getattr(limits, f"max_{name}") is not None for name in RESOURCES):
        return ACCURACY
    if limits.min_accuracy is None:
        return ACCURACY
    return "latency" if "latency" in results.resources else "flops"


def _nearest(results: Results, limits: Limits) -> str:
    def worst(run: Run) -> tuple[float, float]:
        excess = limits.excess(run).values()
        return max(excess), sum(excess)

    nearest = min(results.done, key=worst)
    return (
        f"none of the {len(results.done)} finished runs keeps the limits. The nearest is {nearest.label}: "
        f"{limits.broken(nearest)}. Loosen the limits, or explore further"
    )


def pick(
    results: Results | str | os.PathLike[str],
    limits: Limits,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    data: str | None = None,
    best: str | None = None,
    keep: Path | None = None,
    rounds: Rounds | None = None,
    overwrite: bool = False,
) -> Picked:
    """Write the best model that keeps the limits.

    The model of a run is the file that was kept (if its contents are those of the run), or made again from plan and
    recipe. Either way the written file is run and measured, and only what keeps the limits then is handed over; if
    it does not, the next best run has its turn.

    Args:
        results: recorded runs, or their file.
        limits: what has to hold.
        output: the file to write.
        model: the original, if it is not where it was.
        data: SPEC of the data, likewise.
        best: see :func:`choose`.
        keep: the folder in which models were kept.
        rounds: how long to measure the latency, if the results have any.
        overwrite: allow ``output`` to replace the original.

    Raises:
        BudgetError: no run keeps the limits, as recorded or as measured again.
        ResultsError: the results are damaged, or model or data are not those of the results.
        ModelError: the output cannot be written.
    """
    found = results if isinstance(results, Results) else read_results(results)
    candidates = choose(found, limits, best)
    subject = _subject(found, model, data, keep, rounds)
    opened = open_subject(subject)
    passed_over: list[tuple[Run, str]] = []
    with tempfile.TemporaryDirectory(dir=Path(output).absolute().parent, prefix=".pick-") as folder:
        for run in candidates[:_TRIES]:
            made, origin, plan = _model_of(found, subject, opened, run)
            path = Path(folder) / "model.onnx"
            made.save(path)
            written = load(path)
            checked = measure(subject, opened, written, path)
            if not limits.excess(checked):
                # Loaded from elsewhere, the model does not know which file it must not replace.
                protected = replace(written, path=opened.model.path, sources=(*opened.model.sources, found.path))
                protected.save(output, overwrite_input=overwrite)
                return Picked(run, plan, checked, origin, tuple(passed_over))
            passed_over.append((run, limits.broken(checked)))
    first, why = passed_over[0]
    raise BudgetError(
        f"{len(passed_over)} runs keep the limits as recorded, but not as measured now; nothing was written. The best, "
        f"{first.label}, has {why}. Where latencies are limited, see that the machine is idle, or loosen the limits"
    )


def _subject(
    results: Results, model: str | os.PathLike[str] | None, data: str | None, keep: Path | None, rounds: Rounds | None
) -> Subject:
    about = results.about
    original, spec = subject_of(results, model, data)
    timed = (rounds or Rounds(seconds=5.0)) if about.engine else None
    subject = described(
        original,
        spec,
        engine=Engine(**about.engine) if about.engine else Engine(),
        rounds=timed,
        keep=keep,
        input_shapes=about.input_shapes,
        task=about.task,
    )
    if subject.model_digest != about.model_digest:
        raise ResultsError(f"{subject.model} is not the model of {results.path} ({about.model}); name that one")
    if subject.data_digest != about.data_digest:
        raise ResultsError(f"{subject.data} is not the data of {results.path} ({about.data}); name that")
    return subject


def subject_of(
    results: Results, model: str | os.PathLike[str] | None = None, data: str | None = None
) -> tuple[str | os.PathLike[str], str]:
    """The original and the SPEC of the data: those that are given, or those that were recorded, where they are now.

    Raises:
        ResultsError: the model is not there any more, or the data come from a function: what a table names is not run.
    """
    original = model if model is not None else _found(results.about.model, results.path)
    if data is not None:
        return original, data
    spec = _found_data(results.about.data, results.path)
    if is_function(spec):
        raise ResultsError(
            f"{results.path} names the function {spec!r} as its data, which is code: if you trust it, say so with "
            f"--data {spec} (data= in Python)"
        )
    return original, spec


def _found(name: str, results: Path) -> Path:
    """A recorded path: as it is, or beside the results."""
    for path in (Path(name), results.parent / name, results.parent / Path(name).name):
        if path.is_file():
            return path
    raise ResultsError(f"the model {name} of {results} is not there any more; say where it is")


def _found_data(spec: str, results: Path) -> str:
    source, mark, options = spec.partition("?")
    beside = results.parent / source
    return f"{beside}{mark}{options}" if not Path(source).exists() and beside.exists() else spec


def _model_of(
    results: Results, subject: Subject, opened: Opened, run: Run
) -> tuple[Model, Literal["kept", "rebuilt"], Plan]:
    plan = results.plan(run.key)
    if subject.keep is not None and run.digest:
        path = kept_path(Path(subject.keep), run.key)
        if path.is_file() and file_digest(path) == run.digest:
            return load(path), "kept", plan
    setting = setting_of(parse(run.settings))
    return prune(subject, opened, setting, plan)[1], "rebuilt", plan


def setting_of(settings: Mapping[str, Any]) -> Setting:
    """The setting that :meth:`Setting.to_dict` gave. Raises ResultsError for anything else."""
    rest = dict(settings)
    try:
        then = _step(rest, "then")
        precision = _step(rest, "precision") if "precision" in rest else Float()
        setting = Setting(**rest, then=then, precision=precision)
        setting.to_dict()  # Odd values of what follows the pruning are refused here.
        return setting
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise ResultsError(f"the settings of a run cannot be read: {error!r}") from error


def _step(settings: dict[str, Any], what: str) -> Step:
    """A step by its name and what it was made with, which are taken out of the settings."""
    name = str(settings.pop(what))
    return step_of(name, settings.pop(name))
