"""Does a search that learns find more than spread points? ``python -m tests.benchmarks.search --data FASHION-MNIST``.

For each network a table is made once: pruned by every combination of mode, allocation and criterion at several
reductions, refitted, accuracy on test images and MACs left; between the reductions it is interpolated. Searches then
draw from the table, so that many seeds cost nothing: those of ``explore --search`` (Halton, TPE), and optuna's NSGA-II.
What counts is the hypervolume of (accuracy, MACs gone) after so many runs, and the best accuracy with half of the MACs
gone at least. ``docs/search.csv`` gets a row for every network and number of runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import onnxprune
from onnxprune.data import read_data
from onnxprune.data.evaluation import evaluate
from onnxprune.errors import BudgetError
from onnxprune.exploration import About, Grid
from onnxprune.exploration.optimising import optimise
from onnxprune.exploration.results import Results
from onnxprune.exploration.runs import Run, Setting, run_of
from tests.benchmarks.rows import add_row

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "search.csv"
NETWORKS = ("residual_dynamo", "vgg_dynamo")
MODES, ALLOCATIONS, CRITERIA = ("params", "flops"), ("complexity-mean", "global"), ("l2", "refit")
REDUCE = tuple(np.round(np.linspace(0.15, 0.85, 5), 2).tolist())
COUNTS, SEEDS = (10, 20, 40), 30
FIT, TEST = 256, 2000

Point = tuple[float, float]
"""Accuracy, and the share of MACs that is gone."""
Ask = Callable[[str, str, str, float], Point]
Search = Callable[[Ask, int, int], list[Point]]


def main() -> None:
    """Make the tables, search in them, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", required=True, help="folder of the four IDX files")
    parser.add_argument("--work", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    TABLE.unlink(missing_ok=True)
    for network in options.networks:
        known = table(ROOT / "models" / f"{network}.onnx", options.data, options.work / f"{network}.json")
        for count in COUNTS:
            row: dict[str, object] = {"network": network, "runs": count}
            for name, search in (("Halton", halton), ("TPE", tpe), ("NSGA-II", nsga)):
                found = [search(asking(known), count, seed) for seed in range(SEEDS)]
                volumes = np.array([hypervolume(points) for points in found])
                best = np.array([max((a for a, gone in points if gone >= 0.5), default=0.0) for points in found])
                row[f"{name}, hypervolume"] = f"{volumes.mean():.4f}"
                row[f"{name}, spread"] = f"{volumes.std():.4f}"
                row[f"{name}, best at half"] = f"{100 * best.mean():.2f}"
            add_row(TABLE, row)
            print(row, flush=True)


def table(model: Path, data: str, kept: Path) -> dict[str, list[Point]]:
    """By mode, allocation and criterion: accuracy and MACs gone at each reduction (nothing gone where it cannot be)."""
    found: dict[str, list[Point]] = json.loads(kept.read_text()) if kept.exists() else {}
    source = onnxprune.load(model)
    whole = onnxprune.analyze(source).totals["flops"]
    test = read_data(f"{data}?test_limit={TEST}", source).test
    assert test is not None
    for way in itertools.product(MODES, ALLOCATIONS, CRITERIA):
        key = " ".join(way)
        if key in found:
            continue
        mode, allocation, criterion = way
        points: list[Point] = []
        for reduce in REDUCE:
            try:
                made = onnxprune.compress(
                    source, mode=mode, reduce=reduce, allocation=allocation, criterion=criterion, calibration=data,
                    calibration_samples=FIT, certify=False,
                )  # fmt: skip
            except BudgetError:
                points.append((0.0, 0.0))
                continue
            score = evaluate(made.model, test)
            points.append((float(score.accuracy or 0.0), 1 - made.plan.after["flops"] / whole))
        found[key] = points
        kept.write_text(json.dumps(found))
        print(model.stem, key, points, flush=True)
    return found


def asking(known: dict[str, list[Point]]) -> Ask:
    """What a run gives, from the table."""

    def ask(mode: str, allocation: str, criterion: str, reduce: float) -> Point:
        points = np.array(known[f"{mode} {allocation} {criterion}"])
        return tuple(float(np.interp(reduce, REDUCE, points[:, side])) for side in (0, 1))  # type: ignore[return-value]

    return ask


GRID = Grid(modes=MODES, reduce=(REDUCE[0], REDUCE[-1]), allocations=ALLOCATIONS, criteria=CRITERIA)


def halton(ask: Ask, count: int, seed: int) -> list[Point]:
    """What ``explore --search`` does."""
    return [_answer(ask, one) for one in GRID.search(count, seed)]


def tpe(ask: Ask, count: int, seed: int) -> list[Point]:
    """What ``explore --search --search-by tpe`` does."""
    runs: list[Run] = []

    def make(settings: Sequence[Setting]) -> Results:
        for one in settings:
            accuracy, gone = _answer(ask, one)
            runs.append(Run(**run_of(str(len(runs)), one), accuracy=accuracy, flops=1 - gone))
        return Results(TABLE, About("", "", "", "", "accuracy", {}, {}, ""), None, tuple(runs))

    optimise(GRID, count, make, seed=seed)
    return [(run.accuracy or 0.0, 1 - (run.flops or 0.0)) for run in runs]


def _answer(ask: Ask, one: Setting) -> Point:
    return ask(str(one.mode), one.allocation, str(one.criterion), float(one.reduce or 0.0))


def nsga(ask: Ask, count: int, seed: int) -> list[Point]:
    """Optuna's genetic algorithm."""
    import optuna

    sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=max(count // 4, 4))
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)

    def objective(trial: Any) -> Point:
        ways = (("mode", MODES), ("allocation", ALLOCATIONS), ("criterion", CRITERIA))
        words = [trial.suggest_categorical(name, list(values)) for name, values in ways]
        return ask(*words, trial.suggest_float("reduce", REDUCE[0], REDUCE[-1]))

    study.optimize(objective, n_trials=count)
    return [tuple(trial.values) for trial in study.trials]


def hypervolume(points: list[Point]) -> float:
    """The area that is dominated, from nothing right and nothing gone."""
    area, best = 0.0, 0.0
    for accuracy, gone in sorted(points, reverse=True):
        if gone > best:
            area += accuracy * (gone - best)
            best = gone
    return area


if __name__ == "__main__":
    main()
