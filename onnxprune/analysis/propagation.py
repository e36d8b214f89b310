"""The first level of the dependency analysis: which axes can lose positions, and what joins them.

The candidate flag starts at producer axes and follows all relations; every Reshape on the way is decided. Axes that
*same* joins form a class, which shares one vector of positions.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import product

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from onnxprune.errors import UsageError
from onnxprune.ir.graph import Graph, UnknownShapeError
from onnxprune.ir.state import StatePair
from onnxprune.ops import Registry
from onnxprune.ops.relations import (
    BORDER,
    AxisTable,
    Balanced,
    IntArray,
    Mapped,
    Pin,
    Regrouped,
    Relations,
    Same,
)
from onnxprune.ops.row_major import components, counter, pairs


class Split(Enum):
    """Which part of an axis that a Reshape splits carries a removal.

    FINEST takes the part with the finest atoms (the width of attention heads, usually), OUTER the outermost part
    that anything can be removed from (whole heads, whole groups of channels).
    """

    FINEST = "finest"
    OUTER = "outer"


@dataclass(frozen=True)
class Decision:
    """The axes that carry a removal through one Reshape block."""

    block: Regrouped
    carrier: Mapped

    def alternatives(self, axis: int) -> tuple[int, ...]:
        """The other axes on the same side of the block."""
        side = self.block.ins if axis in self.block.ins else self.block.outs
        return tuple(other for other in side if other != axis)


@dataclass(frozen=True)
class AxisCoupling:
    """Candidate axes, their classes, and the relations and pins among them.

    ``class_of`` maps candidate axes to classes and ``members`` back; class ``c`` owns the positions ``offsets[c]``
    to ``offsets[c + 1]``. ``unknown`` holds the nodes that are not understood, by index, and why.
    """

    graph: Graph
    relations: Relations
    class_of: Mapping[int, int]
    members: tuple[tuple[int, ...], ...]
    offsets: IntArray
    pins: tuple[Pin, ...]
    edges: tuple[Same | Mapped, ...]
    balances: tuple[Balanced, ...]
    unknown: Mapping[int, str]
    decisions: tuple[Decision, ...]

    @property
    def axes(self) -> AxisTable:
        """The numbering of axes."""
        return self.relations.axes

    @cached_property
    def links(self) -> tuple[tuple[IntArray, IntArray], ...]:
        """The pairs of positions that *mapped* relations join, all in one pair of arrays."""
        mapped = [edge for edge in self.edges if isinstance(edge, Mapped)]
        if not mapped:
            return ()
        lengths = [len(edge.at_a) for edge in mapped]
        from_a = self.offsets[[self.class_of[edge.a] for edge in mapped]]
        from_b = self.offsets[[self.class_of[edge.b] for edge in mapped]]
        at_a = np.concatenate([edge.at_a for edge in mapped])
        at_b = np.concatenate([edge.at_b for edge in mapped])
        return ((at_a + np.repeat(from_a, lengths), at_b + np.repeat(from_b, lengths)),)


def couple_axes(
    graph: Graph,
    relations: Relations,
    unknown: Mapping[int, str],
    split: Split = Split.FINEST,
    rejected: Collection[tuple[Regrouped, int]] = (),
) -> AxisCoupling:
    """Find candidate axes and their classes; ``rejected`` axes do not carry removals through those blocks."""
    edges, candidates, decisions = _propagate(graph, relations, split, rejected)
    pins = tuple(_pins(graph, relations, candidates, unknown, decisions))
    class_of, members = _classes(relations.axes, edges, candidates)
    offsets = np.zeros(len(members) + 1, dtype=np.int64)
    np.cumsum([relations.axes.extents[m[0]] for m in members], out=offsets[1:])
    balances = tuple(b for b in relations.balances if b.axis in class_of)
    return AxisCoupling(
        graph, relations, class_of, members, offsets, pins, tuple(edges), balances, unknown, tuple(decisions)
    )


def relate(graph: Graph, registry: Registry, relations: Relations | None = None) -> tuple[Relations, dict[int, str]]:
    """Ask every operator for its relations. Never fails: nodes that are not understood are returned with reasons."""
    relations = Relations(AxisTable(graph.shapes.extents)) if relations is None else relations
    unknown: dict[int, str] = {}
    for node in graph.nodes:
        relations.begin(node.index)
        operator = registry.find(node)
        if operator is None:
            where = f"{node.domain}.{node.op_type}" if node.domain else f"{node.op_type} of opset {node.version}"
            unknown[node.index] = f"operator {where} is not known"
            continue
        try:
            operator.relate(node, relations)
        except (UnknownShapeError, KeyError) as error:
            relations.forget()
            unknown[node.index] = f"the shape of tensor '{error.args[0]}' is not known"
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            # A malformed or unforeseen node must not end the analysis: it is pinned, and the reason reported.
            relations.forget()
            unknown[node.index] = f"its axes could not be related ({error})"
    return relations, unknown


def relate_state(graph: Graph, relations: Relations, state: Iterable[StatePair]) -> None:
    """Let a state that comes in and goes out shrink as one: position i of the input is position i of the output.

    Raises UsageError where the two cannot be one state.
    """
    shapes = graph.shapes
    relations.begin(BORDER)
    for pair in state:
        before, after = shapes.extents.get(pair.input), shapes.extents.get(pair.output)
        if before is None or after is None:
            unknown = pair.input if before is None else pair.output
            raise UsageError(f"state {pair}: the shape of '{unknown}' is not known")
        if len(before) != len(after):
            raise UsageError(f"state {pair}: the input has {len(before)} dimensions, the output {len(after)}")
        for dim, extents in enumerate(zip(before, after, strict=True)):
            if not shapes.is_static(pair.input, dim) or not shapes.is_static(pair.output, dim):
                continue  # a batch, or a length that grows
            if extents[0] != extents[1]:
                raise UsageError(f"state {pair}: extents {extents[0]} and {extents[1]} in dimension {dim} differ")
            relations.equal(pair.input, dim, pair.output, dim)


def _propagate(
    graph: Graph, relations: Relations, split: Split, rejected: Collection[tuple[Regrouped, int]]
) -> tuple[list[Same | Mapped], set[int], list[Decision]]:
    """Carry the candidate flag from producer axes along all relations, deciding every regrouping on the way.

    Nodes are visited in topological order as far as possible, so that a Reshape knows what reaches it from before.
    Returns the relations among candidates, the candidates, and the decisions.
    """
    axes = relations.axes
    by_node: dict[int, list[Same | Mapped]] = {}
    for same in relations.same:
        by_node.setdefault(same.node, []).append(same)
    for mapped in relations.mapped:
        by_node.setdefault(mapped.node, []).append(mapped)
    blocks: dict[int, list[Regrouped]] = {}
    for block in relations.regrouped:
        blocks.setdefault(block.node, []).append(block)

    carried = {axis for same in by_node.get(BORDER, ()) for axis in (same.a, same.b)}
    candidates: set[int] = set()
    decided: dict[tuple[int, int], Decision] = {}
    heap: list[int] = []
    queued: set[int] = set()

    def mark(axis: int) -> None:
        if axis in candidates or axes.extents[axis] == 1:
            return
        candidates.add(axis)
        for index in (*graph.touching(axes.tensor(axis)), *((BORDER,) if axis in carried else ())):
            if index not in queued:
                queued.add(index)
                heapq.heappush(heap, index)

    for producer in relations.producers:
        mark(producer.axis)
    while heap:
        index = heapq.heappop(heap)
        queued.discard(index)
        for edge in by_node.get(index, ()):
            if edge.a in candidates:
                mark(edge.b)
            elif edge.b in candidates:
                mark(edge.a)
        for place, block in enumerate(blocks.get(index, ())):
            if (index, place) not in decided and any(a in candidates for a in block.ins + block.outs):
                carrier = _decide(block, candidates, axes, split, rejected)
                decided[index, place] = Decision(block, carrier)
                mark(carrier.a)
                mark(carrier.b)
    edges = [e for found in by_node.values() for e in found if e.a in candidates and e.b in candidates]
    edges.extend(decision.carrier for decision in decided.values())
    return edges, candidates, list(decided.values())


def _decide(
    block: Regrouped,
    candidates: set[int],
    axes: AxisTable,
    split: Split,
    rejected: Collection[tuple[Regrouped, int]],
) -> Mapped:
    """Choose the axis on either side that carries a removal: candidates first, then as ``split`` says."""

    def options(side: tuple[int, ...]) -> list[int]:
        able = [a for a in side if (block, a) not in rejected] or list(side)
        return [a for a in able if a in candidates] or able

    sizes_in = [axes.extents[a] for a in block.ins]
    sizes_out = [axes.extents[a] for a in block.outs]
    best: tuple[int, tuple[int, int]] | None = None
    for a, b in product(options(block.ins), options(block.outs)):
        atoms = components(counter(sizes_in, block.ins.index(a)), counter(sizes_out, block.outs.index(b)))
        if best is None or atoms > best[0]:
            best = (atoms, (a, b))
        if split is Split.OUTER and atoms > 1:
            break
    assert best is not None
    a, b = best[1]
    at_a, at_b = pairs(counter(sizes_in, block.ins.index(a)), counter(sizes_out, block.outs.index(b)))
    return Mapped(a, b, at_a, at_b, block.node)


def _pins(
    graph: Graph,
    relations: Relations,
    candidates: set[int],
    unknown: Mapping[int, str],
    decisions: Iterable[Decision],
) -> Iterable[Pin]:
    """The pins stated by operators, and those that follow from silence: borders, unknown nodes, dynamic extents."""
    axes = relations.axes
    inputs, outputs = set(graph.inputs), set(graph.outputs)
    carried = {axis for same in relations.same if same.node == BORDER for axis in (same.a, same.b)}
    for axis in sorted(candidates):
        name, dim = axes.axis(axis)
        if name in outputs and axis not in carried:
            yield Pin(axis, f"reaches graph output '{name}'", graph.producer.get(name, BORDER))
        if name in inputs and axis not in carried:
            yield Pin(axis, f"is part of graph input '{name}'", BORDER)
        if not graph.shapes.is_static(name, dim):
            yield Pin(axis, "its extent follows the input shape", graph.producer.get(name, -1))
        for index in graph.touching(name):
            if axis not in relations.mentioned[index]:
                reason = unknown.get(index)
                if reason is None and name in graph.captured.get(index, ()):
                    reason = "captured by a control-flow body"
                op_type = graph.nodes[index].op_type
                yield Pin(axis, reason or f"{op_type} does not let this axis shrink", index)
    yield from (pin for pin in relations.pins if pin.axis in candidates)
    for decision in decisions:
        block, carrier = decision.block, decision.carrier
        for axis in block.ins + block.outs:
            if axis in candidates and axis not in (carrier.a, carrier.b):
                yield Pin(axis, "another axis of the Reshape carries the removal", block.node)


def _classes(
    axes: AxisTable, edges: Iterable[Same | Mapped], candidates: set[int]
) -> tuple[dict[int, int], tuple[tuple[int, ...], ...]]:
    ordered = sorted(candidates)
    place = {axis: i for i, axis in enumerate(ordered)}
    pairs = np.array([(place[e.a], place[e.b]) for e in edges if isinstance(e, Same)], dtype=np.int64).reshape(-1, 2)
    matrix = coo_matrix((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(ordered),) * 2)
    count, found = connected_components(matrix, directed=False) if ordered else (0, np.zeros(0, dtype=np.int64))
    members: list[list[int]] = [[] for _ in range(count)]
    for axis, index in zip(ordered, found.tolist(), strict=True):
        members[index].append(axis)
    return {a: i for i, m in enumerate(members) for a in m}, tuple(tuple(m) for m in members)
