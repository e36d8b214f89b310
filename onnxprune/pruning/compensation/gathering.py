"""What a layer reads and what it should give, row by row, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.pairs import Pair
from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft
from onnxprune.ops.layers import LinearLayer
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.compensation.ridge import Moments
from onnxprune.pruning.compensation.sums import OtherBranch
from onnxprune.pruning.plan import Removed

#: Elements of a piece of the feature matrix.
_PIECE = 1 << 24
#: Of every so many batches, one is held out to choose the ridge.
_HELD_OUT = 4


@dataclass(frozen=True)
class Walk:
    """Both models on the way through the graph, and where a layer's output and kept channels are.

    ``products`` are the operands of products of activations; ``memory`` is what one layer's fit may take, in bytes.
    """

    pruned: StagedRun
    original: StagedRun
    graph: Graph
    draft: Draft
    makers: Mapping[str, int]
    removed: Removed
    samples: Samples
    seed: int
    memory: int
    products: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Features [G, R, K], wanted outputs [G, R, N] and sample [R] of some rows, which are held out or not."""

    x: NDArray[Any]
    y: NDArray[Any]
    sample: IntArray
    held_out: bool


@dataclass(frozen=True)
class Mixture:
    """What a layer should give instead of the kept channels: ``y·matrix + offset``, [C, N] and [N]."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]


def row_count(walk: Walk, layer: LinearLayer) -> int:
    """How many rows the samples give a layer."""
    return sum(layer.count(y) for y in walk.original.values(layer.output))


def pieces(
    walk: Walk,
    layer: LinearLayer,
    other: tuple[OtherBranch, str] | None,
    mixture: Mixture | None,
    shape: tuple[int, int, int],
    rows: int,
) -> Iterator[Piece]:
    """About so many of a layer's rows, drawn evenly; ``shape`` is [G, K, N].

    ``other`` is the branch that the output is added to, and the original's tensor that was in its place.
    """
    xs, ys = walk.pruned.values(layer.input), _targets(walk, layer, other, mixture)
    return drawn(layer, xs, ys, row_count(walk, layer), walk.samples, shape, rows, walk.seed)


def pieces_of_factors(
    walk: Walk,
    stages: Sequence[LinearLayer],
    other: tuple[OtherBranch, str] | None,
    shape: tuple[int, int, int],
    rows: int,
) -> Iterator[Piece]:
    """The features of layers that stand for one: what their window sees in the input, and what they should give."""
    xs, ys = walk.pruned.values(stages[0].input), _targets(walk, stages[-1], other, None)
    return drawn(stages[-2], xs, ys, row_count(walk, stages[-1]), walk.samples, shape, rows, walk.seed)


def drawn(
    layer: LinearLayer,
    xs: Sequence[NDArray[Any]],
    ys: Iterable[NDArray[Any]],
    total: int,
    samples: Samples,
    shape: tuple[int, int, int],
    rows: int,
    seed: int,
) -> Iterator[Piece]:
    """About ``rows`` of the ``total`` rows that a layer has with these inputs and outputs, batch by batch."""
    rng = np.random.default_rng((seed, layer.node))
    share = min(1.0, rows / max(total, 1))
    # Samples come first in a batch's rows, also where a Reshape has made several rows of each.
    per_sample = max(total // len(samples), 1)
    first = 0
    for x, y, aside in _parts(xs, ys):
        count = layer.count(y)
        chosen = np.sort(rng.choice(count, max(1, round(count * share)), replace=False))
        for some in _cut(chosen, shape[1] * shape[0]):
            # Views of one sample stand and fall together: a fit that has seen one of them has seen the others.
            sample = (first + some) // (per_sample * samples.seen)
            yield Piece(*layer.rows(x, y, some), sample, aside)
        first += count


def moments(parts: Iterable[Piece]) -> tuple[Moments, Moments | None]:
    """Moments of rows to fit to, and of held-out ones (None if there is a single sample)."""
    sums: list[Moments | None] = [None, None]
    shifts: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    for part in parts:
        if shifts is None:
            shifts = (part.x.mean(axis=1, dtype=np.float64), part.y.mean(axis=1, dtype=np.float64))
        target = sums[part.held_out]
        if target is None:
            target = sums[part.held_out] = Moments.about(*shifts)
        target.add(part.x, part.y)
    assert sums[0] is not None
    return sums[0], sums[1]


def _targets(
    walk: Walk, layer: LinearLayer, other: tuple[OtherBranch, str] | None, mixture: Mixture | None
) -> Iterator[NDArray[Any]]:
    """What the layer should give, batch by batch: of the original's output, or of its sum, the kept channels."""
    removed = walk.removed.get(layer.output, {}).get(layer.out_dim, ())
    for batch, y in enumerate(walk.original.values(layer.output)):
        if mixture is not None:
            mixed = np.moveaxis(y, layer.out_dim, -1) @ mixture.matrix.astype(y.dtype) + mixture.offset.astype(y.dtype)
            yield np.moveaxis(mixed, -1, layer.out_dim)
            continue
        kept = np.delete(np.arange(y.shape[layer.out_dim]), removed)
        y = y.take(kept, axis=layer.out_dim) if len(removed) else y
        if other is not None:
            beside, was = other
            wanted, found = walk.original.values(was)[batch], walk.pruned.values(beside.tensor)[batch]
            missing = (wanted.take(kept, axis=layer.out_dim) if len(removed) else wanted) - found
            if beside.gain is not None:
                shape = [-1 if dim == layer.out_dim else 1 for dim in range(y.ndim)]
                missing = missing / beside.gain.astype(y.dtype).reshape(shape)
            y = y + missing
        yield y


def _parts(xs: Sequence[NDArray[Any]], ys: Iterable[NDArray[Any]]) -> Iterator[tuple[NDArray[Any], NDArray[Any], bool]]:
    """Inputs and outputs by batch, and whether they are held out. A few large batches are divided."""
    divide = len(xs) < 2 * _HELD_OUT
    place = 0
    for x, y in zip(xs, ys, strict=True):
        cut = -(-len(x) * (_HELD_OUT - 1) // _HELD_OUT)
        if divide and len(x) == len(y) and 0 < cut < len(x):
            yield x[:cut], y[:cut], False
            yield x[cut:], y[cut:], True
        else:
            yield x, y, place % _HELD_OUT == _HELD_OUT - 1
            place += 1


def _cut(chosen: IntArray, features: int) -> Iterator[IntArray]:
    step = max(1, _PIECE // max(features, 1))
    for start in range(0, len(chosen), step):
        yield chosen[start : start + step]
