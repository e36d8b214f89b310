"""Which regions of a graph have gates, and what their absence saves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.cost import Metric
from onnxprune.errors import PlanError
from onnxprune.ir.graph import Graph
from onnxprune.ir.regions import Region, Regions
from onnxprune.ops.substitutes import Kind
from onnxprune.pruning.plan import Replacement
from onnxprune.pruning.regions.relaxing import Merge, is_plain, relaxations
from onnxprune.pruning.substituting import place

_MOST_LAYERS = 8
"""Layers of a region, at most."""


@dataclass(frozen=True)
class Gateable:
    """A region that may give way, its nodes, the layers in it (by number), and for an activation the merge."""

    replacement: Replacement
    nodes: frozenset[int]
    layers: tuple[int, ...]
    merge: Merge | None = None


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


def relaxed(analysis: Analysis, metric: Metric) -> list[Gateable]:
    """Activations between layers that become one without them, where that saves something."""
    found = relaxations(analysis, metric)
    return [Gateable(one.replacement, one.nodes, one.merge.layers, one.merge) for one in found]


def outermost(regions: Sequence[Gateable]) -> list[Gateable]:
    """Those that lie in no other."""
    return [one for one in regions if not any(one.nodes < other.nodes for other in regions)]
