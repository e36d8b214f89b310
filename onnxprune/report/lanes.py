"""The coupling graph as a drawing: layers from left to right, groups as lanes that they read from and write to.

A lane is a line that spans the layers of one group; groups that do not overlap share a height, so that a residual
network of hundreds of layers needs a handful of lines.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.cost import Layer
from onnxprune.analysis.explain import why_no_candidate


@dataclass(frozen=True)
class Coupled:
    """One layer: the groups that its filters belong to, those it reads, and why channels of it are pinned.

    ``pins`` are (reason, node, axis); ``note`` says why the layer's filters are no candidates at all, if so.
    """

    makes: tuple[int, ...]
    reads: tuple[int, ...]
    pins: tuple[tuple[str, str, str], ...]
    note: str | None


@dataclass(frozen=True)
class Lane:
    """A group from its ``first`` to its ``last`` layer (by position), drawn at a ``height`` counted from 0."""

    group: int
    first: int
    last: int
    height: int


def couplings(analysis: Analysis) -> tuple[Coupled, ...]:
    """What couples every layer, in the order of ``analysis.layers``."""
    return tuple(_coupled(analysis, layer) for layer in analysis.costs.layers)


def lanes(layers: tuple[Coupled, ...]) -> tuple[Lane, ...]:
    """A lane per group that any layer reads or writes, packed to few heights."""
    spans: dict[int, tuple[int, int]] = {}
    for position, layer in enumerate(layers):
        for group in (*layer.makes, *layer.reads):
            first, _ = spans.get(group, (position, position))
            spans[group] = (first, position)
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    found = []
    heights = 0
    # By start, long ones first: a residual stream takes the height below those of the blocks that it passes by.
    for group, (first, last) in sorted(spans.items(), key=lambda item: (item[1][0], -item[1][1])):
        while busy and busy[0][0] < first:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            height = heapq.heappop(free)
        else:
            height, heights = heights, heights + 1
        heapq.heappush(busy, (last, height))
        found.append(Lane(group, first, last, height))
    return tuple(found)


def _coupled(analysis: Analysis, layer: Layer) -> Coupled:
    coupling, graph = analysis.coupling, analysis.graph
    extents = graph.shapes.extents
    reads: dict[int, None] = {}
    for tensor in graph.nodes[layer.node].inputs:
        if tensor in graph.constants or tensor not in extents:
            continue
        for axis in coupling.axes.axes_of(tensor, len(extents[tensor])):
            reads.update(dict.fromkeys(group.index for group in coupling.groups_on(axis)))
    reports = [analysis.pin_report(pin) for pin in coupling.pins_on(layer.output_axis)]
    owner = coupling.class_of.get(layer.output_axis)
    note = None
    if owner is None:
        note = why_no_candidate(analysis, layer, coupling.axes.extents[layer.output_axis])
    return Coupled(
        makes=tuple(group.index for group in analysis.groups_of(layer)),
        reads=tuple(reads),
        pins=tuple(dict.fromkeys((pin.reason, pin.node, pin.axis) for pin in reports)),
        note=note,
    )
