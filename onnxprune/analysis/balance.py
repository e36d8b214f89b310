"""Units that keep the groups of grouped convolutions equally large.

A *cell* is a set of atoms that lie in the same block of every balanced axis. A *unit* takes a fixed number of atoms
from some cells, so that every block of every balanced axis loses equally many positions. Mostly that is one atom of
every cell; where blocks of several convolutions overlap (a Concat between them), the numbers are the smallest whole
solution of the equations that the blocks state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.ops.relations import IntArray


@dataclass(frozen=True)
class Blocks:
    """One balanced axis: its class, how many blocks it has, and the block of every component.

    The block is -1 for components that are not on the axis, or lie equally in all its blocks.
    """

    owner: int
    count: int
    of_label: IntArray


@dataclass(frozen=True)
class Cell:
    """Atoms that balanced axes cannot tell apart; ``per_class`` the positions that each takes from classes."""

    atoms: IntArray
    per_class: Mapping[int, int]

    def block(self, blocks: Blocks) -> int:
        """Its block of a balanced axis, or -1."""
        return int(blocks.of_label[self.atoms[0]])


@dataclass(frozen=True)
class BalancedCells:
    """Units of ``take[i]`` atoms out of ``cells[i]`` each, and the atoms set aside for them."""

    cells: tuple[Cell, ...]
    take: IntArray


def blocks_of(owner: int, count: int, labels: IntArray, size: int) -> Blocks | None:
    """The block of every component, from those of one axis; None if some component lies unevenly in several."""
    block = np.arange(len(labels)) // (len(labels) // count)
    table = np.zeros((size, count), dtype=np.int64)
    np.add.at(table, (labels, block), 1)
    used = (table > 0).sum(axis=1)
    even = (table == table[:, :1]).all(axis=1)
    if ((used > 1) & ~even).any():
        return None
    return Blocks(owner, count, np.where((used == 1) & ~even, table.argmax(axis=1), -1))


def cells_of(atoms: IntArray, per_class: Mapping[int, int], axes: Sequence[Blocks]) -> tuple[Cell, ...]:
    """Split the atoms of one group into cells."""
    keys = [blocks.of_label[atoms] for blocks in axes]
    keys = [key for key in keys if (key >= 0).any()]
    if not keys:
        return (Cell(atoms, per_class),)
    of_atom = np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)
    return tuple(Cell(atoms[of_atom == cell], per_class) for cell in range(int(of_atom.max()) + 1))


def balanced_cells(cells_of_group: Sequence[tuple[Cell, ...]], axes: Sequence[Blocks]) -> list[BalancedCells]:
    """Balanced cells of groups of atoms: one per group where its cells are even, joint ones for those that are not."""
    found: list[BalancedCells] = []
    uneven: list[tuple[Cell, ...]] = []
    for cells in cells_of_group:
        ones = np.ones(len(cells), dtype=np.int64)
        if (_equations(cells, axes) @ ones == 0).all():
            found.append(BalancedCells(cells, ones))
        else:
            uneven.append(cells)
    for joint in _connected(uneven, axes):
        found.extend(_solved(joint, _equations(joint, axes)))
    return found


def _equations(cells: Sequence[Cell], axes: Sequence[Blocks]) -> IntArray:
    """One row per block but the first of every axis: positions it loses minus those that the first block loses."""
    rows = [np.zeros((0, len(cells)), dtype=np.int64)]
    for blocks in axes:
        loses = np.zeros((blocks.count, len(cells)), dtype=np.int64)
        for place, cell in enumerate(cells):
            block = cell.block(blocks)
            if block >= 0:
                loses[block, place] = cell.per_class.get(blocks.owner, 0)
        if loses.any():
            rows.append(loses[1:] - loses[0])
    return np.concatenate(rows)


def _connected(groups: Sequence[tuple[Cell, ...]], axes: Sequence[Blocks]) -> list[list[Cell]]:
    """Cells of groups that share a balanced axis, together."""
    found: list[tuple[set[int], list[Cell]]] = []
    for cells in groups:
        on = {i for i, blocks in enumerate(axes) if any(cell.block(blocks) >= 0 for cell in cells)}
        together = list(cells)
        for other in [entry for entry in found if entry[0] & on]:
            found.remove(other)
            on |= other[0]
            together = other[1] + together
        found.append((on, together))
    return [cells for _, cells in found]


def _solved(cells: Sequence[Cell], equations: IntArray) -> list[BalancedCells]:
    """Smallest units first, each as often as atoms last; every round uses up a cell, so this ends."""
    left = np.array([len(cell.atoms) for cell in cells], dtype=np.int64)
    used = np.zeros(len(cells), dtype=np.int64)
    found: list[BalancedCells] = []
    while True:
        unit = _smallest(equations, left)
        if unit is None:
            return found
        at = np.flatnonzero(unit)
        often = int((left[at] // unit[at]).min())
        taken = unit * often
        parts = tuple(Cell(cells[i].atoms[used[i] : used[i] + taken[i]], cells[i].per_class) for i in at.tolist())
        found.append(BalancedCells(parts, unit[at]))
        used += taken
        left -= taken


def _smallest(equations: IntArray, most: IntArray) -> IntArray | None:
    """The smallest whole numbers, not all 0 and at most ``most``, that satisfy the equations; None if none do."""
    from scipy.optimize import LinearConstraint, milp  # slow to import, and few graphs get here

    size = len(most)
    result = milp(
        c=np.ones(size),
        constraints=[LinearConstraint(equations, 0, 0), LinearConstraint(np.ones((1, size)), 1, np.inf)],
        integrality=np.ones(size),
        bounds=(np.zeros(size), most),
    )
    return None if result.x is None else np.rint(result.x).astype(np.int64)
