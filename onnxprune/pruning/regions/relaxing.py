"""Activations that layers could do without: what they cost, by what the layers around them would become.

Where nothing bends between two layers they are one matrix, and that one may be cheaper. How much outputs suffer from
an activation's absence is measured on samples (:func:`measured`), or learnt (``pruning.gating``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis.activations import activations
from onnxprune.analysis.analyzing import Analysis, again
from onnxprune.analysis.cost import Metric
from onnxprune.data.influence import Influences
from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.errors import PlanError
from onnxprune.ir.graph import Graph
from onnxprune.ir.regions import Region, Regions
from onnxprune.ops.layers import affine, linear_layer
from onnxprune.ops.substitutes import is_sum
from onnxprune.passes.merge_linear import MergeLinear
from onnxprune.pruning.plan import Replacement
from onnxprune.pruning.substituting import place, replaced


@dataclass(frozen=True)
class Merge:
    """Layers that become one where nothing bends between them: by number, what the one costs, and its axes.

    ``classes`` are those of the channels that it takes and gives, -1 where they cannot shrink.
    """

    layers: tuple[int, ...]
    cost: float
    classes: tuple[int, int]


@dataclass(frozen=True)
class Relaxation:
    """An activation that may be missing, its nodes, and the merge that this allows."""

    replacement: Replacement
    nodes: frozenset[int]
    merge: Merge


def is_plain(analysis: Analysis) -> bool:
    """Whether the graph has no bodies: regions are looked for in the main graph alone."""
    return analysis.graph.model is analysis.model


def relaxations(analysis: Analysis, metric: Metric) -> list[Relaxation]:
    """Activations between layers that become one without them, where that saves something.

    What is saved is found by doing it. Of activations that share a layer, the one that saves more.
    """
    if not is_plain(analysis):
        return []
    graph = analysis.model.derived(Graph)
    counted: Metric = "flops" if metric in analysis.costs.measured else metric
    whole = _costs(again(analysis, MergeLinear()(analysis.model).model), counted)
    regions = Regions(graph)
    found = []
    for region in activations(graph, analysis.registry, regions):
        ends = _between_layers(analysis, graph, region)
        if ends is None:
            continue
        way = Replacement(region.entry, region.exit, "identity")
        try:
            nodes = frozenset(place(graph, regions, way).nodes)
        except PlanError:
            continue
        merged = _costs(again(analysis, MergeLinear()(replaced(analysis.model, [way])).model), counted)
        lost = {name: cost for name, cost in whole.items() if merged.get(name) != cost}
        layers = [layer for layer in analysis.costs.layers if _tensor(analysis, layer.output_axis) in lost]
        made = sum(cost for name, cost in merged.items() if whole.get(name) != cost)
        if len(layers) < 2 or made >= sum(lost.values()):
            continue
        if counted != metric:
            times = analysis.costs.per_layer(metric, analysis.costs.full)
            made *= sum(float(times[layer.index]) for layer in layers) / sum(lost.values())
        inside = tuple(layer.index for layer in layers)
        found.append((sum(lost.values()) - made, Relaxation(way, nodes, Merge(inside, made, ends))))
    chosen: list[Relaxation] = []
    for _, one in sorted(found, key=lambda pair: -pair[0]):
        if all(set(one.merge.layers).isdisjoint(other.merge.layers) for other in chosen):
            chosen.append(one)
    return sorted(chosen, key=lambda g: max(g.nodes))


def _between_layers(analysis: Analysis, graph: Graph, region: Region) -> tuple[int, int] | None:
    """The classes of what goes into the layer before a region and comes out of that behind it; None without these."""
    before = next(iter(_linear_from(graph, region.entry, set(region.nodes), back=True)), None)
    behind = next(iter(_linear_from(graph, region.exit, set(), back=False)), None)
    if before is None or behind is None:
        return None
    layers = linear_layer(graph.nodes[before]), linear_layer(graph.nodes[behind])
    if layers[0] is None or layers[1] is None:
        return None
    coupling = analysis.coupling
    ends = (layers[0].input, layers[0].in_dim), (layers[1].output, layers[1].out_dim)
    classes = [coupling.class_of.get(coupling.axes.id(*end), -1) for end in ends]
    return classes[0], classes[1]


def _linear_from(graph: Graph, tensor: str, within: set[int], *, back: bool) -> Iterator[int]:
    """The layer that a tensor comes from, or goes to, over normalisations and shifts alone.

    Nothing on the way is read elsewhere, but within the nodes where it ends.
    """
    for _ in range(4):
        readers = graph.consumers.get(tensor, [])
        if not (len(readers) == 1 or set(readers) <= within) or not readers or tensor in graph.referred:
            return
        index = graph.producer.get(tensor) if back else graph.consumers[tensor][0]
        if index is None:
            return
        node = graph.nodes[index]
        if linear_layer(node) is not None:
            yield index
            return
        computed = [name for name in node.inputs if name and name not in graph.constants]
        if len(computed) != 1 or (affine(node) is None and not is_sum(node)):
            return
        tensor = computed[0] if back else node.outputs[0]


def _costs(analysis: Analysis, metric: Metric) -> dict[str, float]:
    values = analysis.costs.per_layer(metric, analysis.costs.full).tolist()
    return {_tensor(analysis, layer.output_axis): values[layer.index] for layer in analysis.costs.layers}


def _tensor(analysis: Analysis, axis: int) -> str:
    return analysis.coupling.axes.axis(axis).tensor


@dataclass(frozen=True)
class Measured:
    """An activation, and what its absence does on samples.

    ``identity`` and ``slope`` are errors at its exit over the variance there, on half of the samples: of the entry but
    for a shift of each channel, and of a factor and a shift of each channel that were fitted to the other half.
    ``loss`` is the damage to the outputs that the latter makes (see ``data.influence``); None where it reaches none.
    """

    entry: str
    exit: str
    nodes: tuple[int, ...]
    identity: float
    slope: float
    loss: float | None


def measured(analysis: Analysis, samples: Samples) -> tuple[Measured, ...]:
    """What every activation is worth: how far it is from linear on samples, and how much outputs suffer from that.

    Those that cost least come first. A factor of each channel needs no layer: the weights behind take it in.

    Raises:
        DataError: an activation is not finite.
    """
    if not is_plain(analysis):
        return ()
    graph = analysis.model.derived(Graph)
    regions = activations(graph, analysis.registry)
    dims = {region.exit: _channels(graph, region) for region in regions}
    influence = analysis.model.derived(Influences(samples.digest(), tuple(dims.items()), samples))
    last = {name: number for number, one in enumerate(regions) for name in (one.entry, one.exit)}
    run = StagedRun(analysis.model, samples, "the original model")
    run.advance(0, last)
    found = []
    for number, region in enumerate(regions):
        run.advance(graph.producer[region.exit] + 1)
        rows = [_rows(run.values(name), dims[region.exit]) for name in (region.entry, region.exit)]
        identity, slope = _errors(*rows)
        damage = influence.get(region.exit)
        loss = None if damage is None else slope * damage
        found.append(Measured(region.entry, region.exit, region.nodes, identity, slope, loss))
        run.drop(*(name for name, at in last.items() if at == number))
    return tuple(sorted(found, key=lambda one: np.inf if one.loss is None else one.loss))


def _channels(graph: Graph, region: Region) -> int:
    """The dimension of channels at an activation's exit: what a layer behind reads them from, or one before gives."""
    behind = (linear_layer(graph.nodes[index]) for index in graph.consumers.get(region.exit, []))
    dim = next((layer.in_dim for layer in behind if layer is not None), None)
    maker = graph.producer.get(region.entry)
    before = None if maker is None else linear_layer(graph.nodes[maker])
    if dim is None and before is not None:
        dim = before.out_dim
    return min(1, len(graph.shapes.extents[region.exit]) - 1) if dim is None else dim


def _rows(values: Sequence[NDArray[np.generic]], dim: int) -> NDArray[np.float64]:
    """[rows, channels]."""
    joint = np.concatenate(values).astype(np.float64)
    return np.moveaxis(joint, dim, -1).reshape(-1, joint.shape[dim])


def _errors(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Of the identity and of a fitted factor, each with a fitted shift of each channel, over the variance of ``y``."""
    seen, unseen = slice(0, len(x) // 2), slice(len(x) // 2, None)
    centre = x[seen].mean(axis=0), y[seen].mean(axis=0)
    spread = np.square(x[seen] - centre[0]).mean(axis=0)
    together = ((x[seen] - centre[0]) * (y[seen] - centre[1])).mean(axis=0)
    factor = together / np.maximum(spread, 1e-30)
    scale = max(float(np.square(y[unseen] - y[unseen].mean(axis=0)).mean(axis=0).sum()), 1e-30)
    moved, wanted = x[unseen] - centre[0], y[unseen] - centre[1]
    gaps = (wanted - moved, wanted - factor * moved)
    identity, slope = (float(np.square(gap).mean(axis=0).sum()) / scale for gap in gaps)
    return identity, slope
