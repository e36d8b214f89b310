"""Trains the PyTorch networks and exports each of them in several ways.

From the top of the checkout: ``python -m models.build_torch`` for all, or name some: ``... residual unet``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from models.data import DEBIAN_FOLDER, Split, load_sample, load_split, write_sample
from models.export_torch import TorchExport, export
from models.index import FOLDER, measure, update_index
from models.networks_torch import Dense, Depthwise, Residual, UNet, Vgg
from models.tasks import CLASSIFY, SEGMENT, Task
from models.train_torch import Recipe, train


@dataclass(frozen=True)
class Reference:
    """A network, how it is trained and how it is exported."""

    name: str
    build: Callable[[], nn.Module]
    recipe: Recipe
    exports: tuple[TorchExport, ...]
    task: Task = CLASSIFY


REFERENCES = (
    Reference(
        "residual",
        Residual,
        Recipe(epochs=3),
        (TorchExport("torchscript", 13), TorchExport("dynamo", 18)),
    ),
    Reference(
        "depthwise",
        Depthwise,
        Recipe(epochs=2),
        (TorchExport("torchscript", 17, keep_batch_norm=True), TorchExport("dynamo", 20)),
    ),
    Reference(
        "dense",
        Dense,
        Recipe(epochs=2),
        (TorchExport("torchscript", 11, dynamic_batch=False), TorchExport("dynamo", 18, dynamic_batch=False)),
    ),
    Reference(
        "vgg",
        Vgg,
        Recipe(epochs=3, rate=3e-3),
        (TorchExport("torchscript", 17), TorchExport("dynamo", 23)),
    ),
    Reference(
        "unet",
        UNet,
        Recipe(epochs=1, images=20_000),
        (TorchExport("torchscript", 16, dynamic_batch=False), TorchExport("dynamo", 18)),
        SEGMENT,
    ),
)


def build(reference: Reference, training: Split, test: Split) -> None:
    """Train one network, write its files and their entries of the index."""
    start = time.perf_counter()
    network = train(reference.build, reference.task, training, reference.recipe)
    print(f"{reference.name}: trained in {time.perf_counter() - start:.0f} s")
    sample = load_sample()
    entries = []
    for how in reference.exports:
        file = FOLDER / f"{reference.name}_{how.exporter}.onnx"
        export(network, how, file)
        exporter = f"torch {torch.__version__.split('+')[0]} {how.exporter}"
        entries.append(measure(file, reference.name, exporter, reference.task, "NCHW", sample, test))
        print(f"  {file.name}: {reference.task.metric} {entries[-1].test_score}, {entries[-1].bytes} bytes")
    update_index(entries)


def main() -> None:
    """Build the references named on the command line, or all."""
    names = [reference.name for reference in REFERENCES]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to build: {', '.join(names)}")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of Fashion-MNIST")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names))
    if unknown:
        parser.error(f"no such network: {', '.join(unknown)}; there are {', '.join(names)}")

    torch.set_num_threads(1)  # sums in the same order everywhere, so that a build can be repeated
    torch.use_deterministic_algorithms(True)
    training, test = load_split("train", arguments.data), load_split("t10k", arguments.data)
    write_sample(test)
    for reference in REFERENCES:
        if reference.name in (arguments.names or names):
            build(reference, training, test)


if __name__ == "__main__":
    main()
