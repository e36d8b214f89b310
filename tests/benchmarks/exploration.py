"""A real exploration: ResNet-20 on Fashion-MNIST, three modes, four reductions, two seeds, short training.

    python -m tests.benchmarks.exploration [--model FILE] [--data FOLDER] [--only PART]

Parts are explore, overhead, scale, picks, connectivity and page.

The runs go to docs/exploration.sqlite as they end (what is there is not made again), the page docs/exploration.md
and its picture are made of them. The model is trained first if its file is not there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import onnxprune
from models.data import DEBIAN_FOLDER
from onnxprune.data import Data, read_data
from onnxprune.data.evaluation import evaluate
from onnxprune.exploration import Figures, Grid, Limits, Picked, Results, Run, explore, pick, read_results
from onnxprune.exploration.exploring import Exploration
from onnxprune.exploration.steps import Train
from onnxprune.exploration.store import Store
from onnxprune.ir.engine import Engine
from onnxprune.ir.sampling import Rounds, sample
from tests.benchmarks.exploration_connectivity import measured

DOCS = Path(__file__).parents[2] / "docs"
TABLE, PICTURE, PAGE = DOCS / "exploration.sqlite", DOCS / "img" / "exploration.svg", DOCS / "exploration.md"
SCALING = "?mean=0.286&std=0.353"
RECIPE = (("batch_size", 128), ("epochs", 1), ("lr", 5e-3))
GRID = Grid(reduce=(0.3, 0.5, 0.7, 0.85), seeds=(0, 1), steps=(Train(RECIPE),))
IMAGES = 20_000
ROUNDS = Rounds(seconds=1.0)
MANY = 10_000
FIGURES = DOCS / "exploration.json"
"""What was measured beside the runs."""


def main() -> None:
    """Make what was asked for, or everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("resnet20.onnx"))
    parser.add_argument("--data", default=str(DEBIAN_FOLDER))
    parser.add_argument("--only", choices=("explore", "overhead", "scale", "picks", "connectivity", "page"))
    asked = parser.parse_args()
    parts = {
        "explore": lambda: explored(asked.model, asked.data),
        "overhead": lambda: note("overhead", asdict(overhead(asked.model, asked.data))),
        "scale": lambda: note("scale", scale()),
        "picks": lambda: note("picks", picks(asked.model)),
        "connectivity": lambda: note("connectivity", measured(read_results(TABLE))),
        "page": page,
    }
    if not asked.model.exists():
        _train(asked.model, asked.data)
    for name in parts if asked.only is None else (asked.only,):
        parts[name]()


def _train(path: Path, data: str) -> None:
    """ResNet-20 of the accuracy study, trained for three epochs."""
    from models.export_torch import TorchExport, export
    from onnxprune.torch import Recipe, train
    from tests.benchmarks.accuracy_networks import build

    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder) / "start.onnx"
        export(build("resnet20", 0).eval(), TorchExport("torchscript", 17, keep_batch_norm=True), start)
        samples = replace(read_data(f"{data}{SCALING}", onnxprune.load(start)), test=None)
        train(start, samples, Recipe(epochs=3, lr=1e-2)).model.save(path)


def explored(model: Path, data: str) -> Results:
    """The runs of the study, one after the other in this process."""

    def tell(progress: Any) -> None:
        run = progress.last
        said = "" if run is None else f"{run.label}: {run.accuracy} in {run.seconds:.1f} s {run.message}"
        print(progress.recorded, progress.total, said, flush=True)

    how = Exploration(rounds=ROUNDS, progress=tell)
    return explore(model, f"{data}{SCALING}&limit={IMAGES}", TABLE, GRID, how=how)


@dataclass(frozen=True)
class Overhead:
    """Processor seconds of the same runs: written out by hand, and by ``explore``."""

    runs: int
    bare: float
    explored: float

    @property
    def share(self) -> float:
        """What exploring adds."""
        return self.explored / self.bare - 1


def overhead(model: Path, data: str, repeat: int = 3) -> Overhead:
    """Six short runs, in turns; medians of processor time, of which other processes on the machine take none."""
    spec = f"{data}{SCALING}&limit=3000"
    grid = replace(GRID, reduce=(0.3, 0.5), seeds=(0,))
    bare, recorded = [], []
    for _ in range(repeat):
        bare.append(_clocked(lambda: _by_hand(model, spec, grid)))
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "r.sqlite"
            recorded.append(_clocked(lambda table=table: explore(model, spec, table, grid, how=_how())))
        print("bare", bare[-1], "explored", recorded[-1], flush=True)
    return Overhead(len(grid.settings()), float(np.median(bare)), float(np.median(recorded)))


def _how() -> Exploration:
    from onnxprune.exploration.subject import _opened

    _opened.cache_clear()  # As in a new process.
    return Exploration(rounds=ROUNDS)


def _clocked(work: Any) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def _by_hand(model: Path, spec: str, grid: Grid) -> list[dict[str, Any]]:
    """What a script would do: prune, train, evaluate and measure, and write nothing down."""
    from onnxprune.ir.session import random_inputs
    from onnxprune.torch import Recipe, train

    source = onnxprune.load(model)
    data: Data = read_data(spec, source)
    assert data.test is not None
    analysis = onnxprune.analyze(source)
    engine, inputs = Engine(), random_inputs(source, analysis.shapes.binding, 0)
    found = [_measured(source, model, data, analysis, engine, inputs)]
    for setting in grid.settings():
        pruned = onnxprune.compress(source, **{k: v for k, v in setting.given().items() if k != "then"}).model
        trained = train(pruned, replace(data, test=None), Recipe(**dict(RECIPE), seed=setting.seed)).model
        found.append(_measured(trained, model, data, onnxprune.analyze(trained), engine, inputs))
    return found


def _measured(trained: Any, original: Path, data: Data, analysis: Any, engine: Engine, inputs: Any) -> dict[str, Any]:
    assert data.test is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        trained.save(path)
        sessions = [engine.session(original), engine.session(path)]
        seconds = sample([lambda s=s: s.run(None, inputs) for s in sessions], ROUNDS).min(axis=0)
        score = evaluate(trained, data.test, threads=1)
        return {**analysis.totals, "accuracy": score.accuracy, "latency": seconds, "size": path.stat().st_size}


def scale() -> dict[str, float]:
    """Processor seconds to load, weigh and plot ten thousand runs."""
    rng = np.random.default_rng(0)
    about, plan = read_results(TABLE).about, next(iter(read_results(TABLE).plans()))[1]
    modes = ("params", "flops", "memory")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "many.sqlite"
        with Store.open(table, about) as store:
            store.set_original(Figures(0.9, 1e5, 1e6, 1e6, 1e5, 1e6, 1e-3, 1.0), about.engine)
            store._connection.execute("PRAGMA synchronous = OFF")  # Made up: it need not survive anything.
            for number, values in enumerate(rng.random((MANY, 6)).tolist()):
                figures = dict(zip(("accuracy", "params", "flops", "memory", "size", "latency"), values, strict=True))
                run = Run(**figures, key=str(number), mode=modes[number % 3], reduce=values[0], seed=number)
                store.add(run, plan)
        begin = time.process_time()
        results = read_results(table)
        loaded = time.process_time()
        results.pareto(["flops"])
        results.pareto(["params", "flops", "memory", "latency", "size"])
        weighed = time.process_time()
        _plot(results, Path(folder) / "many.png")
        plotted = time.process_time()
        size = table.stat().st_size
    return {"load": loaded - begin, "pareto": weighed - loaded, "plot": plotted - weighed, "bytes": float(size)}


ASKED: dict[str, Limits] = {
    "--max-flops 1M": Limits(max_flops=1e6),
    "--max-params 10k": Limits(max_params=10e3),
    "--max-memory 150k": Limits(max_memory=150e3),
    "--min-accuracy 0.89": Limits(min_accuracy=0.89),
    "--max-size 80k --max-flops 600k": Limits(max_size=80e3, max_flops=600e3),
    "--max-params 1k": Limits(max_params=1e3),
}


def picks(model: Path) -> list[dict[str, Any]]:
    """Models picked by limits, and what the written files turned out to be."""
    results, found = read_results(TABLE), []
    for words, limits in ASKED.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "picked.onnx"
            try:
                picked = pick(results, limits, out, model=model, rounds=ROUNDS)
            except onnxprune.BudgetError as error:
                found.append({"asked": words, "refused": str(error)})
                continue
            found.append({"asked": words, **_told(picked, out, results)})
            print(found[-1], flush=True)
    return found


def _told(picked: Picked, out: Path, results: Results) -> dict[str, Any]:
    """The pick as recorded, and as counted by other means than those that recorded it."""
    import onnx
    import onnxruntime as ort

    data = read_data(results.about.data, onnxprune.load(out))
    assert data.test is not None
    session = ort.InferenceSession(out)
    name = session.get_inputs()[0].name
    right = sum(
        int((session.run(None, {name: batch.inputs[name]})[0].argmax(1) == batch.targets).sum())
        for batch in data.test.iterate(500)
    )
    weights = onnx.load(out).graph.initializer
    return {
        "run": picked.run.label,
        "recorded": asdict(picked.run),
        "checked": asdict(picked.checked),
        "counted": {
            "accuracy": right / len(data.test),
            "elements": sum(int(np.prod(w.dims)) for w in weights if w.data_type == onnx.TensorProto.FLOAT),
            "size": out.stat().st_size,
        },
    }


def note(name: str, value: Any) -> None:
    """Keep a figure for the page."""
    known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    FIGURES.write_text(json.dumps({**known, name: value}, indent=1) + "\n")
    print(name, value, flush=True)


_PANELS = {
    "flops": ("MACs (millions)", 1e-6),
    "params": ("parameters (thousands)", 1e-3),
    "memory": ("memory (kB)", 1e-3),
    "latency": ("latency (ms)", 1e3),
}
"""Titles, and what values are multiplied by."""
_COLOURS = {"params": "#0072B2", "flops": "#D55E00", "memory": "#009E73"}  # Okabe and Ito's: told apart by all.
_MARKS = {"params": "o", "flops": "s", "memory": "^"}


def _plot(results: Results, path: Path) -> None:
    """Accuracy against what models take, with the runs that no other beats joined."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "onnxprune"  # Equal runs give equal files.
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(_PANELS), figsize=(13, 3.4), sharey=True, layout="constrained")
    for axis, (resource, (title, factor)) in zip(axes, _PANELS.items(), strict=True):
        for mode, colour in _COLOURS.items():
            runs = [run for run in results.done if run.mode == mode]
            x = [factor * (getattr(run, resource) or np.nan) for run in runs]
            y = [100 * (run.accuracy or np.nan) for run in runs]
            axis.scatter(x, y, s=22, c=colour, marker=_MARKS[mode], label=f"by {mode}", alpha=0.8, linewidths=0)
        front = results.pareto([resource])
        axis.plot(
            [factor * (getattr(run, resource) or np.nan) for run in front],
            [100 * (run.accuracy or np.nan) for run in front],
            color="#555555",
            linewidth=1,
            zorder=0,
            label="not beaten",
        )
        if results.original is not None:
            at = factor * (getattr(results.original, resource) or np.nan)
            axis.scatter(
                [at], [100 * (results.original.accuracy or np.nan)], marker="*", s=90, c="black", label="original"
            )
        axis.set_xlabel(title)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("accuracy (%)")
    axes[0].legend(fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def page() -> None:
    """The page, made of table and figures."""
    from tests.benchmarks.exploration_page import write

    results = read_results(TABLE)
    _plot(results, PICTURE)
    write(PAGE, results, json.loads(FIGURES.read_text()) if FIGURES.exists() else {})


if __name__ == "__main__":
    main()
