"""What every group keeps at least: the floors of its layers, and one unit where nothing else keeps an axis alive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.atoms import Group
from onnxprune.analysis.cost import FloatArray
from onnxprune.ops.relations import IntArray

_ROUNDING = 1e-9


def least_units(analysis: Analysis, floor: float, floors: Mapping[str, float], names: Sequence[str]) -> IntArray:
    """The units that every group keeps: the strictest floor of its layers, whose own go before the common one.

    No class that nothing pinned keeps alive becomes empty, whatever the floors.
    """
    least: dict[int, float] = {}
    for layer, name in zip(analysis.costs.layers, names, strict=True) if floors else ():
        own = [value for pattern, value in floors.items() if fnmatchcase(name, pattern)] or [floor]
        for group in analysis.groups_of(layer):
            least[group.index] = max(least.get(group.index, 0), *(_units(group, value) for value in own))
    groups = analysis.coupling.groups
    return _rounded_up(analysis, np.array([least.get(group.index, _units(group, floor)) for group in groups]))


def _units(group: Group, floor: float) -> float:
    """The units of a floor, a fraction of them where the floor is one."""
    return group.units * floor if floor < 1 else min(math.ceil(floor / group.width), group.units)


def _rounded_up(analysis: Analysis, wanted: FloatArray) -> IntArray:
    """Whole units, so that no class keeps less than wanted.

    Not every group is rounded up: where many small ones make up a class, none of them could shrink.
    """
    # Short of the error of a product: 0.1 of 30 is 3, not 4.
    least = np.floor(wanted + _ROUNDING).astype(np.int64)
    alive = list(_never_empty(analysis))
    least[alive] = np.maximum(least[alive], 1)
    rest = wanted - least
    members: dict[int, list[tuple[int, int]]] = {}
    for group in analysis.coupling.groups:
        for owner, positions in zip(group.classes.tolist(), group.multiplicity.tolist(), strict=True):
            members.setdefault(owner, []).append((group.index, positions))
    # A group that is alone in a class has no others to make up for it.
    for parts in sorted(members.values(), key=len):
        lacking = sum(positions * (wanted[index] - least[index]) for index, positions in parts)
        for index, positions in sorted(parts, key=lambda part: (-rest[part[0]], -part[1])):
            if lacking <= _ROUNDING:
                break
            if least[index] < wanted[index] - _ROUNDING:
                least[index] += 1
                lacking -= positions
    return least


def _never_empty(analysis: Analysis) -> set[int]:
    """The largest group of every class that nothing pinned keeps alive: it has to keep one unit."""
    coupling, groups = analysis.coupling, analysis.coupling.groups
    if not groups:
        return set()
    owners = np.concatenate([group.classes for group in groups])
    positions = np.concatenate([group.multiplicity * group.units for group in groups])
    index = np.repeat(np.arange(len(groups)), [len(group.classes) for group in groups])
    held = np.bincount(owners, weights=positions, minlength=len(coupling.members))
    # By class, then by size; the first of equally large groups comes last.
    order = np.lexsort((-index, positions, owners))
    largest = order[np.append(np.diff(owners[order]) != 0, True)]
    return set(index[largest[held[owners[largest]] >= coupling.extents[owners[largest]]]].tolist())
