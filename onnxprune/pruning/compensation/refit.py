"""Fitting the layers of a pruned model to the outputs of the original, one after the other in graph order.

Features are what the pruned model computes with the layers before already fitted, so that errors do not pile up;
targets are what the original computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.linear import LinearLayer, linear_layer
from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.compensation.biases import BiasPlace, add_to_bias, bias_of_layer, bias_place
from onnxprune.pruning.compensation.ridge import Moments, bias_of, choose_share, shares_to_try, solve
from onnxprune.pruning.compensation.sums import OtherBranch, other_branch
from onnxprune.pruning.plan import Removed

#: Rows per feature that a fit looks at, and at least; more change little and cost time.
_ROWS_PER_FEATURE = 16
_FEWEST_ROWS = 16384
#: Elements of a piece of the feature matrix.
_PIECE = 1 << 24
#: Of every so many batches, one is held out to choose the ridge.
_HELD_OUT = 4


@dataclass(frozen=True)
class LayerFit:
    """One fitted layer: mean squared errors over the variance of what it should give.

    ``share`` is the ridge as a share of the mean feature variance; None where the weights stayed as they were.
    """

    name: str
    rows: int
    before: float
    after: float
    share: float | None


@dataclass(frozen=True)
class Walk:
    """Both models on the way through the graph, and where a layer's output and kept channels are."""

    pruned: StagedRun
    original: StagedRun
    graph: Graph
    draft: Draft
    makers: Mapping[str, int]
    removed: Removed
    samples: Samples
    seed: int


def linear_layers(graph: Graph) -> Iterator[LinearLayer]:
    """The layers of a graph that are matrix products, in order."""
    for node in graph.nodes:
        layer = linear_layer(node)
        if layer is not None:
            yield layer


def refit_layer(walk: Walk, layer: LinearLayer, *, weights: bool) -> LayerFit | None:
    """Fit a layer's weights and bias, or with ``weights`` false only its bias. None where nothing is to be done."""
    place = bias_place(walk.graph, layer)
    if place is None and not weights:
        return None
    other = other_branch(walk.graph, layer)
    if other is not None and walk.makers.get(other.tensor, -1) >= walk.makers[layer.output]:
        other = None
    added = () if other is None else (other.tensor,)
    walk.pruned.advance(layer.node, (layer.input, *added))
    walk.original.advance(walk.makers[layer.output] + 1, (layer.output, *added))
    weight = walk.draft.weights[layer.weight]
    start = layer.matrix(weight.array).astype(np.float64)
    train, held_out = _moments(walk, layer, start, other)
    walk.pruned.drop(layer.input, *added)
    walk.original.drop(layer.output, *added)
    both = train if held_out is None else train + held_out
    now = _bias_now(walk, layer, place, start)
    spread = max(both.variance(), 1e-30)
    tried = shares_to_try(start.shape[1]) if weights else ()
    share = choose_share(train, held_out or train, start, tried, intercept=place is not None)
    matrix, bias = start, bias_of(both, start) if place is not None else None
    if share is not None:
        matrix, bias = solve(both, start, share, intercept=place is not None)
        walk.draft.weights[layer.weight] = weight.with_array(layer.weights(matrix, weight.array))
    if place is not None and bias is not None:
        add_to_bias(walk.draft, place, (bias - now).reshape(-1), weight.dtype, layer.weight)
    return LayerFit(layer.name, both.count, both.error(start, now) / spread, both.error(matrix, bias) / spread, share)


def _bias_now(
    walk: Walk, layer: LinearLayer, place: BiasPlace | None, start: NDArray[np.float64]
) -> NDArray[np.float64]:
    width = start.shape[0] * start.shape[2]
    return bias_of_layer(walk.graph, layer, place, width).reshape(start.shape[0], start.shape[2])


def _targets(walk: Walk, layer: LinearLayer, other: OtherBranch | None) -> Iterator[NDArray[Any]]:
    """What the layer should give, batch by batch: the kept channels of the original's output, or of its sum."""
    removed = walk.removed.get(layer.output, {}).get(layer.out_dim, ())
    for batch, y in enumerate(walk.original.values(layer.output)):
        kept = np.delete(np.arange(y.shape[layer.out_dim]), removed)
        y = y.take(kept, axis=layer.out_dim) if len(removed) else y
        if other is not None:
            wanted, found = walk.original.values(other.tensor)[batch], walk.pruned.values(other.tensor)[batch]
            missing = (wanted.take(kept, axis=layer.out_dim) if len(removed) else wanted) - found
            if other.gain is not None:
                shape = [-1 if dim == layer.out_dim else 1 for dim in range(y.ndim)]
                missing = missing / other.gain.astype(y.dtype).reshape(shape)
            y = y + missing
        yield y


def _moments(
    walk: Walk, layer: LinearLayer, start: NDArray[np.float64], other: OtherBranch | None
) -> tuple[Moments, Moments | None]:
    """Moments of rows to fit to, and of held-out ones (None if there is a single sample)."""
    xs, ys = walk.pruned.values(layer.input), walk.original.values(layer.output)
    rng = np.random.default_rng((walk.seed, layer.node))
    features = start.shape[1]
    total = sum(layer.count(y) for y in ys)
    share = min(1.0, max(_ROWS_PER_FEATURE * features, _FEWEST_ROWS) / total)
    sums: list[Moments | None] = [None, None]
    shifts: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    for x, y, aside in _parts(xs, _targets(walk, layer, other)):
        count = layer.count(y)
        chosen = np.sort(rng.choice(count, max(1, round(count * share)), replace=False))
        for piece in _pieces(chosen, features * len(start)):
            rows = layer.rows(x, y, piece)
            if shifts is None:
                shifts = (rows[0].mean(axis=1, dtype=np.float64), rows[1].mean(axis=1, dtype=np.float64))
            if sums[aside] is None:
                sums[aside] = Moments.about(*shifts)
            target = sums[aside]
            assert target is not None
            target.add(*rows)
    assert sums[0] is not None
    return sums[0], sums[1]


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


def _pieces(chosen: IntArray, features: int) -> Iterator[IntArray]:
    step = max(1, _PIECE // max(features, 1))
    for start in range(0, len(chosen), step):
        yield chosen[start : start + step]


def begin(pruned: Model, original: Model, removed: Removed, samples: Samples, seed: int) -> Walk:
    """Both models before their first nodes; ``original`` is normalised."""
    from onnxprune.ir.shapes import infer_shapes

    draft = pruned.edit()
    editable = Model(draft.skeleton, draft.weights)
    first = next(iter(samples.batches()))
    graph = Graph(pruned, infer_shapes(pruned, {name: array.shape for name, array in first.items()}))
    makers = {name: index for index, node in enumerate(original.graph.node) for name in node.output if name}
    return Walk(
        StagedRun(editable, samples, "the pruned model"),
        StagedRun(original, samples, "the original model"),
        graph,
        draft,
        makers,
        removed,
        samples,
        seed,
    )
