"""Points of accuracy that the reference models of this repository lose right after pruning, without any training.

Calibration is with training images of Fashion-MNIST, without labels; accuracy is that of 5,000 test images, on which
nothing was chosen. A row a run is added to ``docs/retention_reference.csv``; what is there is not run again. The table
of ``docs/recovery.md`` is written from it.

    python -m tests.benchmarks.retention_reference [--data FOLDER] [--only residual,depthwise,vgg] [--samples 256,512]
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import onnxprune
from models.data import DEBIAN_FOLDER, load_split
from onnxprune.data.fidelity import outputs_of
from onnxprune.data.samples import Samples
from tests.benchmarks.rows import add_row, put_table, read_rows

ROWS, PAGE = Path("docs/retention_reference.csv"), Path("docs/recovery.md")
MODELS = Path(__file__).parents[2] / "models"
BUDGETS = (0.3, 0.5, 0.7)
TEST = 5000


def _accuracy(model: onnxprune.Model, images: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    scores = next(iter(outputs_of(model, Samples({model.graph.input[0].name: images}, None, 250), "a model").values()))
    return float((scores.argmax(axis=1) == labels).mean())


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER)
    parser.add_argument("--only", default="residual,depthwise,vgg")
    parser.add_argument("--samples", default="256,512")
    given = parser.parse_args()
    test, train = load_split("t10k", given.data), load_split("train", given.data)
    images, labels = (test.images[:TEST, None] / 255).astype(np.float32), test.labels[:TEST]
    order = np.random.default_rng(0).permutation(len(train.images))
    done = {(row["model"], row["samples"], row["reduce"]) for row in read_rows(ROWS)}
    for name, count, reduce in product(given.only.split(","), map(int, given.samples.split(",")), BUDGETS):
        if (name, str(count), str(reduce)) in done:
            continue
        model = onnxprune.load(MODELS / f"{name}_torchscript.onnx")
        fit = Samples(
            {model.graph.input[0].name: (train.images[order[:count], None] / 255).astype(np.float32)}, None, 32
        )
        made = onnxprune.compress(model, reduce=reduce, calibration=fit, round_to=1, certify=False)
        before, after = (_accuracy(m, images, labels) for m in (model, made.model))
        row = {
            "model": name,
            "samples": count,
            "reduce": reduce,
            "removed": f"{1 - made.plan.after['flops'] / made.plan.before['flops']:.3f}",
            "accuracy": f"{before:.4f}",
            "pruned": f"{after:.4f}",
            "lost": f"{100 * (before - after):.2f}",
        }
        add_row(ROWS, row)
        print(row, flush=True)
    known = {(row["model"], row["samples"], row["reduce"]): row["lost"] for row in read_rows(ROWS)}
    models, counts = (list(dict.fromkeys(key[place] for key in known)) for place in (0, 1))
    lost = {pair: ", ".join(known.get((*pair, str(b)), "?") for b in BUDGETS) for pair in product(models, counts)}
    rows = [[count, *(lost[name, count] for name in models)] for count in counts]
    put_table(PAGE, "reference models", ["calibration images", *models], rows)


if __name__ == "__main__":
    main()
