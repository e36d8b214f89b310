"""Tables of runs that were never made, for tests and benchmarks of what shows them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import onnxprune
from onnxprune.exploration import About, Figures, Run
from onnxprune.exploration.store import Store
from onnxprune.ir.digest import model_digest

MODES = ("flops", "memory", "params")


def write_runs(path: Path, model: Path, count: int, *, failures: int = 0, seed: int = 0) -> tuple[Run, ...]:
    """A table of ``count`` finished runs with random figures, and some that failed; the first three have plans."""
    about = About(str(model), model_digest(onnxprune.load(model)), "data.npz", "0" * 64, "accuracy")
    runs = tuple(itertools.islice(_runs(np.random.default_rng(seed)), count))
    failed = [_failed(number) for number in range(failures)]
    analysis = onnxprune.analyze(model)
    with Store.open(path, about) as store:
        store.set_original(Figures(accuracy=0.95, **_figures(1.0)))
        for number, run in enumerate((*runs, *failed)):
            plan = onnxprune.plan(analysis, mode=run.mode, reduce=run.reduce, seed=run.seed) if number < 3 else None
            store.add(run, None if plan is None else json.dumps(plan.to_dict()))
    return runs


def _runs(rng: np.random.Generator) -> Iterator[Run]:
    for number in itertools.count():
        mode = MODES[number % 3]
        reduce = (1 + number % 6) / 10
        left = (1 - reduce) * rng.uniform(0.9, 1.1)
        settings = {"mode": mode, "reduce": reduce, "allocation": "complexity", "criterion": "l2", "seed": number}
        yield Run(
            accuracy=float(0.95 - reduce**2 * rng.uniform(0.1, 0.6)),
            **_figures(left),
            key=f"{number:032x}",
            mode=mode,
            reduce=reduce,
            allocation="complexity",
            criterion="l2",
            seed=number,
            then="nothing",
            settings=json.dumps({**settings, "then": "nothing", "nothing": {}}),
        )


def _failed(number: int) -> Run:
    message = "the budget cannot be met <b>at all</b>"
    return Run(key=f"f{number:031x}", status="failed", message=message, mode="flops", reduce=0.9, seed=number)


def _figures(left: float) -> dict[str, float]:
    return {
        "params": round(100_000 * left),
        "flops": round(4_000_000 * left**1.5),
        "memory": round(500_000 * left),
        "size": round(400_000 * left),
        "latency": 1e-4 * (0.3 + 0.7 * left),
    }
