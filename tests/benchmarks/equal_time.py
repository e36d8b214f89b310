"""Regions, ranks and channels against channels alone: points of accuracy at equal time, and at equal products.

The reference models of this repository, 256 training images of Fashion-MNIST without labels, no training; accuracy is
that of the 10,000 test images, on which nothing was chosen. Each run is a process of its own; times are those of pairs
in onnxruntime with one thread, so run it on an idle machine. A row a run is added to ``docs/equal_time.csv``; what is
there is not run again. The table of ``docs/regions.md`` is written from it.

    python -m tests.benchmarks.equal_time [--only residual,depthwise,vgg] [--data FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from models.data import DEBIAN_FOLDER, load_split
from onnxprune.data.fidelity import outputs_of
from onnxprune.data.samples import Samples
from tests.benchmarks.rows import add_row, put_table, read_rows

ROWS, PAGE = Path("docs/equal_time.csv"), Path("docs/regions.md")
MODELS = Path(__file__).parents[2] / "models"
LEVERS = ("channels", "channels,regions", "channels,regions,ranks")
BUDGETS = ("latency", "flops")
SAMPLES = 256


def _accuracy(model: onnxprune.Model, images: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    scores = next(iter(outputs_of(model, Samples({model.graph.input[0].name: images}, None, 250), "a model").values()))
    return float((scores.argmax(axis=1) == labels).mean())


def _pruned(name: str, mode: str, levers: str, data: Path, out: Path) -> dict[str, Any]:
    """What the command line makes of a model, and says of it."""
    command = [sys.executable, "-m", "onnxprune", "prune", MODELS / f"{name}_torchscript.onnx", "-o", out, "--json"]
    command += ["--mode", mode, "--reduce", "0.5", "--levers", levers, "--calibrate", data, "--no-bench"]
    command += ["--calibration-samples", str(SAMPLES)]
    done = subprocess.run([str(word) for word in command], capture_output=True, encoding="utf-8", check=False)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER)
    parser.add_argument("--only", default="residual,depthwise,vgg")
    given = parser.parse_args()
    test = load_split("t10k", given.data)
    images = (test.images[:, None] / 255).astype(np.float32)
    done = {(row["model"], row["halved"], row["levers"]) for row in read_rows(ROWS)}
    for name, mode, levers in product(given.only.split(","), BUDGETS, LEVERS):
        if (name, mode, levers) in done:
            continue
        model = onnxprune.load(MODELS / f"{name}_torchscript.onnx")
        row = {
            "model": name,
            "halved": mode,
            "levers": levers,
            "nodes": "",
            "macs": "",
            "time": "",
            "lost": "",
            "s": "",
        }
        with tempfile.TemporaryDirectory() as folder:
            out, begin = Path(folder) / "out.onnx", time.monotonic()
            told = _pruned(name, mode, levers, given.data, out)
            row["s"] = f"{time.monotonic() - begin:.0f}"
            if out.exists():
                made = onnxprune.load(out)
                before, after = (_accuracy(m, images, test.labels) for m in (model, made))
                share = onnxprune.bench(model, made, memory=False).subjects[1].ratio.median
                macs = told["after"]["flops"] / told["before"]["flops"]
                row |= {"nodes": f"{len(model.graph.node)} → {len(made.graph.node)}", "macs": f"{macs:.2f}"}
                row |= {"time": f"{share:.2f}", "lost": f"{100 * (before - after):.2f}"}
            else:
                row["lost"] = "not reached"
                print(told["error"]["message"])
        add_row(ROWS, row)
        print(row, flush=True)
    rows = [list(row.values()) for row in read_rows(ROWS)]
    put_table(PAGE, "equal time", ["model", "halved", "levers", "nodes", "MACs left", "time", "points lost", "s"], rows)


if __name__ == "__main__":
    main()
