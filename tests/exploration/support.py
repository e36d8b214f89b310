"""Small explorations: a tiny model, data for it, and runs made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.exploration import About, Figures, Run
from onnxprune.exploration.exploring import Exploration
from onnxprune.exploration.store import Store
from tests.helpers import GraphBuilder

QUICK = Exploration(rounds=None)
"""No latencies: what is tested then is not the clock."""
ABOUT = About("m.onnx", "digest of m", "d.npz", "digest of d", "accuracy", {"threads": 1}, {}, "0.1.0")


def tiny_model(folder: Path, seed: int = 0, name: str = "model.onnx") -> Path:
    """A classifier of 1 × 8 × 8 images into 4 classes: two convolutions and a dense layer."""
    graph = GraphBuilder(seed=seed)
    x = graph.input("x", ["N", 1, 8, 8])
    a = graph.op("Relu", graph.op("Conv", x, graph.weight(12, 1, 3, 3), graph.vector(12), pads=[1, 1, 1, 1]))
    b = graph.op("Relu", graph.op("Conv", a, graph.weight(16, 12, 3, 3), graph.vector(16), strides=[2, 2]))
    pooled = graph.op("Flatten", graph.op("GlobalAveragePool", b))
    y = graph.op("Gemm", pooled, graph.weight(16, 4), graph.vector(4))
    graph.output(y, ["N", 4])
    path = folder / name
    onnx.save(graph.model(), path)
    return path


def tiny_data(folder: Path, *, labelled: bool = True, seed: int = 0, name: str = "data.npz") -> Path:
    """40 training samples, and 30 to judge with."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, Any] = {f"x_{part}": rng.standard_normal((n, 1, 8, 8)).astype(np.float32) for part, n in
                              (("train", 40), ("test", 30))}  # fmt: skip
    if labelled:
        arrays.update(y_train=rng.integers(0, 4, 40), y_test=rng.integers(0, 4, 30))
    path = folder / name
    np.savez(path, **arrays)
    return path


def made_up(number: int, **figures: Any) -> Run:
    """A finished run with these figures and others that nobody looks at."""
    values: dict[str, Any] = {"accuracy": 0.5, "params": 100.0, "flops": 1000.0, "memory": 10.0, "size": 50.0}
    values.update(latency=0.001, latency_ratio=0.5, mode="flops", reduce=0.5, allocation="complexity", criterion="l2")
    return Run(**{**values, "key": f"run{number}", "seed": number, "then": "nothing", **figures})


def recorded(path: Path, *runs: Run, about: About = ABOUT, plan: str | None = None) -> Path:
    """A table of these runs."""
    with Store.open(path, about) as store:
        store.set_original(Figures(accuracy=0.9, params=200.0, latency=0.002, latency_ratio=1.0), about.engine)
        for run in runs:
            store.add(run, plan)
    return path
