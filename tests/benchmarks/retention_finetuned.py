"""What one epoch of fine-tuning makes of networks pruned in different ways: does the better start still tell?

    python -m tests.benchmarks.retention_finetuned --networks FOLDER [--data FOLDER]

FOLDER holds the trained networks of the retention study, with BatchNormalization: NAME_bn.onnx. Every result is one
row of docs/retention_finetuned.csv, written as soon as it is there; ``tests.benchmarks.retention`` writes the page.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import onnxprune
from models.data import DEBIAN_FOLDER
from onnxprune.data import Data, read_data
from onnxprune.data.evaluation import evaluate
from onnxprune.ir.model import Model
from onnxprune.torch import Recipe, train

ROWS = Path(__file__).parents[2] / "docs" / "retention_finetuned.csv"
NETWORKS = ("resnet20", "mobilenetv2", "vgg16")
BUDGETS = (0.5, 0.7)
WAYS: dict[str, dict[str, Any]] = {
    "l2 uniform": {"criterion": "l2", "allocation": "uniform"},
    "l2 uniform + refit": {"criterion": "l2", "allocation": "uniform", "compensate": "refit"},
    "refit global + refit": {"criterion": "refit", "allocation": "global", "compensate": "refit"},
}
RATE = 1e-3
SCALING = "?mean=0.286&std=0.353"
COLUMNS = ("network", "way", "reduce", "whole", "pruned", "tuned")


def rows() -> list[dict[str, str]]:
    """The rows so far: accuracies of the unpruned network, right after pruning, and after one epoch."""
    if not ROWS.exists():
        return []
    with ROWS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(network: Path, name: str, way: str, reduce: float, folder: str) -> None:
    """One row, unless it is there."""
    if any((r["network"], r["way"], float(r["reduce"])) == (name, way, reduce) for r in rows()):
        return
    whole = onnxprune.load(network)
    data = read_data(f"{folder}{SCALING}", whole)
    options = dict(WAYS[way])
    if "compensate" in options or options["criterion"] != "l2":
        options["calibration"] = read_data(f"{folder}{SCALING}&limit=256", whole).train
    pruned = onnxprune.compress(whole, mode="flops", reduce=reduce, **options).model
    recipe = Recipe(epochs=1, lr=RATE, start="fine-tune")
    tuned = train(pruned, Data(data.train, None, data.classes, data.digest), recipe, device="cpu").model
    accuracies = [_accuracy(model, data) for model in (whole, pruned, tuned)]
    is_new = not ROWS.exists()
    with ROWS.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerow([name, way, reduce, *(f"{a:.4f}" for a in accuracies)])


def _accuracy(model: Model, data: Data) -> float:
    assert data.test is not None
    return evaluate(model, data.test, threads=1).accuracy or 0.0


def section() -> str:
    """The rows as a section of the page; empty if there are none."""
    found = rows()
    if not found:
        return ""
    lines = [
        "",
        "## After one epoch of fine-tuning",
        "",
        f"All 60,000 training images once, AdamW, the rate falling from {RATE:g} as a cosine; one seed, accuracy on",
        "all 10,000 test images. Written by `python -m tests.benchmarks.retention_finetuned`.",
        "",
        "| network | MACs removed | pruned by | unpruned | right after pruning | after one epoch |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for row in found:
        whole, pruned, tuned = (f"{float(row[name]):.2%}" for name in ("whole", "pruned", "tuned"))
        lines.append(f"| {row['network']} | {float(row['reduce']):.0%} | {row['way']} | {whole} | {pruned} | {tuned} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--data", default=str(DEBIAN_FOLDER))
    arguments = parser.parse_args()
    for reduce in BUDGETS:
        for name in NETWORKS:
            for way in WAYS:
                run(arguments.networks / f"{name}_bn.onnx", name, way, reduce, arguments.data)


if __name__ == "__main__":
    main()
