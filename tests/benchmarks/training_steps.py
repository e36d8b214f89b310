"""What a training step costs, of the unpruned network and of pruned ones, in turn within one process.

    python -m tests.benchmarks.training_steps [--networks mobilenetv2] [--rounds 10]

Other load on a machine changes the time of a whole training by a fifth; here every way takes its turn in every round,
and the least of its rounds counts. Writes docs/training_steps.csv, of which the page of the accuracy study has a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch

from models.data import DEBIAN_FOLDER
from onnxprune.data import Batches, Data
from onnxprune.ir.model import Model
from onnxprune.torch import Recipe, train
from onnxprune.torch.training import Callback, Step, loop
from tests.benchmarks.accuracy import DOCS, RATES, Case, Study, pruned
from tests.benchmarks.rows import add_row

TABLE = DOCS / "training_steps.csv"
WAYS = {
    "unpruned": (("plain", "float32"), ("quick", "float32"), ("quick", "bfloat16")),
    "uniform": (("plain", "float32"), ("quick", "float32")),
    "complexity": (("plain", "float32"), ("quick", "float32"), ("quick", "bfloat16")),
    "complexity-mean": (("quick", "float32"),),
}
"""Kernels and precisions by method. A step of ``uniform`` is one of the conventional pipeline's fine-tuning."""
_STEPS, _SKIPPED = 31, 4


class _Clock(Callback):
    """Processor time of the steps after the first few, in seconds."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def stepped(self, step: Step) -> None:
        self._times.append(time.process_time())

    @property
    def mean(self) -> float:
        """Of one step."""
        return (self._times[-1] - self._times[_SKIPPED]) / (len(self._times) - 1 - _SKIPPED)


def _nothing() -> None:
    """Undo nothing."""


def step_time(model: Model, data: Data, recipe: Recipe, kernels: str) -> float:
    """Seconds of a step, by PyTorch's own kernels (``plain``) or as ``train`` does it (``quick``)."""
    clock = _Clock()
    plainly = mock.patch.object(loop, "quicken", return_value=_nothing)
    with plainly if kernels == "plain" else nullcontext():
        train(model, data, recipe, device="cpu", callbacks=[clock])
    return clock.mean


def ways(network: str, work: Path, seed: int) -> dict[tuple[str, str, str], Callable[[], float]]:
    """By method, kernels and precision: what measures it once."""
    study = Study(f"{DEBIAN_FOLDER}", work)
    start = study.exported(Case(network, "unpruned", seed=seed), keep_batch_norm=True)
    samples: Batches = study.samples(start, limit=_STEPS * 128).train
    data = Data(samples, None)
    found: dict[tuple[str, str, str], Callable[[], float]] = {}
    for method, asked in WAYS.items():
        case = Case(network, method, "flops", 0.5, seed)
        model = start if method == "unpruned" else pruned(start, case, "random")
        for kernels, precision in asked:
            recipe = Recipe(epochs=1, lr=RATES[network], start="from-scratch", seed=seed, precision=precision)  # type: ignore[arg-type]
            found[method, kernels, precision] = lambda m=model, r=recipe, k=kernels: step_time(m, data, r, k)
    return found


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="mobilenetv2")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "onnxprune-accuracy")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(exist_ok=True)
    TABLE.unlink(missing_ok=True)
    for network in arguments.networks.split(","):
        for seed in range(arguments.seeds):
            measured = ways(network, arguments.work, seed)
            times: dict[tuple[str, str, str], list[float]] = {way: [] for way in measured}
            for _ in range(arguments.rounds):
                for way, measure in measured.items():
                    times[way].append(measure())
            for (method, kernels, precision), found in times.items():
                row = {"network": network, "method": method, "kernels": kernels, "precision": precision, "seed": seed}
                middle = sorted(found)[len(found) // 2]
                add_row(TABLE, {**row, "seconds": f"{min(found):.6g}", "median": f"{middle:.6g}"})


if __name__ == "__main__":
    main()
