"""The runs of an exploration as the page shows them: points, and who is never beaten."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import PlanError
from onnxprune.exploration.pareto import RESOURCES, costs_of, non_dominated
from onnxprune.ir.plain import parse
from onnxprune.pruning.comparison import compare
from onnxprune.pruning.plan import Plan

if TYPE_CHECKING:
    from onnxprune.exploration.results import Results
    from onnxprune.exploration.runs import Figures, Run

_MOST_DETAILED = 40_000
"""Layers, over all detailed runs: what a page can hold."""
_WORDS = ("mode", "allocation", "criterion", "then", "precision")
_NUMBERS = ("reduce", "seed", "accuracy")
_DIGITS = 6


def tradeoff(results: Results, analysis: Analysis, shown: Sequence[tuple[str, Plan]] = ()) -> dict[str, Any]:
    """Finished runs as columns, the Pareto fronts of accuracy over each resource, and the failures; fit for JSON.

    ``left`` maps runs on a front to the output channels that each layer keeps, ``further`` the settings that the
    columns do not have, by run. ``picked`` are the runs whose plans are those of the models that are ``shown``, with
    their names.
    """
    done = [run for run in results.done if math.isfinite(_number(run.accuracy))]
    resources = [name for name in RESOURCES if any(getattr(run, name) is not None for run in done)]
    fronts = {name: _front(done, name, results.original) for name in resources}
    words = {name: sorted({getattr(run, name) for run in done}) for name in _WORDS}
    return {
        "score": results.about.score,
        "data": results.about.data,
        "count": len(results.runs),
        "resources": resources,
        "words": words,
        "runs": {
            **{name: [words[name].index(getattr(run, name)) for run in done] for name in _WORDS},
            **{name: [_rounded(getattr(run, name)) for run in done] for name in (*_NUMBERS, *resources)},
        },
        "fronts": fronts,
        "left": dict(_channels(results, analysis, done, fronts)),
        "further": {index: further for index, run in enumerate(done) if (further := _further(run))},
        "picked": list(_picked(results, done, shown)),
        "original": None if results.original is None else _figures(results.original, resources),
        "failed": [(run.label, run.message) for run in results.failed[:20]],
        "failures": len(results.failed),
    }


def _front(runs: Sequence[Run], resource: str, original: Figures | None) -> list[int]:
    """The runs that neither another nor the original beats in accuracy and this resource, the smallest first."""
    rows = [costs_of(figures, [resource]) for figures in (*runs, *([] if original is None else [original]))]
    costs = np.array(rows, dtype=np.float64).reshape(-1, 2)
    found: list[int] = np.flatnonzero(non_dominated(costs)[: len(runs)]).tolist()
    return sorted(found, key=lambda index: costs[index, 1])


def _channels(
    results: Results, analysis: Analysis, runs: Sequence[Run], fronts: Mapping[str, Sequence[int]]
) -> Iterator[tuple[int, list[int]]]:
    """Kept channels per layer for the runs on any front, as long as there is room; not for those without a plan."""
    index_of = {runs[index].key: index for front in fronts.values() for index in front}
    room = _MOST_DETAILED // max(len(analysis.layers), 1)
    for key, text in results.plans(list(index_of)[:room]):
        try:
            comparison = compare(analysis, Plan.from_dict(parse(text)))
        except (PlanError, ValueError):
            continue  # The page still tells the settings; 'pick' says what is wrong with the plan.
        yield index_of[key], [layer.after.channels for layer in comparison.layers]


def _picked(results: Results, runs: Sequence[Run], shown: Sequence[tuple[str, Plan]]) -> Iterator[tuple[int, str]]:
    """The first run that made each of these plans."""
    index_of = {run.key: index for index, run in enumerate(runs)}
    for name, plan in shown:
        alike = [run.key for run in runs if plan.after and (run.params, run.flops) == _counts(plan)]
        for key, text in results.plans(alike):
            try:
                same = Plan.from_dict(parse(text)).removed == plan.removed
            except (PlanError, ValueError):
                continue
            if same:
                yield index_of[key], name
                break


def _counts(plan: Plan) -> tuple[float | None, float | None]:
    return plan.after.get("params"), plan.after.get("flops")


def _further(run: Run) -> dict[str, Any]:
    """Settings beyond those of every run."""
    known = {"mode", "reduce", "allocation", "criterion", "seed", "then", "nothing", "precision", "int8"}
    found: dict[str, Any] = parse(run.settings)
    return {name: value for name, value in found.items() if name not in known}


def _figures(figures: Figures, resources: Sequence[str]) -> dict[str, Any]:
    return {name: _rounded(getattr(figures, name)) for name in ("accuracy", *resources)}


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _rounded(value: float | None) -> float | None:
    """Six significant digits: a point on a screen needs no more."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.{_DIGITS}g}")
    return int(short) if short.is_integer() else short
