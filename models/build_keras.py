"""Trains the Keras networks and exports them with Keras' own ``export(format="onnx")``.

Keras exports through its back end, so the back end decides what the graph looks like: TensorFlow's goes
through tf2onnx, PyTorch's is a trace by PyTorch. Run it once for each, from the top of the checkout:
``KERAS_BACKEND=tensorflow python -m models.build_keras``, then with ``KERAS_BACKEND=torch``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,import-untyped,unused-ignore]

from models import networks_keras
from models.data import DEBIAN_FOLDER, Split, load_sample, load_split
from models.index import FOLDER, measure, update_index
from models.tasks import CLASSIFY, SEGMENT, Task, with_channel

BATCH = 128
RATE = 4e-3
SEED = 0


@dataclass(frozen=True)
class Reference:
    """A network, how long it is trained on how many images, and the back ends that export it."""

    name: str
    build: Callable[[], Any]
    epochs: int
    images: int = 60_000
    task: Task = CLASSIFY
    backends: tuple[str, ...] = ("tensorflow",)


REFERENCES = (
    Reference("vgg", networks_keras.vgg, epochs=2, backends=("tensorflow", "torch")),
    Reference("depthwise", networks_keras.depthwise, epochs=2),
    Reference("unet", networks_keras.unet, epochs=1, images=20_000, task=SEGMENT),
)


def train(reference: Reference, split: Split) -> Any:
    """Build a network and train it with Adam and a cosine learning rate."""
    keras.utils.set_random_seed(SEED)
    network = reference.build()
    inputs, targets = reference.task.prepare(Split(split.images[: reference.images], split.labels[: reference.images]))
    steps = reference.epochs * (len(inputs) // BATCH)
    if reference.task is CLASSIFY:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        loss, targets = keras.losses.BinaryCrossentropy(from_logits=True), targets[..., None]
    network.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps)), loss)
    network.fit(with_channel(inputs, "NHWC"), targets, BATCH, reference.epochs, verbose=2)
    return network


def build(reference: Reference, training: Split, test: Split) -> None:
    """Train one network, write its file and its entry of the index."""
    start = time.perf_counter()
    network = train(reference, training)
    print(f"{reference.name}: trained in {time.perf_counter() - start:.0f} s")
    backend = keras.backend.backend()
    file = FOLDER / f"{reference.name}_keras_{backend}.onnx"
    network.export(file, format="onnx", verbose=False)
    exporter = f"keras {keras.__version__} {backend}"
    entry = measure(file, reference.name, exporter, reference.task, "NHWC", load_sample(), test)
    print(f"  {file.name}: {entry.metric} {entry.test_score}, {entry.bytes} bytes")
    update_index([entry])


def main() -> None:
    """Build the references named on the command line, or all, that this back end exports."""
    backend = keras.backend.backend()
    here = {reference.name: reference for reference in REFERENCES if backend in reference.backends}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to build: {', '.join(here)}")
    parser.add_argument("--data", type=Path, default=DEBIAN_FOLDER, help="folder of Fashion-MNIST")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(here))
    if unknown:
        parser.error(f"back end {backend} has no {', '.join(unknown)}; it has {', '.join(here)}")

    training, test = load_split("train", arguments.data), load_split("t10k", arguments.data)
    for name in arguments.names or here:
        build(here[name], training, test)


if __name__ == "__main__":
    main()
