"""What gates are worth: the accuracy study's ResNet-20 with 70 % of its MACs removed, learnt and at initialisation.

    python -m tests.benchmarks.gates [--data FOLDER] [--seeds 2]

Each result is one row of docs/gates.csv, written as soon as it is there; what is there is not run again. Nothing is
told to the methods but the budget: `complexity` and `uniform` prune at initialisation and train for one epoch, or for
two; gates learn for one epoch, and what is left is trained for one more.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch

import onnxprune
from models.data import DEBIAN_FOLDER
from models.export_torch import TorchExport, export
from onnxprune.data import Data, read_data
from onnxprune.data.evaluation import evaluate
from onnxprune.ir.model import Model
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.pruning.gating import learn_gates
from onnxprune.pruning.options import PlanOptions
from onnxprune.torch import Recipe, train
from tests.benchmarks.accuracy import DOCS, RATES, SCALING
from tests.benchmarks.accuracy_networks import build
from tests.benchmarks.rows import add_row

ROWS = DOCS / "gates.csv"
NETWORK, REDUCE = "resnet20", 0.7
METHODS = ("complexity", "channels", "channels,branches", "uniform")


@dataclass(frozen=True)
class Row:
    """A training: how it was pruned, epochs in all, seed; accuracy (0 to 1), costs, and processor seconds."""

    method: str
    epochs: int
    seed: int
    accuracy: float = float("nan")
    flops: float = float("nan")
    params: float = float("nan")
    branches: int = 0
    seconds: float = float("nan")


def cases(seeds: int) -> Iterator[Row]:
    """What is to be run."""
    for seed in range(seeds):
        for method in METHODS:
            learnt = method.startswith("channels")
            yield from (Row(method, epochs, seed) for epochs in ((2,) if learnt else (1, 2)))


def exported(seed: int, work: Path) -> Model:
    """The network with fresh weights."""
    file = work / f"{NETWORK}-{seed}.onnx"
    if not file.exists():
        export(build(NETWORK, seed).eval(), TorchExport("torchscript", 17, keep_batch_norm=True), file)
    return onnxprune.load(file)


def run(case: Row, data: Data, work: Path) -> Row:
    """One row."""
    model = exported(case.seed, work)
    learning = Data(data.train, None, data.classes, data.digest)
    recipe = Recipe(epochs=case.epochs, lr=RATES[NETWORK], start="from-scratch", seed=case.seed)
    begin, gone = time.process_time(), 0
    budget = {"mode": "flops", "reduce": REDUCE, "round_to": 1, "seed": case.seed}
    if case.method.startswith("channels"):
        half = Recipe(epochs=case.epochs // 2, lr=RATES[NETWORK], start="from-scratch", seed=case.seed)
        options = PlanOptions(**budget)
        found = learn_gates(model, learning, options, half, gates=case.method.split(","), device="cpu")
        result, gone = found.model, len(found.compression.plan.replaced)
    else:
        small = onnxprune.compress(model, allocation=case.method, criterion="random", **budget).model
        result = train(small, learning, recipe, device="cpu").model
    seconds = time.process_time() - begin
    final: Model = FoldBatchnorm()(result).model
    assert data.test is not None
    totals = onnxprune.analyze(final).totals
    accuracy = evaluate(final, data.test, threads=1).accuracy or 0.0
    return Row(case.method, case.epochs, case.seed, accuracy, totals["flops"], totals["params"], gone, seconds)


def read_rows() -> list[Row]:
    """The rows of the table so far."""
    if not ROWS.exists():
        return []
    kinds = {f.name: {"int": int, "float": float, "str": str}[str(f.type)] for f in fields(Row)}
    with ROWS.open(newline="", encoding="utf-8") as file:
        return [Row(**{name: kinds[name](value) for name, value in entry.items()}) for entry in csv.DictReader(file)]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(DEBIAN_FOLDER), help="folder of Fashion-MNIST")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "onnxprune-gates")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(exist_ok=True)
    done = {(row.method, row.epochs, row.seed) for row in read_rows()}
    data: Data | None = None
    for case in cases(arguments.seeds):
        if (case.method, case.epochs, case.seed) in done:
            continue
        data = data or read_data(f"{arguments.data}{SCALING}", exported(case.seed, arguments.work))
        row = run(case, data, arguments.work)
        add_row(ROWS, {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})
        print(row, flush=True)


if __name__ == "__main__":
    main()
