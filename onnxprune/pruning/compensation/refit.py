"""Fitting the layers of a pruned model to the outputs of the original, one after the other in graph order.

Features are what the pruned model computes with the layers before already fitted, so that errors do not pile up;
targets are what the original computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.pairs import pairs
from onnxprune.data.samples import Samples
from onnxprune.data.staging import MOST_IN_MEMORY, StagedRun
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ops import Registry
from onnxprune.ops.layers import LinearLayer, linear_layer
from onnxprune.pruning.compensation.activations import bend_of
from onnxprune.pruning.compensation.biases import BiasPlace, add_to_bias, bias_of_layer, bias_place
from onnxprune.pruning.compensation.factors import projected
from onnxprune.pruning.compensation.gathering import Piece, Walk, pieces, pieces_of_factors, row_count
from onnxprune.pruning.compensation.products import mixture_for
from onnxprune.pruning.compensation.solving import Solution, solve_bias, solve_moments, solve_rows, way_of
from onnxprune.pruning.compensation.sums import OtherBranch, other_branch
from onnxprune.pruning.plan import Removed

#: Of the memory that is given, the part for one layer's fit, and for the tensors that each of the two models holds.
_FOR_FIT, _FOR_TENSORS = 2, 8


@dataclass(frozen=True)
class LayerFit:
    """One fitted layer: mean squared errors over the variance of what it should give.

    ``rows`` of ``samples`` decide about ``unknowns`` weights per output. ``before`` and ``after`` are the errors on
    these rows, ``unseen`` is that on samples that the fit has not seen (None where there are none, or where only a
    bias was fitted). ``share`` is the ridge as a share of the mean feature variance; None where the weights stayed as
    they were.
    """

    name: str
    rows: int
    samples: int
    unknowns: int
    before: float
    after: float
    unseen: float | None
    share: float | None

    @property
    def few(self) -> bool:
        """Whether there are fewer rows than twice the unknowns: the ridge, not the samples, decides much of the fit."""
        return self.rows < 2 * self.unknowns


def linear_layers(graph: Graph, registry: Registry | None = None) -> Iterator[LinearLayer]:
    """The layers of a graph that are matrix products, in order."""
    for node in graph.nodes:
        layer = linear_layer(node, registry)
        if layer is not None:
            yield layer


def refit_layer(walk: Walk, layer: LinearLayer, *, weights: bool) -> tuple[LayerFit | None, str | None]:
    """Fit a layer's weights and bias, or with ``weights`` false only its bias.

    Returns:
        The fit, None where nothing was done; and why the weights were left out, if memory does not suffice for them.
    """
    place = bias_place(walk.graph, layer)
    if place is None and not weights:
        return None, None
    weight = walk.draft.weights[layer.weight]
    start = layer.matrix(weight.array)
    other = other_branch(walk.graph, layer)
    was = None if other is None else _was(walk, layer, other)
    added, there = ((), ()) if other is None or was is None else ((other.tensor,), (was,))
    walk.pruned.advance(layer.node, (layer.input, *added))
    walk.original.advance(walk.makers[layer.output] + 1, (layer.output, *there))
    way = way_of(start.shape, row_count(walk, layer), walk.memory)
    found: Solution | None = None
    mixture = mixture_for(walk, layer) if weights and other is None else None
    beside = None if other is None or was is None else (other, was)
    parts = pieces(walk, layer, beside, mixture, start.shape, way.rows)
    now = _bias_now(walk, layer, place, start)
    if weights and way.reason is None:
        if way.few:
            found = solve_rows(parts, start, now, intercept=place is not None)
        else:
            bend = bend_of(walk.graph, layer) if mixture is None and place is not None else None
            found = solve_moments(parts, start, now, intercept=place is not None, bend=bend, spare=way.spare)
    elif place is not None:
        found = solve_bias(parts, start, now)
    walk.pruned.drop(layer.input, *added)
    walk.original.drop(layer.output, *there)
    reason = way.reason if weights else None
    if found is None:
        return None, reason
    if found.matrix is not None:
        walk.draft.weights[layer.weight] = weight.with_array(layer.weights(found.matrix, weight.array))
    if place is not None and found.bias is not None:
        add_to_bias(walk.draft, place, (found.bias - now).reshape(-1), weight.dtype, layer.weight)
    spread = max(found.spread, 1e-30)
    unseen = None if found.unseen is None else found.unseen / spread
    sizes = (found.rows, len(walk.samples), start.shape[1])
    errors = (found.before / spread, found.after / spread, unseen)
    return LayerFit(layer.name, *sizes, *errors, found.share), reason


def factors_from(walk: Walk, layer: LinearLayer) -> tuple[LinearLayer, ...]:
    """The layers from one on that together stand for one of the original's, which has none of what is between them."""
    found = [layer]
    while found[-1].output not in walk.makers:
        last = found[-1]
        readers = walk.graph.consumers.get(last.output, [])
        behind = linear_layer(walk.graph.nodes[readers[0]]) if len(readers) == 1 else None
        if behind is None or behind.groups * last.groups > 1 or last.output in walk.graph.outputs:
            return ()
        found.append(behind)
    return tuple(found) if len(found) in (2, 3) else ()


def refit_factors(walk: Walk, stages: Sequence[LinearLayer]) -> tuple[LayerFit | None, str | None]:
    """Fit layers that stand for one; returns as :func:`refit_layer`."""
    first, last = stages[0], stages[-1]
    place = bias_place(walk.graph, last)
    weights = [walk.draft.weights[layer.weight] for layer in stages]
    matrices = [layer.matrix(weight.array) for layer, weight in zip(stages, weights, strict=True)]
    channels, inner = (matrices[0].shape[1], matrices[0].shape[2]) if len(stages) > 2 else (0, 0)
    features = channels * matrices[1].shape[1] // inner if inner else matrices[0].shape[1]
    shape = (1, features, matrices[-1].shape[2])
    other = other_branch(walk.graph, last)
    was = None if other is None else _was(walk, last, other)
    beside = None if other is None or was is None else (other, was)
    added, there = ((), ()) if other is None or was is None else ((other.tensor,), (was,))
    walk.pruned.advance(first.node, (first.input, *added))
    walk.original.advance(walk.makers[last.output] + 1, (last.output, *there))
    way = way_of(shape, row_count(walk, last), walk.memory)
    if way.reason is not None:
        walk.pruned.drop(first.input, *added)
        walk.original.drop(last.output, *there)
        return None, way.reason

    def parts() -> Iterator[Piece]:
        return pieces_of_factors(walk, stages, beside, shape, way.rows)

    start, now = _single(walk, first, last, shape), _bias_now(walk, last, place, matrices[-1])
    solver = solve_rows if way.few else solve_moments
    found = solver(parts(), start, np.zeros_like(now), intercept=place is not None)
    fit = projected(found, start, parts, matrices[-1].shape[1], inner, channels, solver)
    walk.pruned.drop(first.input, *added)
    walk.original.drop(last.output, *there)
    for layer, weight, matrix in zip(stages, weights, fit.matrices, strict=True):
        walk.draft.weights[layer.weight] = weight.with_array(layer.weights(matrix[None], weight.array))
    if place is not None:
        add_to_bias(walk.draft, place, fit.bias - now.reshape(-1), weights[-1].dtype, last.weight)
    spread = max(found.spread, 1e-30)
    unseen = None if found.unseen is None else found.unseen / spread
    sizes = (found.rows, len(walk.samples), shape[1])
    return LayerFit(last.name, *sizes, found.before / spread, fit.after / spread, unseen, found.share), None


def _single(walk: Walk, first: LinearLayer, second: LinearLayer, shape: tuple[int, int, int]) -> NDArray[Any]:
    """The original's matrix at the kept channels, where the two stand for one layer of the same shape; else zeros."""
    original = walk.original.model
    layer = linear_layer(original.derived(Graph).nodes[walk.makers[second.output]])
    if layer is not None and layer.groups == 1:
        weight = original.weights[layer.weight].array
        gone = [
            walk.removed.get(name, {}).get(dim, ())
            for name, dim in ((first.input, first.in_dim), (second.output, second.out_dim))
        ]
        features = ~np.isin(layer.feature_channels(weight)[0], gone[0])
        matrix = np.delete(layer.matrix(weight)[:, features], gone[1], axis=2)
        if matrix.shape == shape:
            return np.asarray(matrix, dtype=np.float32)
    return np.zeros(shape, np.float32)


def _was(walk: Walk, layer: LinearLayer, other: OtherBranch) -> str | None:
    """The original's tensor that is added to the same branch, None where it comes too late, or nothing is.

    It has another name where a region gave way in the pruned model.
    """
    maker = walk.makers.get(other.total, -1)
    reads = list(walk.original.nodes[maker].input) if maker >= 0 else []
    if other.branch not in reads or len(reads) != 2:
        return None
    was = reads[1 - reads.index(other.branch)]
    return was if walk.makers.get(was, -1) < walk.makers[layer.output] else None


def _bias_now(walk: Walk, layer: LinearLayer, place: BiasPlace | None, start: NDArray[Any]) -> NDArray[np.float64]:
    width = start.shape[0] * start.shape[2]
    return bias_of_layer(walk.graph, layer, place, width).reshape(start.shape[0], start.shape[2])


def begin(pruned: Model, original: Model, removed: Removed, samples: Samples, seed: int, memory: int) -> Walk:
    """Both models before their first nodes; ``original`` is normalised. ``memory`` bytes are for all of it."""
    from onnxprune.ir.shapes import infer_shapes

    held = min(memory // _FOR_TENSORS, MOST_IN_MEMORY)
    draft = pruned.edit()
    editable = Model(draft.skeleton, draft.weights)
    first = next(iter(samples.batches()))
    graph = Graph(pruned, infer_shapes(pruned, {name: array.shape for name, array in first.items()}))
    makers = {name: index for index, node in enumerate(original.graph.node) for name in node.output if name}
    return Walk(
        StagedRun(editable, samples, "the pruned model", most=held),
        StagedRun(original, samples, "the original model", most=held),
        graph,
        draft,
        makers,
        removed,
        samples,
        seed,
        memory // _FOR_FIT,
        tuple(pairs(graph)),
    )
