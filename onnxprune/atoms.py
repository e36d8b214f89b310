"""The second level of the dependency analysis: atoms, the components of positions, and groups of equal atoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from onnxprune.propagation import AxisCoupling
from onnxprune.relations import Balanced, IntArray, Pin, Relations


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

    @cached_property
    def cell_count(self) -> int:
        """How many atoms go together."""
        return int(self.cells.max()) + 1

    @cached_property
    def units(self) -> int:
        """How many units of one atom per cell the group holds."""
        return int(np.bincount(self.cells).min())


@dataclass(frozen=True)
class Atoms:
    """The components of positions and the groups they form, under one treatment of grouped convolutions."""

    labels: IntArray
    pin_of: IntArray
    groups: tuple[Group, ...]


def find_atoms(base: AxisCoupling, grouping: Grouping) -> Atoms:
    """The second level: components of positions, under one treatment of grouped convolutions."""
    size = int(base.offsets[-1])
    keyed: list[_Keys] = []
    if grouping is Grouping.ALIGNED:
        labels = _components(size, [*base.links, *(_aligned(b, base) for b in base.balances)])
    elif grouping is Grouping.WHOLE:
        labels = _components(size, [*base.links, *_whole_blocks(base)])
    elif grouping is Grouping.FREE:
        labels = _components(size, base.links)
    else:
        labels, keyed = _balanced_components(base, size)
    pin_of = _pinned_components(base.pins, base.class_of, base.offsets, labels)
    groups = _groups(base, labels, pin_of, keyed)
    return Atoms(labels, pin_of, tuple(groups))


def _components(size: int, links: Sequence[tuple[IntArray, IntArray]]) -> IntArray:
    if size == 0:
        return np.zeros(0, dtype=np.int64)
    rows = np.concatenate([a for a, _ in links]) if links else np.zeros(0, dtype=np.int64)
    columns = np.concatenate([b for _, b in links]) if links else np.zeros(0, dtype=np.int64)
    matrix = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    labels: IntArray = connected_components(matrix, directed=False)[1].astype(np.int64)
    return labels


@dataclass(frozen=True)
class _Keys:
    """The block of every component on one balanced axis: -1 where it is not on it, or equally in all blocks."""

    blocks: int
    of_label: IntArray


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


def _balanced_components(base: AxisCoupling, size: int) -> tuple[IntArray, list[_Keys]]:
    """Components where groups choose their own positions, as far as units of one atom per cell keep the counts.

    A cell is the set of atoms of one group that lie in the same block of every balanced axis. One atom of each cell
    takes equally many positions from every block if the cells spread evenly over the blocks; an axis for which
    they do not is tied position by position, and the search begins again.
    """
    tied: set[int] = set()
    while True:
        labels = _components(size, [*base.links, *(_aligned(base.balances[i], base) for i in sorted(tied))])
        pin_of = _pinned_components(base.pins, base.class_of, base.offsets, labels)
        keys: dict[int, _Keys] = {}
        broken: set[int] = set()
        for index, balance in enumerate(base.balances):
            if index not in tied:
                found = _keys(balance, base, labels, len(pin_of))
                if found is None:
                    broken.add(index)
                else:
                    keys[index] = found
        if not broken:
            for group in _groups(base, labels, pin_of, list(keys.values())):
                first_of_cell = group.atoms[np.unique(group.cells, return_index=True)[1]]
                for index, key in keys.items():
                    blocks = key.of_label[first_of_cell]
                    counts = np.bincount(blocks[blocks >= 0], minlength=key.blocks)
                    if (counts != counts[0]).any():
                        broken.add(index)
        if not broken:
            return labels, list(keys.values())
        tied |= broken


def _keys(balance: Balanced, base: AxisCoupling, labels: IntArray, count: int) -> _Keys | None:
    """The block of every component, or None if some component lies unevenly in several blocks."""
    at, block = _block_positions(balance, base)
    table = np.zeros((count, balance.blocks), dtype=np.int64)
    np.add.at(table, (labels[at], block), 1)
    used = (table > 0).sum(axis=1)
    even = (table == table[:, :1]).all(axis=1)
    if ((used > 1) & ~even).any():
        return None
    return _Keys(balance.blocks, np.where((used == 1) & ~even, table.argmax(axis=1), -1))


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


def _groups(base: AxisCoupling, labels: IntArray, pin_of: IntArray, keys: list[_Keys]) -> list[Group]:
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
    groups = []
    for index, signature in enumerate(np.argsort(first).tolist()):
        found = by_group[signature]
        row = slice(table.indptr[found[0]], table.indptr[found[0] + 1])
        classes = table.indices[row].astype(np.int64)
        reason = next((approximate[c] for c in classes.tolist() if c in approximate), None)
        cells = _cells(found, keys)
        groups.append(Group(index, found, cells, classes, table.data[row].astype(np.int64), reason))
    return groups


def _cells(atoms: IntArray, keys: list[_Keys]) -> IntArray:
    """The cell of every atom: atoms in the same block of every balanced axis share one."""
    columns = [key.of_label[atoms] for key in keys]
    columns = [column for column in columns if (column >= 0).any()]
    if not columns:
        return np.zeros(len(atoms), dtype=np.int64)
    return np.unique(np.stack(columns), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _approximate_classes(relations: Relations, class_of: Mapping[int, int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for approximation in relations.approximations:
        if approximation.axis in class_of:
            found.setdefault(class_of[approximation.axis], approximation.reason)
    return found
