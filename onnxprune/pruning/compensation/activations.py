"""Layers behind which an activation is flat in places: there, what they give does not matter.

ReLU6 says the same of -1 and of -20. A fit of what goes into it spends its weights on values that nobody sees, mostly:
a channel that is rarely active varies most where it is off. What should come out is fitted instead, by majorisation
(as in Zhang and others, "Accelerating very deep convolutional networks", 2016, section 3.2): where the original is
flat, and the fit is flat on that side, too, its target is what it gives; where it is not, the target is the edge.
Then a fit is least squares as any other, with the same factorisation, and none makes the error behind larger but by
what the ridge holds back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.ir.graph import Graph
from onnxprune.ops import Registry, default_registry
from onnxprune.ops.layers import LinearLayer, affine_of
from onnxprune.pruning.compensation.gathering import Piece
from onnxprune.pruning.compensation.ridge import Moments, Refitting
from onnxprune.pruning.compensation.sums import only_reader

FloatArray = NDArray[np.float64]

#: More fits to new targets change little: of 1, 2, 4 and 10, the best on training images that nothing was fitted to.
_FITS = 3
#: Bytes of features and outputs that are kept between them; layers with more are fitted before the activation.
MOST_KEPT = 1 << 28
#: Rows that are looked at together.
_ROWS = 2048
#: A factor that is closer to 0 makes no edge.
_LEAST_GAIN = 1e-6


@dataclass(frozen=True)
class Bend:
    """Between which values each of a layer's outputs matters, [N]: ``low`` and ``high`` may be infinite."""

    low: FloatArray
    high: FloatArray

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values [..., N] as far as they can be told apart behind the activation."""
        found: NDArray[Any] = np.clip(values, self.low.astype(values.dtype), self.high.astype(values.dtype))
        return found

    def target(self, wanted: NDArray[Any], given: NDArray[Any]) -> NDArray[Any]:
        """What to give instead of ``given`` [..., N], so that what is wanted comes out: no more is asked than that."""
        low, high = self.low.astype(given.dtype), self.high.astype(given.dtype)
        found: NDArray[Any] = np.where(
            wanted <= low, np.minimum(given, low), np.where(wanted >= high, np.maximum(given, high), wanted)
        )
        return found


def bend_of(graph: Graph, layer: LinearLayer, registry: Registry | None = None) -> Bend | None:
    """Where the only reader of a layer's output is flat, perhaps behind a BatchNormalization; None if it is nowhere.

    Outputs of grouped layers have few features each, and are left to what is before the activation.
    """
    if layer.groups > 1:
        return None
    known = registry or default_registry()
    width = graph.shapes.extents[layer.output][layer.out_dim]
    gain, offset = np.ones(width), np.zeros(width)
    reader = only_reader(graph, layer.output)
    normalised = affine_of(reader, layer, registry)
    if reader is not None and normalised is not None:
        found = normalised.gain()
        if found is None or not normalised.held(normalised.shift, normalised.mean) or np.abs(found).min() < _LEAST_GAIN:
            return None
        weights = graph.model.weights
        shift, mean = (weights[reader.inputs[i]].array for i in (normalised.shift, normalised.mean))
        gain, offset = found, shift.astype(np.float64) - mean * found
        reader = only_reader(graph, reader.outputs[0])
    operator = None if reader is None else known.find(reader)
    edges = None if reader is None or operator is None else operator.varies(reader)
    if edges is None or len(gain) != width:
        return None
    ends = [(edge - offset) / gain for edge in edges]
    return Bend(np.minimum(*ends), np.maximum(*ends))


class Rows(Iterable[Piece]):
    """Pieces as they come, once; those that take ``most`` bytes are there afterwards, and none if they take more."""

    def __init__(self, parts: Iterable[Piece], most: int) -> None:
        self.kept: list[Piece] = []
        self._parts = parts
        self._most = most

    def __iter__(self) -> Iterator[Piece]:
        held = 0
        for part in self._parts:
            held += part.x.nbytes + part.y.nbytes
            if held <= self._most:
                self.kept.append(part)
            else:
                self.kept.clear()
            yield part


def bending_bytes(features: int, outputs: int) -> int:
    """An estimate of the memory that :func:`behind` takes with the moments of two parts, but without the rows."""
    return features * (24 * features + 112 * outputs) + _ROWS * (4 * features + 32 * outputs)


def behind(
    parts: Sequence[Piece],
    bend: Bend,
    moments: Moments,
    start: FloatArray,
    share: float,
    found: tuple[FloatArray, FloatArray],
) -> tuple[FloatArray, FloatArray] | None:
    """The matrix [1, K, N] and bias [1, N] that give the least error behind the activation, from a fit before it.

    None if what was ``found`` is as good.

    Args:
        parts: the rows.
        bend: where the activation is flat.
        moments: those of the rows.
        start: the weights that the ridge draws to.
        share: the ridge, as a share of the mean feature variance.
        found: the matrix and the bias of the fit to what goes into the activation.
    """
    fitting = Refitting.of(moments, start, share)
    best, least = None, np.inf
    matrix, bias = found
    for turn in range(_FITS + 1):
        error, product, mean = _towards(parts, bend, matrix, bias, fitting.mean)
        if error < least:
            best, least = (None if turn == 0 else (matrix, bias)), error
        if turn < _FITS:
            matrix, bias = fitting.solve(product / moments.count, mean / moments.count)
    return best


def _towards(
    parts: Sequence[Piece], bend: Bend, matrix: FloatArray, bias: FloatArray, centre: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """The squared error behind the activation, and of the targets the products with centred features, and the sum."""
    weights, added, middle = (array.astype(np.float32) for array in (matrix, bias[:, None], centre[:, None]))
    error, product, total = 0.0, np.zeros(matrix.shape), np.zeros(bias.shape)
    for x, y in _few_at_once(parts):
        given = x @ weights + added
        error += float(np.square(bend.cut(given) - bend.cut(y)).sum(dtype=np.float64))
        target = bend.target(y, given)
        product += (x - middle).transpose(0, 2, 1) @ target
        total += target.sum(axis=1, dtype=np.float64)
    return error, product, total


def _few_at_once(parts: Sequence[Piece]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Features and outputs, a few rows at a time."""
    for part in parts:
        for begin in range(0, part.x.shape[1], _ROWS):
            some = slice(begin, begin + _ROWS)
            yield part.x[:, some], part.y[:, some]
