"""The dependency analysis: from relations between axes to atoms and groups.

Two levels. Axes joined by *same* form a class and share one vector of positions; only *mapped* relations work on
positions, vectorised. Atoms are the connected components of positions; a pin marks its whole component; groups are
the atoms that live on the same classes in the same way.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from onnxprune.graph import Graph, UnknownShapeError
from onnxprune.ops import Registry
from onnxprune.relations import (
    AxisTable,
    Balanced,
    IntArray,
    Mapped,
    Pin,
    Regrouped,
    Relations,
    Same,
    component_count,
)


@dataclass(frozen=True)
class Group:
    """Atoms that live on the same classes in the same way: removing any of them costs and saves the same.

    ``atoms`` are component labels; ``cells`` says for each to which cell it belongs: one atom of every cell goes
    together (grouped convolutions; otherwise there is one cell). ``classes`` and ``multiplicity`` say how many
    positions of which class one such unit takes. ``approximate`` holds the reason if removal changes kept
    channels, else None.
    """

    index: int
    atoms: IntArray
    cells: IntArray
    classes: IntArray
    multiplicity: IntArray
    approximate: str | None

    @property
    def cell_count(self) -> int:
        """How many atoms go together."""
        return int(self.cells.max()) + 1

    @property
    def units(self) -> int:
        """How many units of one atom per cell the group holds."""
        return int(np.bincount(self.cells).min())


@dataclass(frozen=True)
class Coupling:
    """The solved dependencies of one graph.

    ``class_of`` maps candidate axes to classes; class ``c`` owns the positions ``offsets[c]`` to
    ``offsets[c + 1]``, and ``labels`` holds the component of every position. ``pin_of`` gives for each component
    the index of its pin in ``pins``, or -1. ``relative`` maps the weight axes of grouped convolutions that count
    positions within a group to (class of the full axis, number of groups).
    """

    graph: Graph
    relations: Relations
    class_of: Mapping[int, int]
    members: tuple[tuple[int, ...], ...]
    offsets: IntArray
    labels: IntArray
    pin_of: IntArray
    pins: tuple[Pin, ...]
    groups: tuple[Group, ...]
    relative: Mapping[int, tuple[int, int]]
    edges: tuple[Same | Mapped, ...]
    unknown: Mapping[int, str]

    @property
    def axes(self) -> AxisTable:
        """The numbering of axes."""
        return self.relations.axes

    @property
    def extents(self) -> IntArray:
        """The number of positions of every class."""
        return np.diff(self.offsets)

    def class_labels(self, index: int) -> IntArray:
        """The components of the positions of one class, in order."""
        return self.labels[self.offsets[index] : self.offsets[index + 1]]

    def removed_positions(self, removed: IntArray) -> list[IntArray]:
        """Per class, the positions whose component is in ``removed``."""
        gone = np.zeros(len(self.pin_of), dtype=bool)
        gone[removed] = True
        hit = gone[self.labels]
        where = np.flatnonzero(hit)
        cuts = np.searchsorted(where, self.offsets)
        return [where[cuts[c] : cuts[c + 1]] - self.offsets[c] for c in range(len(self.offsets) - 1)]

    def groups_on(self, axis: int) -> list[Group]:
        """The groups with positions on an axis."""
        index = self.class_of.get(axis)
        return [] if index is None else self._groups_by_class.get(index, [])

    def pins_on(self, axis: int) -> list[Pin]:
        """The distinct pins that hold positions of an axis."""
        index = self.class_of.get(axis)
        if index is None:
            return []
        found = np.unique(self.pin_of[self.class_labels(index)])
        return [self.pins[p] for p in found if p >= 0]

    @cached_property
    def _groups_by_class(self) -> dict[int, list[Group]]:
        found: dict[int, list[Group]] = {}
        for group in self.groups:
            for index in group.classes.tolist():
                found.setdefault(index, []).append(group)
        return found

    @cached_property
    def network(self) -> nx.Graph:
        """The coupling graph: an :class:`Axis` per vertex; edges carry ``kind`` and ``nodes`` (their indices)."""
        network = nx.Graph()
        network.add_nodes_from(self.axes.axis(a) for a in self.class_of)
        for edge in self.edges:
            a, b = self.axes.axis(edge.a), self.axes.axis(edge.b)
            kind = "same" if isinstance(edge, Same) else "mapped"
            if network.has_edge(a, b):
                network[a][b]["nodes"].append(edge.node)
            else:
                network.add_edge(a, b, kind=kind, nodes=[edge.node])
        return network


def solve(graph: Graph, registry: Registry) -> Coupling:
    """Relate the axes of ``graph`` and find its atoms and groups. Never fails: what is not understood is pinned."""
    relations, unknown = _collect(graph, registry)
    edges, candidates, refused = _propagate(graph, relations)
    pins = tuple(_pins(graph, relations, candidates, unknown, refused))
    class_of, members = _classes(relations.axes, edges, candidates)
    offsets = np.zeros(len(members) + 1, dtype=np.int64)
    np.cumsum([relations.axes.extents[m[0]] for m in members], out=offsets[1:])
    mapped = [e for e in edges if isinstance(e, Mapped)]
    balances = [b for b in relations.balances if b.axis in class_of]
    links = [(offsets[class_of[e.a]] + e.at_a, offsets[class_of[e.b]] + e.at_b) for e in mapped]
    tied: set[int] = set()
    while True:
        labels = _components(int(offsets[-1]), links)
        broken = _unbalanced(balances, tied, class_of, offsets, labels, relations, pins)
        if not broken:
            break
        for index in broken:
            tied.add(index)
            links.append(_aligned(balances[index], class_of, offsets, relations.axes))
    free = [b for index, b in enumerate(balances) if index not in tied]
    pin_of = _pinned_components(pins, class_of, offsets, labels)
    groups = _groups(relations, class_of, offsets, labels, pin_of, free, candidates)
    relative = {b.relative: (class_of[b.axis], b.blocks) for b in balances if b.relative is not None}
    return Coupling(
        graph,
        relations,
        class_of,
        members,
        offsets,
        labels,
        pin_of,
        pins,
        tuple(groups),
        relative,
        tuple(edges),
        unknown,
    )


def _collect(graph: Graph, registry: Registry) -> tuple[Relations, dict[int, str]]:
    relations = Relations(AxisTable(graph.shapes.extents))
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


def _propagate(graph: Graph, relations: Relations) -> tuple[list[Same | Mapped], set[int], list[Pin]]:
    """Carry the candidate flag from producer axes along all relations, deciding every regrouping on the way.

    Nodes are visited in topological order as far as possible, so that a Reshape knows what reaches it from before.
    Returns the relations among candidates, the candidates, and pins for axes a Reshape could not serve.
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

    candidates: set[int] = set()
    decided: dict[tuple[int, ...], Mapped | Same] = {}
    heap: list[int] = []
    queued: set[int] = set()

    def mark(axis: int) -> None:
        if axis in candidates or axes.extents[axis] == 1:
            return
        candidates.add(axis)
        for index in graph.touching(axes.tensor(axis)):
            if index not in queued:
                queued.add(index)
                heapq.heappush(heap, index)

    for producer in relations.producers:
        mark(producer.axis)
    edges_of: dict[int, list[Same | Mapped]] = {}
    while heap:
        index = heapq.heappop(heap)
        queued.discard(index)
        for edge in by_node.get(index, ()):
            if edge.a in candidates:
                mark(edge.b)
            elif edge.b in candidates:
                mark(edge.a)
        for place, block in enumerate(blocks.get(index, ())):
            if (index, place) in decided or not any(a in candidates for a in block.ins + block.outs):
                continue
            chosen = _decide(block, candidates, axes)
            decided[index, place] = chosen
            edges_of.setdefault(index, []).append(chosen)
            mark(chosen.a)
            mark(chosen.b)
    refused = [
        Pin(axis, "another axis of the Reshape carries the removal", block.node)
        for index, found in blocks.items()
        for place, block in enumerate(found)
        if (index, place) in decided
        for axis in block.ins + block.outs
        if axis in candidates and axis not in (decided[index, place].a, decided[index, place].b)
    ]
    edges = [e for found in by_node.values() for e in found if e.a in candidates and e.b in candidates]
    edges.extend(e for found in edges_of.values() for e in found)
    return edges, candidates, refused


def _decide(block: Regrouped, candidates: set[int], axes: AxisTable) -> Mapped | Same:
    """Choose the axis on either side that carries a removal: candidates first, then the finest atoms."""
    ins = [a for a in block.ins if a in candidates] or list(block.ins)
    outs = [a for a in block.outs if a in candidates] or list(block.outs)
    sizes_in = [axes.extents[a] for a in block.ins]
    sizes_out = [axes.extents[a] for a in block.outs]
    best: tuple[int, int, Mapped] | None = None
    for a in ins:
        for b in outs:
            at_a, at_b = _row_major_pairs(sizes_in, block.ins.index(a), sizes_out, block.outs.index(b))
            option = Mapped(a, b, at_a, at_b, block.node)
            if len(ins) == len(outs) == 1:
                return option
            atoms = component_count(at_a, at_b, axes.extents[a], axes.extents[b])
            if best is None or atoms > best[0]:
                best = (atoms, axes.extents[b], option)
    assert best is not None
    return best[2]


def _row_major_pairs(sizes_in: list[int], at_in: int, sizes_out: list[int], at_out: int) -> tuple[IntArray, IntArray]:
    """All pairs of coordinates that elements have on one axis of either side, each pair once."""
    total = int(np.prod(sizes_in))
    inner_in, inner_out = int(np.prod(sizes_in[at_in + 1 :])), int(np.prod(sizes_out[at_out + 1 :]))
    # Runs of elements shorter than both inner sizes have equal coordinates: one of each is enough.
    step = int(np.gcd(inner_in, inner_out))
    flat = np.arange(0, total, step, dtype=np.int64)
    a = flat // inner_in % sizes_in[at_in]
    b = flat // inner_out % sizes_out[at_out]
    if len(sizes_in) > 1 and len(sizes_out) > 1:
        pairs = np.unique(a * sizes_out[at_out] + b)
        a, b = np.divmod(pairs, sizes_out[at_out])
    return a, b


def _pins(
    graph: Graph,
    relations: Relations,
    candidates: set[int],
    unknown: Mapping[int, str],
    refused: Iterable[Pin],
) -> Iterable[Pin]:
    """The pins stated by operators, and those that follow from silence: borders, unknown nodes, dynamic extents."""
    axes = relations.axes
    inputs, outputs = set(graph.inputs), set(graph.outputs)
    for axis in sorted(candidates):
        name, dim = axes.axis(axis)
        if name in outputs:
            yield Pin(axis, f"reaches graph output '{name}'", graph.producer.get(name, -1))
        if name in inputs:
            yield Pin(axis, f"is part of graph input '{name}'", -1)
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
    yield from refused


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


def _components(size: int, links: list[tuple[IntArray, IntArray]]) -> IntArray:
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    rows = np.concatenate([a for a, _ in links]) if links else np.zeros(0, dtype=np.int64)
    columns = np.concatenate([b for _, b in links]) if links else np.zeros(0, dtype=np.int64)
    matrix = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    return connected_components(matrix, directed=False)[1].astype(np.int64)


def _blocks(balance: Balanced, class_of: Mapping[int, int], offsets: IntArray) -> tuple[IntArray, IntArray]:
    """The positions of a balanced axis (over all classes), and the block of each."""
    index = class_of[balance.axis]
    at = np.arange(offsets[index], offsets[index + 1])
    return at, np.arange(len(at)) // (len(at) // balance.blocks)


def _aligned(
    balance: Balanced, class_of: Mapping[int, int], offsets: IntArray, axes: AxisTable
) -> tuple[IntArray, IntArray]:
    """Links that tie the same relative position of every block."""
    at, _ = _blocks(balance, class_of, offsets)
    width = len(at) // balance.blocks
    return at, np.tile(at[:width], balance.blocks)


def _unbalanced(
    balances: list[Balanced],
    tied: set[int],
    class_of: Mapping[int, int],
    offsets: IntArray,
    labels: IntArray,
    relations: Relations,
    pins: tuple[Pin, ...],
) -> list[int]:
    """The balances that units of one atom per cell cannot keep; they have to be tied position by position."""
    return [index for index in range(len(balances)) if index not in tied]


def _pinned_components(
    pins: tuple[Pin, ...], class_of: Mapping[int, int], offsets: IntArray, labels: IntArray
) -> IntArray:
    pin_of = np.full(int(labels.max()) + 1 if len(labels) else 0, -1, dtype=np.int64)
    for index in range(len(pins) - 1, -1, -1):
        pin = pins[index]
        owner = class_of[pin.axis]
        held = labels[offsets[owner] : offsets[owner + 1]]
        pin_of[held if pin.positions is None else held[pin.positions]] = index
    return pin_of


def _groups(
    relations: Relations,
    class_of: Mapping[int, int],
    offsets: IntArray,
    labels: IntArray,
    pin_of: IntArray,
    balances: list[Balanced],
    candidates: set[int],
) -> list[Group]:
    if not len(labels):
        return []
    class_of_position = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    produced = np.zeros(len(pin_of), dtype=bool)
    for axis in {p.axis for p in relations.producers if p.axis in candidates}:
        owner = class_of[axis]
        produced[labels[offsets[owner] : offsets[owner + 1]]] = True
    atoms = np.flatnonzero(produced & (pin_of < 0))
    if not len(atoms):
        return []
    shape = (len(pin_of), len(offsets) - 1)
    table = coo_matrix((np.ones(len(labels), dtype=np.uint64), (labels, class_of_position)), shape=shape).tocsr()
    table.sum_duplicates()
    # Atoms with equal rows form a group; rows are compared by a 64-bit hash (wrapping multiplication and sum).
    weights = np.random.default_rng(0).integers(1, 2**63, size=shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = np.asarray(table[atoms] @ weights)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    approximate = _approximate_classes(relations, class_of)
    groups = []
    for index, signature in enumerate(order.tolist()):
        found = atoms[inverse == signature]
        row = table[[int(found[0])]]
        classes = row.indices.astype(np.int64)
        reason = next((approximate[c] for c in classes.tolist() if c in approximate), None)
        groups.append(
            Group(index, found, np.zeros(len(found), dtype=np.int64), classes, row.data.astype(np.int64), reason)
        )
    return groups


def _approximate_classes(relations: Relations, class_of: Mapping[int, int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for approximation in relations.approximations:
        if approximation.axis in class_of:
            found.setdefault(class_of[approximation.axis], approximation.reason)
    return found
