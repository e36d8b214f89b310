"""Does connectivity predict accuracy? Rank correlations over the runs of the study, beside those of plain costs.

The plans are applied to the network with fresh weights: how it is connected does not depend on them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import onnxprune
from onnxprune.exploration import Results

MEASURES = {
    "params": "parameters",
    "flops": "MACs",
    "memory": "memory",
    "paths": "ways (log10)",
    "width": "narrowest place",
    "mean_depth": "mean depth",
    "depth": "depth",
}
SPACES = {"all runs": 1.0, "at most −70 %": 0.7}
"""Which runs, by the largest reduction."""
DRAWS = 10_000
Array = NDArray[np.float64]


def measured(results: Results) -> dict[str, Any]:
    """For every measure Spearman's and Kendall's correlation with the accuracy, with bootstrap intervals of 95 %."""
    runs = results.done
    columns: dict[str, list[float]] = {name: [] for name in MEASURES}
    model = _network()
    for run in runs:
        connected = onnxprune.analyze(onnxprune.apply(model, results.plan(run.key))).connectivity.to_dict()
        for name in MEASURES:
            columns[name].append(float(connected[name] if name in connected else getattr(run, name)))
    accuracy = np.array([run.accuracy for run in runs], dtype=np.float64)
    reduced = np.array([run.reduce for run in runs])
    values = {name: np.array(column) for name, column in columns.items()}
    found: dict[str, Any] = {"values": columns, "accuracy": accuracy.tolist(), "spaces": {}}
    for space, most in SPACES.items():
        here = reduced <= most
        found["spaces"][space] = _space({name: v[here] for name, v in values.items()}, accuracy[here])
    return found


def _network() -> onnxprune.Model:
    from models.export_torch import TorchExport, export
    from tests.benchmarks.accuracy_networks import build

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "start.onnx"
        export(build("resnet20", 0).eval(), TorchExport("torchscript", 17, keep_batch_norm=True), path)
        return onnxprune.load(path.read_bytes())


def _space(values: Mapping[str, Array], accuracy: Array) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(accuracy), len(accuracy)) for _ in range(DRAWS)]
    rows: dict[str, Any] = {"runs": len(accuracy)}
    for name, x in values.items():
        if np.ptp(x) < 1e-9:
            rows[name] = None  # the same in all runs
            continue
        rows[name] = {
            "spearman": _estimate(_spearman, x, accuracy, draws),
            "kendall": _estimate(_kendall, x, accuracy, draws[:1000]),
            "beyond": None
            if name in ("params", "flops")
            else _estimate(_beyond, x, accuracy, draws, values["flops"], values["params"]),
            "over_flops": _interval(
                [_spearman(x[d], accuracy[d]) - _spearman(values["flops"][d], accuracy[d]) for d in draws]
            ),
        }
    return rows


def _estimate(
    measure: Callable[..., float], x: Array, y: Array, draws: list[NDArray[np.int64]], *others: Array
) -> list[float]:
    """[of all runs, lower end, upper end]."""
    return [measure(x, y, *others), *_interval([measure(x[d], y[d], *(o[d] for o in others)) for d in draws])]


def _interval(drawn: list[float]) -> list[float]:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return [float(low), float(high)]


def _spearman(x: Array, y: Array) -> float:
    return _correlation(stats.rankdata(x), stats.rankdata(y))


def _kendall(x: Array, y: Array) -> float:
    return float(stats.kendalltau(x, y).statistic)


def _beyond(x: Array, y: Array, *others: Array) -> float:
    """Spearman's partial correlation: of what the ranks of other measures leave of both."""
    known = np.column_stack([np.ones(len(x)), *(stats.rankdata(o) for o in others)])
    left = [r - known @ np.linalg.lstsq(known, r, rcond=None)[0] for r in (stats.rankdata(x), stats.rankdata(y))]
    return _correlation(*left)


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    # What is left of a measure by itself is rounding.
    return float((a * b).sum()) / scale if scale > 1e-9 * len(a) else float("nan")
