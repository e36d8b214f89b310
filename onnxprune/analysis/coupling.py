"""The dependency analysis: from relations between axes to atoms and groups.

Two levels. Axes joined by *same* form a class and share one vector of positions; only *mapped* relations work on
positions, vectorised. Atoms are the connected components of positions; a pin marks its whole component; groups are
the atoms that live on the same classes in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.analysis.atoms import Group, Grouping, find_atoms
from onnxprune.analysis.propagation import AxisCoupling, Split, couple_axes, relate, relate_state
from onnxprune.ir.graph import Graph
from onnxprune.ir.state import StatePair
from onnxprune.ops import Registry
from onnxprune.ops.relations import IntArray, Pin, Regrouped, Same

if TYPE_CHECKING:
    import networkx as nx

#: How often the carriers of Reshapes are chosen anew.
_MOST_TRIALS = 4


@dataclass(frozen=True)
class Coupling(AxisCoupling):
    """The solved dependencies of one graph: axes, and the atoms and groups of their positions.

    ``labels`` holds the component of every position, and ``pin_of`` for each component the index of its pin in
    ``pins``, or -1. ``grouping`` is the treatment of grouped convolutions that the atoms are found under.
    """

    labels: IntArray
    pin_of: IntArray
    groups: tuple[Group, ...]
    grouping: Grouping

    def under(self, grouping: Grouping) -> Coupling:
        """The same dependencies with another treatment of grouped convolutions."""
        return self if grouping is self.grouping or not self.balances else _solved(self, grouping)

    @cached_property
    def relative(self) -> dict[int, tuple[int, int]]:
        """Weight axes that count positions within a group, with the class of the full axis and the group count."""
        if self.grouping is Grouping.WHOLE:
            return {}  # Where whole groups go, the extent within a group does not change.
        return {b.relative: (self.class_of[b.axis], b.blocks) for b in self.balances if b.relative is not None}

    @property
    def extents(self) -> IntArray:
        """The number of positions of every class."""
        return np.diff(self.offsets)

    @cached_property
    def removable(self) -> int:
        """How many atoms may go."""
        return sum(len(group.atoms) for group in self.groups)

    def stuck_carriers(self) -> set[tuple[Regrouped, int]]:
        """Axes that carry removals through a Reshape, are pinned altogether, and have alternatives."""
        found: set[tuple[Regrouped, int]] = set()
        for decision in self.decisions:
            for axis in (decision.carrier.a, decision.carrier.b):
                if decision.alternatives(axis) and (self.pin_of[self.class_labels(self.class_of[axis])] >= 0).all():
                    found.add((decision.block, axis))
        return found

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
        import networkx as nx  # only explanations need it, and the import takes longer than most analyses

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


def solve(
    graph: Graph,
    registry: Registry,
    grouping: Grouping = Grouping.ALIGNED,
    split: Split = Split.FINEST,
    state: Sequence[StatePair] = (),
) -> Coupling:
    """Relate the axes of ``graph`` and find its atoms and groups. What is not understood is pinned.

    Raises UsageError where ``state`` names what cannot be one state; else it never fails.

    Where a Reshape lets several axes carry a removal and the chosen one turns out to be pinned, another is tried.
    """
    relations, unknown = relate(graph, registry)
    relate_state(graph, relations, state)
    rejected: set[tuple[Regrouped, int]] = set()
    best: Coupling | None = None
    for _ in range(_MOST_TRIALS):
        coupling = _solved(couple_axes(graph, relations, unknown, split, rejected), grouping)
        if best is None or coupling.removable > best.removable:
            best = coupling
        stuck = coupling.stuck_carriers() - rejected
        if not stuck:
            break
        rejected |= stuck
    assert best is not None
    return best


def _solved(base: AxisCoupling, grouping: Grouping) -> Coupling:
    atoms = find_atoms(base, grouping)
    return Coupling(
        graph=base.graph,
        relations=base.relations,
        class_of=base.class_of,
        members=base.members,
        offsets=base.offsets,
        pins=base.pins,
        edges=base.edges,
        balances=base.balances,
        unknown=base.unknown,
        decisions=base.decisions,
        labels=atoms.labels,
        pin_of=atoms.pin_of,
        groups=atoms.groups,
        grouping=grouping,
    )
