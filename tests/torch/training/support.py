"""Small models and samples that are learnt within a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from onnxprune.data import Batch, Data
from onnxprune.ir.model import Model
from tests.helpers import GraphBuilder

CLASSES = 4


@dataclass(frozen=True)
class Samples:
    """Samples in memory, shared among processes as the data modules do."""

    inputs: dict[str, NDArray[Any]]
    targets: NDArray[Any] | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def iterate(self, size: int, *, seed: int | None = None, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        order = order[rank::ranks]
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            targets = None if self.targets is None else self.targets[chosen]
            yield Batch({name: values[chosen] for name, values in self.inputs.items()}, targets)


def squares(count: int = 256, seed: int = 0, name: str = "x") -> Samples:
    """Noise (1, 8, 8) in which one quarter is brighter: the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    images = rng.normal(0, 0.5, (count, 1, 8, 8)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 1.0
    return Samples({name: images}, labels.astype(np.int64))


def data(count: int = 256, test: int = 64) -> Data:
    """Samples to learn from, and others."""
    return Data(squares(count), squares(test, seed=1), digest=f"squares {count} {test}")


def classifier(
    *, ending: str | None = None, norm: bool = False, dropout: bool = False, batch: int | str = "n", seed: int = 0
) -> Model:
    """Conv, ReLU, pooling, Flatten, Gemm: logits of four classes."""
    g = GraphBuilder(17, seed=seed)
    x = g.input("x", (batch, 1, 8, 8))
    h = g.op("Conv", x, g.weight(8, 1, 3, 3), g.vector(8), pads=[1, 1, 1, 1])
    if norm:
        h = g.op("BatchNormalization", h, *(g.vector(8) for _ in range(3)), g.vector(8, positive=True))
    h = g.op("MaxPool", g.op("Relu", h), kernel_shape=[2, 2], strides=[2, 2])
    h = g.op("Conv", h, g.weight(8, 8, 3, 3), g.vector(8), pads=[1, 1, 1, 1])
    h = g.op("MaxPool", g.op("Relu", h), kernel_shape=[2, 2], strides=[2, 2])
    h = g.op("Reshape", h, g.ints(batch, 32)) if isinstance(batch, int) else g.op("Flatten", h)
    if dropout:
        h = g.op("Dropout", h, g.constant(0.5, dtype=np.float32))
    y = g.op("Gemm", h, g.weight(CLASSES, 32), g.vector(CLASSES), transB=1)
    if ending is not None:
        y = g.op(ending, y, axis=1)
    g.output(y, (batch, CLASSES))
    return onnxprune.load(g.model())


def linear(outputs: int = 3, inputs: int = 5, ending: str | None = None) -> Model:
    """One Gemm."""
    g = GraphBuilder(17)
    y = g.op("Gemm", g.input("x", ("n", inputs)), g.weight(outputs, inputs), g.vector(outputs), transB=1)
    g.output(g.op(ending, y) if ending is not None else y, ("n", outputs))
    return onnxprune.load(g.model())


def weights(model: Model) -> dict[str, NDArray[Any]]:
    """The floating-point weights."""
    return {name: weight.array for name, weight in model.weights.items() if weight.dtype.kind == "f"}


def assert_equal_weights(one: Model, other: Model) -> None:
    """Equal to the bit."""
    found, wanted = weights(one), weights(other)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].tobytes() == values.tobytes(), name
