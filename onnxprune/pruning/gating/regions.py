"""Which regions of a graph have gates, and what their absence saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnxprune.analysis.activations import activations
from onnxprune.analysis.analyzing import Analysis, again
from onnxprune.analysis.cost import Metric
from onnxprune.errors import PlanError
from onnxprune.ir.graph import Graph
from onnxprune.ir.regions import Region, Regions
from onnxprune.ops.layers import affine, linear_layer
from onnxprune.ops.substitutes import Kind, is_sum
from onnxprune.passes.merge_linear import MergeLinear
from onnxprune.pruning.plan import Replacement
from onnxprune.pruning.substituting import place, replaced

_MOST_LAYERS = 8
"""Layers of a region, at most."""


@dataclass(frozen=True)
class Merge:
    """Layers that become one where nothing bends between them: by number, what the one costs, and its axes.

    ``classes`` are those of the channels that it takes and gives, -1 where they cannot shrink.
    """

    layers: tuple[int, ...]
    cost: float
    classes: tuple[int, int]


@dataclass(frozen=True)
class Gateable:
    """A region that may give way, its nodes, the layers in it (by number), and for an activation the merge."""

    replacement: Replacement
    nodes: frozenset[int]
    layers: tuple[int, ...]
    merge: Merge | None = None


def is_plain(analysis: Analysis) -> bool:
    """Whether the graph has no bodies: regions are looked for in the main graph alone."""
    return analysis.graph.model is analysis.model


def branches(analysis: Analysis) -> list[Gateable]:
    """Regions with layers that may be missing: branches that are added to something, and parts that keep extents.

    Of branches that meet in one sum, the one with more layers; no two overlap but that one lies in the other.
    """
    if not is_plain(analysis):
        return []
    graph = analysis.model.derived(Graph)
    regions = Regions(graph)
    layer_of = {layer.node: layer.index for layer in analysis.costs.layers}
    ending: dict[int, Gateable] = {}
    passing: list[Gateable] = []
    for region in regions.find(list(layer_of), _MOST_LAYERS):
        inside = tuple(layer_of[index] for index in region.layers)
        end = _placed(graph, regions, region, "nothing")
        if end is not None:
            reader = graph.consumers[region.exit][0]
            known = ending.get(reader)
            if known is None or len(end) > len(known.nodes):
                ending[reader] = Gateable(Replacement(region.entry, region.exit, "nothing"), end, inside)
        passed = _placed(graph, regions, region, "identity")
        if passed is not None and _same_axes(analysis, region):
            passing.append(Gateable(Replacement(region.entry, region.exit, "identity"), passed, inside))
    chosen: list[Gateable] = []
    for one in (*sorted(ending.values(), key=lambda g: -len(g.nodes)), *sorted(passing, key=lambda g: len(g.nodes))):
        nested = all(one.nodes.isdisjoint(g.nodes) or one.nodes < g.nodes or g.nodes < one.nodes for g in chosen)
        around = any(set(g.layers) <= set(one.layers) for g in chosen)
        if nested and not (one.replacement.kind == "identity" and around):
            chosen.append(one)
    return sorted(chosen, key=lambda g: max(g.nodes))


def _placed(graph: Graph, regions: Regions, region: Region, kind: Kind) -> frozenset[int] | None:
    try:
        found = place(
            graph, regions, Replacement(region.entry, region.exit, "nothing" if kind == "nothing" else "identity")
        )
    except PlanError:
        return None
    return frozenset(found.nodes)


def _same_axes(analysis: Analysis, region: Region) -> bool:
    """Whether positions at both ends of a region are coupled one by one: those that have gates have the same."""
    coupling, extents = analysis.coupling, analysis.shapes.extents
    for dim in range(len(extents[region.exit])):
        ends = [coupling.class_of.get(coupling.axes.id(name, dim)) for name in (region.entry, region.exit)]
        if ends[0] != ends[1]:
            return False
    return True


def relaxations(analysis: Analysis, metric: Metric) -> list[Gateable]:
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
        nodes = None if ends is None else _placed(graph, regions, region, "identity")
        if ends is None or nodes is None:
            continue
        way = Replacement(region.entry, region.exit, "identity")
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
        found.append((sum(lost.values()) - made, Gateable(way, nodes, inside, Merge(inside, made, ends))))
    chosen: list[Gateable] = []
    for _, one in sorted(found, key=lambda pair: -pair[0]):
        if all(set(one.layers).isdisjoint(other.layers) for other in chosen):
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


def outermost(regions: Sequence[Gateable]) -> list[Gateable]:
    """Those that lie in no other."""
    return [one for one in regions if not any(one.nodes < other.nodes for other in regions)]
