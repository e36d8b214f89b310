"""Accuracy in int8, and what the defaults of ``prune`` cost: ``python -m tests.benchmarks.integers --data FOLDER``.

The three trained networks of ``models/``, as they are and pruned by half of their MACs with a refit, each in floats and
with all layers in int8; ranges and refit from 256 training images without labels, judged on the 10,000 test images.
Then the seconds of ``prune`` without data, with its defaults and without what they add (the grid and the timing), in
turns. The section ``Accuracy`` of ``docs/quantization.md`` is written anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import onnxprune
from onnxprune.data.fidelity import outputs_of
from onnxprune.data.idx import read_idx
from onnxprune.data.samples import Samples
from onnxprune.ir.engine import Engine
from onnxprune.ir.model import Model
from onnxprune.latency.machine import processor
from onnxprune.pruning.quantization import quantizing
from onnxprune.pruning.quantization.calibrating import methods_of
from onnxprune.pruning.quantization.measuring import Judge
from onnxprune.pruning.quantization.options import QuantizeOptions
from onnxprune.pruning.quantization.selecting import Choice

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "quantization.md"
NETWORKS = ("dense", "depthwise", "residual")
HEADING = "## Accuracy\n"
_CALIBRATED, _JUDGED = 256, 64


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--timed", type=Path, nargs="*", default=[], help="models that pruning is timed with")
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    rows = {name: accuracies(name, options.data) for name in NETWORKS}
    times = {path.stem: seconds(path, options.pairs) for path in options.timed}
    text = PAGE.read_text(encoding="utf-8").partition(HEADING)[0]
    PAGE.write_text(text + HEADING + section(rows, times), encoding="utf-8")


def accuracies(name: str, data: Path) -> list[float]:
    """Per cent of right answers: as it is, in int8, pruned, pruned and in int8."""
    model = batched(onnxprune.load(ROOT / "models" / f"{name}_torchscript.onnx"))
    fit, judged = images(data, "train", _CALIBRATED + _JUDGED), images(data, "t10k")
    few, labels = fit.part(0, _CALIBRATED), read_idx(_file(data, "t10k-labels"))
    held = fit.part(_CALIBRATED, len(fit))
    pruned = onnxprune.compress(model, reduce=0.5, calibration=few).model
    found = [accuracy(one, judged, labels) for m in (model, pruned) for one in (m, in_integers(m, few, held))]
    print(name, found, flush=True)
    return found


def batched(model: Model) -> Model:
    """The model with batches of any size, which save time here."""
    draft = model.edit()
    for value in (*draft.graph.input, *draft.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return draft.finish()


def in_integers(model: Model, fit: Samples, held_out: Samples) -> Model:
    """All layers in int8, whether that is faster or not, as ``quantize`` would write them."""
    options = QuantizeOptions()
    shop, _, histograms = quantizing._begun(model, fit, held_out, options, Engine(), lambda _: nullcontext())
    nodes = frozenset((*shop.layers, *shop.others))
    choice = Choice(nodes, shop.write(nodes), 1.0)
    judge = Judge.of(model, held_out)
    return quantizing._brought_close(shop, choice, histograms, methods_of(options.method), fit, judge)[1].model


def accuracy(model: Model, samples: Samples, labels: NDArray[np.generic]) -> float:
    """Per cent of the samples whose largest output is the label."""
    (scores,) = outputs_of(model, samples, "the network").values()
    return 100 * float((scores.argmax(axis=1) == labels).mean())


def images(data: Path, part: str, count: int | None = None) -> Samples:
    """Images as the networks take them."""
    pixels = read_idx(_file(data, f"{part}-images"))[:count].astype(np.float32)[:, None] / 255
    return Samples({"image": pixels}, None, 100)


def seconds(path: Path, pairs: int) -> float:
    """The time of ``prune`` over that without the grid and without the timing, the median of pairs in turns."""
    ratios = []
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "onnxprune", "prune", str(path), "-o", f"{folder}/out.onnx", "--reduce", "0.5"]
        for _ in range(pairs):
            spent = []
            for words in ([], ["--round-to", "1", "--no-bench"]):
                begin = time.monotonic()
                subprocess.run([*command, "--force", *words], check=True, stdout=subprocess.DEVNULL)
                spent.append(time.monotonic() - begin)
            ratios.append(spent[0] / spent[1])
            print(path.stem, spent, flush=True)
    return median(ratios)


def section(rows: Mapping[str, Sequence[float]], times: Mapping[str, float]) -> str:
    """What stands below the heading."""
    lines = [
        "",
        "Written by `python -m tests.benchmarks.integers`. Per cent of right answers on the 10,000 test images of",
        f"Fashion-MNIST; ranges and refit from {_CALIBRATED} training images without labels, all layers in int8 (also",
        "where that is not faster, as in networks as small as these), pruned by half of the MACs.",
        "",
        "| network | float | int8 | lost | pruned | pruned, int8 | lost |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, (plain, whole, pruned, both) in rows.items():
        figures = (plain, whole, plain - whole, pruned, both, pruned - both)
        lines.append(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")
    if times:
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in times.items())
        lines += [
            "",
            "Seconds of `prune --reduce 0.5` without data over those with `--round-to 1 --no-bench`, which is what it",
            f"did before there was a grid (median of pairs in turns): {told}.",
        ]
    lines += ["", f"onnxruntime {version('onnxruntime')}, {processor()}, other programs beside.", ""]
    return "\n".join(lines)


def _file(data: Path, part: str) -> Path:
    return next(path for path in sorted(data.glob(f"{part}*")) if "ubyte" in path.name)


if __name__ == "__main__":
    main()
