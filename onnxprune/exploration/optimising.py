"""A search that learns from its runs: optuna's TPE, for accuracy and a resource at once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from onnxprune.errors import UsageError, installing
from onnxprune.exploration.grid import Grid
from onnxprune.exploration.results import Results
from onnxprune.exploration.runs import Setting

#: The first runs are drawn at random, all at once: a third of them, and so many at least.
_FIRST = 5
#: So many are chosen at a time after these, however many are made side by side: equal seeds ask for equal runs on any
#: machine. Measured: choosing one by one finds no better (docs/exploration.md).
_TOGETHER = 8


def optimise(
    grid: Grid,
    count: int,
    make: Callable[[Sequence[Setting]], Results],
    *,
    over: str = "flops",
    seed: int = 0,
) -> Results:
    """Make ``count`` runs, which are chosen eight at a time by what came of those before.

    The same seed asks for the same runs where the same came of them, in whatever order they end: what a table has
    already is not made again, so that a search that was interrupted goes on.

    Args:
        grid: the values to choose from; reductions lie between the least and the greatest.
        count: how many.
        make: makes runs of these settings, side by side perhaps, or knows them, and gives all that there are.
        over: what accuracy is weighed against.
        seed: of the choices.

    Raises:
        UsageError: optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UsageError(f"this search takes optuna, which is not installed; {installing('search')}") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    first = max(count // 3, _FIRST)
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=first, constant_liar=True)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    results: Results | None = None
    for start in (0, *range(first, count, _TOGETHER)):
        asked = [study.ask() for _ in range(min(_TOGETHER if start else first, count - start))]
        settings = [_setting(grid, trial) for trial in asked]
        results = make(settings)
        found = {run.settings: run for run in results.done}
        for trial, setting in zip(asked, settings, strict=True):
            run = found.get(json.dumps(setting.to_dict(), sort_keys=True))
            values = (math.nan, math.nan) if run is None else tuple(map(_number, (run.accuracy, getattr(run, over))))
            if all(map(math.isfinite, values)):
                study.tell(trial, values)
            else:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert results is not None, "there is one run at least"
    return results


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _setting(grid: Grid, trial: Any) -> Setting:
    """What a trial proposes."""
    places = [trial.suggest_categorical(name, list(range(len(values)))) for name, values in grid.choices.items()]
    chosen = [values[place] for values, place in zip(grid.choices.values(), places, strict=True)]
    return grid.setting(trial.suggest_float("reduce", min(grid.reduce), max(grid.reduce)), *chosen)
