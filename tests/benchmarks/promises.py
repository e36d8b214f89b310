"""Are promises kept? ``python -m tests.benchmarks.promises --data FASHION-MNIST --work FOLDER``.

Each reference classifier is pruned to many widths, once, with 512 training images; what every candidate says of the
10,000 labelled test images is kept. Then hold-outs are drawn from these (with replacement: the 10,000 are the truth),
and on each the candidate is chosen as ``--max-loss`` does: ordered by what has changed on a fifth of the hold-out,
tested on the rest until the first fails. ``docs/promises.csv`` has a row for every network, promise and way to count.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from onnxprune.data import read_data
from onnxprune.data.bounds import Kind, Losses, fixed_sequence
from onnxprune.data.fidelity import answers_of
from onnxprune.data.losses import reference
from onnxprune.data.samples import collect
from onnxprune.data.tasks.classes import said_classes
from onnxprune.pruning.choosing import choose
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.criteria import default_registry
from onnxprune.pruning.options import PlanOptions
from onnxprune.pruning.promising import Remembered
from tests.benchmarks.rows import add_row, put_table

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "promises.csv"
NETWORKS = ("dense_dynamo", "depthwise_dynamo", "residual_dynamo", "vgg_dynamo", "vgg_keras_tensorflow")
PROMISES = (0.01, 0.02, 0.05)
CONFIDENCE, FIT, HOLD_OUTS = 0.95, 512, 100
SIZES = (2500, 10_000)
_WIDTHS = np.round(np.arange(0.05, 0.75, 0.05), 2)

_SUMMED = ("broken", "nothing kept", "MACs left", "MACs left, oracle")
FloatArray = NDArray[np.float64]


def main() -> None:
    """Evaluate, draw, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--work", type=Path, required=True, help="folder for what candidates say")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    TABLE.unlink(missing_ok=True)
    every: list[dict[str, object]] = []
    for network in NETWORKS:
        kept = options.work / f"{network}.npz"
        if not kept.exists():
            np.savez_compressed(kept, **evaluated(ROOT / "models" / f"{network}.onnx", str(options.data)))
        with np.load(kept) as found:
            for row in rows(network, dict(found)):
                add_row(TABLE, row)
                print(row, flush=True)
                every.append(row)
    table = summary(every)
    put_table(
        TABLE.with_suffix(".md"), "study", list(table[0]), [[str(cell) for cell in row.values()] for row in table]
    )


def evaluated(path: Path, data: str) -> dict[str, NDArray[Any]]:
    """Of every candidate: MACs left, and for all test images whether its answer changed, and what accuracy it lost."""
    model = onnxprune.load(path)
    fit = collect(data, model, FIT)
    read = read_data(data, model)
    assert read.test is not None
    test = collect(read.test, model, 10_000)
    labelled = reference(model, test)
    was = said_classes(labelled.before)
    analysis = onnxprune.analyze(model)
    options = PlanOptions(calibration=fit).decided()
    criterion = Remembered(default_registry().find(str(options.criterion)))
    macs, changed, lost = [], [], []
    for width in _WIDTHS:
        plan = choose(
            analysis, PlanOptions(calibration=fit, criterion=criterion, allocation="global", reduce=float(width))
        )
        result = compensate(onnxprune.apply(model, plan), model, plan, fit, method="refit").model
        macs.append(plan.after["flops"] / plan.before["flops"])
        found = said_classes(answers_of(result, test, "the result")[0])
        changed.append(was != found)
        lost.append((was == labelled.labels).astype(np.int8) - (found == labelled.labels))
    return {"macs": np.array(macs), "share": np.array(changed, np.int8), "paired": np.array(lost, np.int8)}


def rows(network: str, found: dict[str, NDArray[Any]]) -> list[dict[str, object]]:
    """How often promises are broken, what they reach, and what an oracle would that sees all labels."""
    made: list[dict[str, object]] = []
    for kind in ("share", "paired"):
        losses, truth = found[kind].astype(np.float64), found[kind].mean(axis=1)
        lost = found["paired"].mean(axis=1)
        for size in SIZES:
            for most in PROMISES:
                rng = np.random.default_rng(0)
                drawn = [rng.integers(0, losses.shape[1], size) for _ in range(HOLD_OUTS)]
                right = [chosen(losses[:, places], kind, most) for places in drawn]
                left = [found["macs"][i] if i is not None else 1.0 for i in right]
                oracle = min((m for m, loss in zip(found["macs"], truth, strict=True) if loss <= most), default=1.0)
                made.append(
                    {
                        "network": network,
                        "loss": {"share": "changed answers", "paired": "accuracy lost"}[kind],
                        "hold-out": size,
                        "promise": most,
                        "broken": _share(i is not None and truth[i] > most for i in right),
                        "accuracy broken": _share(i is not None and lost[i] > most for i in right),
                        "nothing kept": _share(i is None for i in right),
                        "MACs left": round(float(np.mean(left)), 3),
                        "MACs left, oracle": round(float(oracle), 3),
                    }
                )
    return made


def summary(every: list[dict[str, object]]) -> list[dict[str, object]]:
    """Over all networks: the means, and the worst of how often a promise was broken."""
    found = []
    for key in dict.fromkeys((row["loss"], row["hold-out"], row["promise"]) for row in every):
        same = [row for row in every if (row["loss"], row["hold-out"], row["promise"]) == key]
        mean = {name: float(np.mean([float(str(row[name])) for row in same])) for name in _SUMMED}
        worst = max(float(str(row["broken"])) for row in same)
        found.append(
            {
                "loss": key[0],
                "hold-out": f"{key[1]:,}",
                "promise": f"{100 * float(str(key[2])):g} %",
                "broken": f"{100 * mean['broken']:.1f} % (worst network {100 * worst:.0f} %)",
                "nothing kept": f"{100 * mean['nothing kept']:.0f} %",
                "MACs left": f"{100 * mean['MACs left']:.0f} %",
                "oracle": f"{100 * mean['MACs left, oracle']:.0f} %",
            }
        )
    return found


def chosen(losses: FloatArray, kind: Kind, most: float) -> int | None:
    """The candidate that ``--max-loss`` takes, by losses [candidates, samples] on a hold-out; None for the original."""
    cut = losses.shape[1] // 5
    order = np.argsort(np.abs(losses[:, :cut]).mean(axis=1), kind="stable")
    passed = fixed_sequence(order, lambda i: Losses(losses[i, cut:], kind, "").shows(most, CONFIDENCE))
    return int(max(passed)) if passed else None


def _share(found: Iterable[Any]) -> float:
    return round(float(np.mean([bool(one) for one in found])), 4)


if __name__ == "__main__":
    main()
