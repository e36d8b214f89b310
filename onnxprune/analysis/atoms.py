"""The second level of the dependency analysis: atoms, the components of positions, and groups of equal atoms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from onnxprune.analysis.balance import BalancedCells, Blocks, Cell, balanced_cells, blocks_of, cells_of
from onnxprune.analysis.propagation import AxisCoupling
from onnxprune.ops.relations import Approximate, Balanced, IntArray, Pin, Relations


class Grouping(Enum):
    """How grouped convolutions stay valid: every group has to keep equally many channels.

    ALIGNED removes the same relative positions from every group; BALANCED lets every group choose its own;
    WHOLE removes whole groups. FREE does not tie them at all; it is for checking plans, not for making them.
    """

    ALIGNED = "aligned"
    BALANCED = "balanced"
    WHOLE = "whole"
    FREE = "free"


@dataclass(frozen=True)
class Group:
    """Atoms of which any unit may go, and each unit costs and saves the same.

    ``atoms`` are component labels, ``cells`` says to which cell each belongs, and a unit consists of ``take[c]``
    atoms of every cell c: a single atom as a rule, several where grouped convolutions have to keep their groups
    equally large. ``classes`` and ``multiplicity`` say how many positions of which class one unit takes.
    ``approximate`` holds the reason if removal changes kept channels, else None; ``mendable`` tells that the option
    ``exact_norm`` makes it exact.
    """

    index: int
    atoms: IntArray
    cells: IntArray
    take: IntArray
    classes: IntArray
    multiplicity: IntArray
    approximate: str | None
    mendable: bool = False

    def is_exact(self, *, exact_norm: bool) -> bool:
        """Whether what is kept computes what it did when removed positions are zero."""
        return self.approximate is None or (exact_norm and self.mendable)

    @cached_property
    def width(self) -> int:
        """How many atoms go together."""
        return int(self.take.sum())

    @cached_property
    def units(self) -> int:
        """How many units the group holds."""
        return int((np.bincount(self.cells) // self.take).min())

    def lowest(self, units: int, scores: NDArray[np.float64]) -> IntArray:
        """The atoms of that many units with the lowest scores (one per component label) of every cell."""
        chosen = [np.zeros(0, dtype=np.int64)]
        for cell, take in enumerate(self.take.tolist()):
            members = self.atoms[self.cells == cell]
            chosen.append(members[np.argsort(scores[members], kind="stable")[: units * take]])
        return np.concatenate(chosen)

    def losses(self, scores: NDArray[np.float64], worth: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the first 0, 1, 2, ... units with the lowest ``scores`` are worth together (one per component label)."""
        total = np.zeros(self.units + 1)
        for cell, take in enumerate(self.take.tolist()):
            members = self.atoms[self.cells == cell]
            ordered = members[np.argsort(scores[members], kind="stable")][: self.units * take]
            total[1:] += np.cumsum(worth[ordered])[take - 1 :: take]
        return total


@dataclass(frozen=True)
class Atoms:
    """The components of positions and the groups they form, under one treatment of grouped convolutions."""

    labels: IntArray
    pin_of: IntArray
    groups: tuple[Group, ...]


def find_atoms(base: AxisCoupling, grouping: Grouping) -> Atoms:
    """The second level: components of positions, under one treatment of grouped convolutions."""
    size = int(base.offsets[-1])
    if grouping is Grouping.FREE or grouping is Grouping.WHOLE:
        whole = _whole_blocks(base) if grouping is Grouping.WHOLE else []
        labels = _components(size, [*base.links, *whole])
        axes: list[Blocks] = []
    else:
        loose = _loose(base, size) if grouping is Grouping.ALIGNED else set(range(len(base.balances)))
        labels, axes = _balanced_components(base, size, loose)
    pin_of = _pinned_components(base.pins, base.class_of, base.offsets, labels)
    return Atoms(labels, pin_of, tuple(_groups(base, labels, pin_of, axes)))


def _components(size: int, links: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    # What scipy would convert everything to: small indices, and floats that it does not look at.
    dtype = np.int32 if size <= np.iinfo(np.int32).max else np.int64
    rows = np.concatenate([np.zeros(0, dtype=dtype), *(a.astype(dtype) for a, _ in links)])
    columns = np.concatenate([np.zeros(0, dtype=dtype), *(b.astype(dtype) for _, b in links)])
    matrix = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    labels: IntArray = connected_components(matrix, directed=False)[1].astype(np.int64)
    return labels


def _block_positions(balance: Balanced, base: AxisCoupling) -> tuple[IntArray, IntArray]:
    """The positions of a balanced axis (counted over all classes), and the block of each."""
    owner = base.class_of[balance.axis]
    at = np.arange(base.offsets[owner], base.offsets[owner + 1])
    return at, np.arange(len(at)) // (len(at) // balance.blocks)


def _aligned(balance: Balanced, base: AxisCoupling) -> tuple[IntArray, IntArray]:
    """Links that tie the same relative position of every block."""
    at, _ = _block_positions(balance, base)
    return at, np.tile(at[: len(at) // balance.blocks], balance.blocks)


def _whole_blocks(base: AxisCoupling) -> list[tuple[IntArray, IntArray]]:
    """Links that tie each group of a grouped convolution: its input channels and its filters."""
    by_node: dict[int, list[Balanced]] = {}
    for balance in base.balances:
        by_node.setdefault(balance.node, []).append(balance)
    links: list[tuple[IntArray, IntArray]] = []
    for balances in by_node.values():
        if not any(b.relative is not None for b in balances):
            links.extend(_aligned(b, base) for b in balances)  # only convolutions can do with fewer groups
            continue
        first, block = _block_positions(balances[0], base)
        heads = first[:: len(first) // balances[0].blocks]
        links.append((first, heads[block]))
        for other in balances[1:]:
            at, block = _block_positions(other, base)
            links.append((at, heads[block]))
        if len(balances) < 2:
            links.append((first, np.full(len(first), first[0])))  # the other side cannot follow: nothing may go
    return links


def _loose(base: AxisCoupling, size: int) -> set[int]:
    """The balanced axes that are better not aligned, with all that share components with them.

    Where the blocks of two convolutions overlap (a Concat between them), ties of both leave only few atoms; then
    their groups choose for themselves.
    """
    if not base.balances:
        return set()
    aligned = _components(size, [*base.links, *(_aligned(b, base) for b in base.balances)])
    poor = {
        index
        for index, balance in enumerate(base.balances)
        if 2 * len(np.unique(aligned[_block_positions(balance, base)[0]]))
        < len(_block_positions(balance, base)[0]) // balance.blocks
    }
    if not poor:
        return poor
    untied = _components(size, base.links)
    on = [set(untied[_block_positions(balance, base)[0]].tolist()) for balance in base.balances]
    grown = True
    while grown:
        reached = set().union(*(on[index] for index in poor))
        more = {index for index in range(len(on)) if index not in poor and reached & on[index]}
        # Both sides of one convolution have the same groups, but they are balanced one by one.
        grown = bool(more)
        poor |= more
    return poor


def _balanced_components(base: AxisCoupling, size: int, loose: set[int]) -> tuple[IntArray, list[Blocks]]:
    """Components where the groups on ``loose`` axes choose their own positions; all others are aligned.

    An axis on which some component lies in several blocks, but not equally, is aligned after all.
    """
    while True:
        tied = [_aligned(b, base) for index, b in enumerate(base.balances) if index not in loose]
        labels = _components(size, [*base.links, *tied])
        count = int(labels.max()) + 1 if len(labels) else 0
        axes: list[Blocks] = []
        uneven: set[int] = set()
        for index in sorted(loose):
            balance = base.balances[index]
            owner = base.class_of[balance.axis]
            found = blocks_of(owner, balance.blocks, labels[base.offsets[owner] : base.offsets[owner + 1]], count)
            if found is None:
                uneven.add(index)
            else:
                axes.append(found)
        if not uneven:
            return labels, axes
        loose = loose - uneven


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


def _groups(base: AxisCoupling, labels: IntArray, pin_of: IntArray, axes: list[Blocks]) -> list[Group]:
    if not len(labels):
        return []
    offsets, class_of = base.offsets, base.class_of
    produced = np.zeros(len(pin_of), dtype=bool)
    for axis in {p.axis for p in base.relations.producers if p.axis in class_of}:
        owner = class_of[axis]
        produced[labels[offsets[owner] : offsets[owner + 1]]] = True
    atoms = np.flatnonzero(produced & (pin_of < 0))
    if not len(atoms):
        return []
    shape = (len(pin_of), len(offsets) - 1)
    class_of_position = np.repeat(np.arange(shape[1]), np.diff(offsets))
    table = coo_matrix((np.ones(len(labels), dtype=np.uint64), (labels, class_of_position)), shape=shape).tocsr()
    table.sum_duplicates()
    # Atoms with equal rows form a group; rows are compared by a 64-bit hash (wrapping multiplication and sum).
    weights = np.random.default_rng(0).integers(1, 2**63, size=shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = np.asarray(table @ weights)[atoms]
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    by_group = np.split(atoms[np.argsort(inverse, kind="stable")], np.cumsum(np.bincount(inverse))[:-1])
    approximate = _approximate_classes(base.relations, class_of)
    cells: list[tuple[Cell, ...]] = []
    for signature in np.argsort(first).tolist():
        found = by_group[signature]
        row = slice(table.indptr[found[0]], table.indptr[found[0] + 1])
        per_class = dict(zip(table.indices[row].tolist(), table.data[row].tolist(), strict=True))
        cells.append(cells_of(found, per_class, axes))
    return [_group(index, found, approximate) for index, found in enumerate(balanced_cells(cells, axes))]


def _group(index: int, balanced: BalancedCells, approximate: Mapping[int, Approximate]) -> Group:
    per_class: Counter[int] = Counter()
    for cell, take in zip(balanced.cells, balanced.take.tolist(), strict=True):
        per_class.update({owner: take * positions for owner, positions in cell.per_class.items()})
    # What cannot be mended comes first: it is what has to be said of the group.
    reasons = sorted((approximate[owner] for owner in per_class if owner in approximate), key=lambda r: r.mendable)
    return Group(
        index,
        atoms=np.concatenate([cell.atoms for cell in balanced.cells]),
        cells=np.repeat(np.arange(len(balanced.cells)), [len(cell.atoms) for cell in balanced.cells]),
        take=balanced.take,
        classes=np.array(list(per_class), dtype=np.int64),
        multiplicity=np.array(list(per_class.values()), dtype=np.int64),
        approximate=reasons[0].reason if reasons else None,
        mendable=bool(reasons) and reasons[0].mendable,
    )


def _approximate_classes(relations: Relations, class_of: Mapping[int, int]) -> dict[int, Approximate]:
    """One approximation of every class that has some: one that cannot be mended, if there is one."""
    found: dict[int, Approximate] = {}
    for approximation in sorted(relations.approximations, key=lambda a: a.mendable):
        if approximation.axis in class_of:
            found.setdefault(class_of[approximation.axis], approximation)
    return found
