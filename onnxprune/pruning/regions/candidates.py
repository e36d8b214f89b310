"""Which regions of a graph may give way, to what, and which of them do: loss at the outputs per cost saved.

What can stand for a region is fitted in closed form to what the region gives on calibration samples; its error on
samples that the fit has not seen, times how much the outputs suffer from an error there, is the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.cost import Metric
from onnxprune.data.influence import Influences
from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.errors import PlanError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.regions import Region, Regions
from onnxprune.ir.weights import Weight
from onnxprune.ops.layers import LinearLayer, linear_layer
from onnxprune.ops.substitutes import KINDS, Kind
from onnxprune.pruning.compensation.factors import (
    FloatArray,
    by_channel,
    inner_factors,
    main_directions,
    moments_of,
    through,
)
from onnxprune.pruning.compensation.gathering import drawn
from onnxprune.pruning.compensation.solving import solve_moments, solve_rows, way_of
from onnxprune.pruning.plan import Replacement
from onnxprune.pruning.substituting import Place, channel_dims, place

MOST_LAYERS = 8
"""Layers of a region, at most: what stands for more has little in common with it."""
_MEMORY = 1 << 30
_RANKS, _RANK_STEP = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75), 8
"""Ranks of factors to try, as shares of the width, and their multiple."""
_ROWS = 8192
"""What is looked at of a layer that may become factors."""
_MOST_SAMPLES = 256
"""What tells good substitutes from bad ones; the fit itself sees all samples."""


@dataclass(frozen=True)
class Candidate:
    """A region that may give way.

    ``saved`` is what this takes from the metric, ``error`` the mean squared error at the exit over its variance, on
    samples that a fit has not seen, and ``loss`` the damage to the outputs that this makes (see ``data.influence``).
    """

    replacement: Replacement
    nodes: tuple[int, ...]
    saved: float
    error: float
    loss: float


def candidates(
    analysis: Analysis, metric: Metric, samples: Samples, kinds: Sequence[Kind] = KINDS, *, seed: int = 0
) -> tuple[Candidate, ...]:
    """All regions that may give way to something cheaper, with every kind of substitute.

    Args:
        analysis: of the original.
        metric: what is to be saved.
        samples: to fit to.
        kinds: what may stand for a region.
        seed: of the choice of rows.

    Raises:
        DataError: there are too few samples to fit anything, or an activation is not finite.
    """
    some = samples.first(_MOST_SAMPLES)
    return analysis.model.derived(_Candidates(metric, some.digest(), tuple(kinds), seed, analysis, some))


@dataclass(frozen=True)
class _Candidates:
    """Finding candidates: a key that a model can remember them by."""

    metric: Metric
    digest: str
    kinds: tuple[Kind, ...]
    seed: int
    analysis: Analysis = field(compare=False)
    samples: Samples = field(compare=False)

    def __call__(self, model: Model) -> tuple[Candidate, ...]:
        graph, samples = model.derived(Graph), self.samples
        options = _options(self.analysis, graph, self.metric, self.kinds)
        dims = {one.region.exit: one.dim for one in options}
        influence = model.derived(Influences(self.digest, tuple(dims.items()), samples))
        last = {name: number for number, one in enumerate(options) for name in (one.region.entry, one.region.exit)}
        run = StagedRun(model, samples, "the original model")
        run.advance(0, last)
        found = []
        for number, one in enumerate(options):
            run.advance(graph.producer[one.region.exit] + 1)
            error = _error(run, graph, one, samples, self.seed)
            if error is not None and one.region.exit in influence:
                loss = error * influence[one.region.exit]
                why = replace(one.place.replacement, saved={self.metric: one.saved}, error=error)
                found.append(Candidate(why, one.place.nodes, one.saved, error, loss))
            run.drop(*(name for name, at in last.items() if at == number))
        return tuple(found)


@dataclass(frozen=True)
class _Option:
    """A region, one way in which it may give way, what that saves, and the dimension of the exit's channels."""

    region: Region
    place: Place
    saved: float
    dim: int


def _options(analysis: Analysis, graph: Graph, metric: Metric, kinds: Sequence[Kind]) -> list[_Option]:
    """Every region, every kind that fits there, and what it would save; only what saves anything."""
    costs = analysis.costs
    nodes = [layer.node for layer in costs.layers]
    per_layer, flops = (
        dict(zip(nodes, costs.per_layer(of, costs.full).tolist(), strict=True)) for of in (metric, "flops")
    )
    regions = Regions(graph)
    found = []
    for region in regions.find([index for index in per_layer if linear_layer(graph.nodes[index])], MOST_LAYERS):
        dims = channel_dims(graph, region.nodes)
        if dims is None:
            continue
        spent, macs = (sum(of.get(index, 0.0) for index in region.nodes) for of in (per_layer, flops))
        for kind in kinds:
            for kernel, rank, inner in _shapes(graph, region, kind, dims):
                try:
                    one = place(graph, regions, Replacement(region.entry, region.exit, kind, kernel, rank, inner))
                except PlanError:
                    continue  # Nothing of this kind fits here.
                saved = spent - _cost(graph, region, one, metric, spent, macs)
                fewer = kind != "factors" or sum(layer.macs for layer in one.layers) < macs
                if saved > 0 and fewer:
                    found.append(_Option(region, one, saved, dims[1]))
    return sorted(found, key=lambda one: graph.producer[one.region.exit])


def _shapes(
    graph: Graph, region: Region, kind: Kind, dims: tuple[int, int]
) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Windows and ranks to try: the largest window that a layer of the region has, and for a single layer factors."""
    if kind not in ("depthwise", "full", "factors"):
        yield (), 0, 0
        return
    if kind == "factors" and len(region.nodes) > 1:
        return
    windows = {graph.shapes.extents[graph.nodes[index].inputs[1]][2:] for index in region.layers}
    odd = [window for window in windows if window and all(k % 2 for k in window) and max(window) > 1]
    if kind != "factors":
        yield from ((max(odd), 0, 0),) if odd else ()
        return
    read, made = graph.shapes.extents[region.entry][dims[0]], graph.shapes.extents[region.exit][dims[1]]
    pairs = dict.fromkeys((_on_grid(read * share), _on_grid(made * share)) for share in _RANKS)
    yield from ((max(odd) if odd else (), rank, 0) for _, rank in pairs if rank)
    if odd:
        yield from ((max(odd), rank, inner) for inner, rank in pairs if rank and inner)


def _on_grid(width: float) -> int:
    return round(width / _RANK_STEP) * _RANK_STEP


def _cost(graph: Graph, region: Region, place: Place, metric: Metric, spent: float, macs: float) -> float:
    """What the substitute costs, where the region has so many MACs and costs ``spent``."""
    layers, exit = place.layers, graph.shapes.extents[region.exit]
    if not layers:
        return 0.0
    own = float(sum(layer.macs for layer in layers))
    if metric == "flops":
        return own
    if metric == "latency":
        # About as fast as what it stands for; what is planned with it is measured.
        return spent * min(own / max(macs, 1.0), 1.0)
    elements = float(sum(layer.elements for layer in layers))
    if metric == "params":
        return elements
    size = np.dtype(helper.tensor_dtype_to_np_dtype(graph.shapes.elem_types[region.exit])).itemsize
    return float(size * (elements + len(layers) * math.prod(exit)))


def _error(run: StagedRun, graph: Graph, one: _Option, samples: Samples, seed: int) -> float | None:
    """The error of a substitute at the exit, over its variance; None where it cannot be fitted."""
    place, xs, ys = one.place, run.values(one.region.entry), run.values(one.region.exit)
    kind = place.replacement.kind
    if kind == "nothing":
        return 1.0
    if kind == "identity":
        return _relative(xs, ys, one.dim)
    if kind == "factors":
        (index,) = one.region.layers
        layer = linear_layer(graph.nodes[index])
        assert layer is not None, "a region of a layer"
        weight = graph.model.weights[layer.weight].array
        return _beyond(layer, weight, xs, ys, samples, seed, place.replacement)
    layer, weight = _alone(graph, place, xs[0], ys[0])
    start = layer.matrix(weight)
    total = sum(layer.count(y) for y in ys)
    way = way_of(start.shape, total, _MEMORY)
    if way.reason is not None:
        return None
    solver = solve_rows if way.few else solve_moments
    now = np.zeros((start.shape[0], start.shape[2]))
    found = solver(drawn(layer, xs, ys, total, samples, start.shape, way.rows, seed), start, now, intercept=True)
    return None if found.unseen is None else found.unseen / max(found.spread, 1e-30)


def _alone(graph: Graph, place: Place, x: NDArray[Any], y: NDArray[Any]) -> tuple[LinearLayer, NDArray[Any]]:
    """The substitute as a model of one node whose weights are zero, as a layer."""
    (substitute,) = place.layers
    weight = np.zeros(substitute.weight, np.float32)
    node = substitute.node("substitute", "x", "y", "w", "")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape) for n, a in (("x", x), ("y", y))]
    model = graph.model.piece([node], values[:1], values[1:], {"w": Weight.from_array("w", weight)})
    layer = linear_layer(Graph(model).nodes[0])
    assert layer is not None, "a substitute is a layer"
    return layer, weight


def _relative(xs: Sequence[NDArray[Any]], ys: Sequence[NDArray[Any]], dim: int) -> float:
    """The squared difference less its mean per channel, over the variance."""
    x, y = np.concatenate(xs).astype(np.float64), np.concatenate(ys).astype(np.float64)
    others = tuple(d for d in range(y.ndim) if d != dim)
    gap = y - x
    return float(gap.var(axis=others).sum() / max(y.var(axis=others).sum(), 1e-30))


def _beyond(
    layer: LinearLayer,
    weight: NDArray[Any],
    xs: Sequence[NDArray[Any]],
    ys: Sequence[NDArray[Any]],
    samples: Samples,
    seed: int,
    wanted: Replacement,
) -> float | None:
    """The error of factors of a layer whose directions some samples choose, on the others; None for groups."""
    start = layer.matrix(weight)
    if len(start) > 1 and wanted.inner:
        return None
    total = sum(layer.count(y) for y in ys)
    pieces = list(drawn(layer, xs, ys, total, samples, start.shape, _ROWS, seed))
    rows = [(part.held_out, part.x[0], np.moveaxis(part.y, 0, 1).reshape(part.y.shape[1], -1)) for part in pieces]
    seen, unseen = ([(x, y) for held_out, x, y in rows if held_out == aside] for aside in (False, True))
    variance, mean = moments_of(y for _, y in seen)
    second = main_directions(variance, wanted.rank)
    heard = partial(_codes, second, mean)
    if wanted.inner:
        matrix = start[0].astype(np.float64)
        channels, _ = moments_of(by_channel(x, matrix.shape[0] // math.prod(wanted.kernel)) for x, _ in seen)
        factors = inner_factors(matrix @ second.T, channels, wanted.inner)
        heard = partial(_heard, *factors)
    _, usual = moments_of(heard(x, y) for x, y in seen)
    gap = lost = 0.0
    for x, y in unseen or seen:
        left = y - mean - (heard(x, y) - usual) @ second
        gap, lost = gap + float(np.square(left).sum()), lost + float(np.square(y - mean).sum())
    return gap / max(lost, 1e-30)


def _codes(second: FloatArray, mean: FloatArray, x: NDArray[Any], y: NDArray[Any]) -> FloatArray:
    """The best codes for outputs, whatever can be made of the input."""
    found: FloatArray = (y - mean) @ second.T
    return found


def _heard(first: FloatArray, core: FloatArray, x: NDArray[Any], y: NDArray[Any]) -> FloatArray:
    """The codes that few channels of the input give."""
    return through(x, first) @ core


def select(found: Sequence[Candidate], wanted: float) -> tuple[Candidate, ...]:
    """Regions that do not overlap and save so much in all, those that lose least for it first.

    A region that was chosen may give way to something cheaper yet, by what that adds. Fewer are given where not enough
    can be saved.
    """
    chosen: dict[tuple[int, ...], Candidate] = {}
    taken: set[int] = set()
    saved = 0.0

    def price(one: Candidate) -> float:
        """Loss per cost saved beyond what the same region saves already; infinite where it cannot be chosen."""
        was = chosen.get(one.nodes)
        if was is None:
            return one.loss / one.saved if taken.isdisjoint(one.nodes) else math.inf
        more = one.saved - was.saved
        return (one.loss - was.loss) / more if more > 0 else math.inf

    while saved < wanted and found:
        best = min(found, key=price)
        if price(best) == math.inf:
            break
        saved += best.saved - (chosen[best.nodes].saved if best.nodes in chosen else 0.0)
        chosen[best.nodes] = best
        taken.update(best.nodes)
    # What later ones have made unnecessary stays as it is.
    for one in sorted(chosen.values(), key=lambda one: -one.loss):
        if saved - one.saved >= wanted:
            del chosen[one.nodes]
            saved -= one.saved
    return tuple(chosen.values())
