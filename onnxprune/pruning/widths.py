"""The grid of widths: how many channels an engine computes in the time of fewer.

Vectorised kernels work on blocks of channels: time is a staircase in ``ceil(channels / block)``. A channel that is
removed within a block saves nothing, so that counts had best be multiples of the block. Which those are follows from
the runtime and the processor; nothing is measured for it (:data:`BLOCKS` gives the sources).
"""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.analysis.atoms import Group, Grouping
from onnxprune.ops.relations import IntArray

if TYPE_CHECKING:
    from onnxprune.analysis.coupling import Coupling

CPU = "CPUExecutionProvider"
_WIDE_CPU = "CPUExecutionProvider with AVX-512"

BLOCKS: Mapping[str, int] = {
    # onnxruntime, mlas/lib/platform.cpp: NchwcBlockSize is 8, and 16 with AVX-512F or NEON kernels for that layout.
    CPU: 8,
    _WIDE_CPU: 16,
    # oneDNN's formats nChw8c and nChw16c, of which the processor chooses.
    "OpenVINOExecutionProvider": 16,
    "DnnlExecutionProvider": 16,
    # Measured (docs/widths.csv): the time of a convolution has a step behind every 16 channels.
    "openvino": 16,
    # The same, of 3x3; its 1x1 take what their channels take.
    "tract": 16,
    # NVIDIA, Optimizing for Tensor Cores: multiples of 16 bytes, which are 8 channels of half precision.
    "CUDAExecutionProvider": 8,
    "TensorrtExecutionProvider": 8,
}
"""Channels per block, by provider of onnxruntime or by runtime. What is not listed counts as having short vectors."""
_LANES = 4
"""Channels below which no layout of onnxruntime's CPU kernels is blocked (nchwc_transformer.cc: multiples of 4)."""
_NARROW = 4
"""A group of fewer blocks than this is narrow: whole blocks of it are large parts of a layer."""


_WHOLE, _MANY = 2, 8
"""Groups of fewer blocks than the first cannot be cut on the grid; of so many as the second, whole ones can go."""


def groupings(round_to: int | str, coupling: Coupling) -> tuple[Grouping, ...]:
    """How grouped convolutions had best shrink for an engine's blocks, the first that meets the budgets counting.

    Where a group has 16 channels, the same 8 of each leave onnxruntime's blocked layout, and where it has 4, whole
    groups are all that saves time: ResNeXt-50 with half of its MACs takes .61 so, and .55 with half of its groups.
    """
    if isinstance(round_to, int):
        return (Grouping.ALIGNED,)
    least = _WHOLE * int(round_to.partition(":")[2])
    narrow = any(
        blocks >= _MANY and int(coupling.extents[owner]) // blocks < least
        for owner, blocks in coupling.relative.values()
    )
    return (Grouping.WHOLE, Grouping.ALIGNED) if narrow else (Grouping.ALIGNED,)


@cache
def block(provider: str = CPU) -> int:
    """How many channels kernels of a provider compute together on this processor."""
    if provider == CPU and (_has_avx512() or platform.machine().lower() in ("aarch64", "arm64")):
        provider = _WIDE_CPU
    return BLOCKS.get(provider, BLOCKS[CPU])


def _has_avx512() -> bool:
    extensions = np.show_config("dicts") or {}
    found = extensions.get("SIMD Extensions", {})
    return any(name.startswith(("AVX512", "X86_V4")) for name in (*found.get("baseline", ()), *found.get("found", ())))


@dataclass(frozen=True)
class Grid:
    """Counts are multiples of ``multiple``, in groups of few such blocks of ``narrow``."""

    multiple: int
    narrow: int

    def step(self, group: Group) -> int:
        """The units of a group that make up a block, in the axis where this takes most units."""
        step = _units(group, self.multiple)
        return step if group.units >= _NARROW * step else _units(group, self.narrow)

    def levels(self, group: Group, least: int) -> IntArray:
        """The numbers of units that may go, ascending from 0, so that at least ``least`` stay."""
        step = self.step(group)
        kept = np.arange(group.units, least - 1, -1, dtype=np.int64)
        if step > 1:
            kept = kept[(kept == group.units) | (kept % step == 0)]
            kept = kept[(kept > 0) | (least == 0)]
        return group.units - kept


def _units(group: Group, multiple: int) -> int:
    """The smallest number of units that holds a multiple of so many positions of every axis of the group."""
    return math.lcm(*(multiple // math.gcd(multiple, int(positions)) for positions in group.multiplicity.tolist()))


ANY = Grid(1, 1)
"""Every count may be kept."""


def grids(round_to: int | str) -> tuple[Grid, ...]:
    """The grids that an option allows, of which the first counts on which budgets hold.

    A number allows its multiples alone. ``auto:N`` prefers multiples of N, but goes to finer ones where the budgets
    cannot be met with those: first in narrow groups, then everywhere.
    """
    if isinstance(round_to, int):
        return (Grid(round_to, round_to),)
    multiples = [int(round_to.partition(":")[2])]
    while multiples[-1] > _LANES:
        multiples.append(multiples[-1] // 2)
    narrow = (Grid(multiples[0], multiple) for multiple in multiples)
    return (*narrow, *(Grid(multiple, multiple) for multiple in multiples[1:]), ANY)


def remainders(round_to: int | str) -> tuple[tuple[Grid, float], ...]:
    """The grids on which a few groups may get back what whole blocks removed beyond the budgets.

    With the share of the model from which on that is worth it: the last one gives up blocked layouts.
    """
    return () if isinstance(round_to, int) else ((Grid(_LANES, _LANES), 0.02), (ANY, 0.025))


def finer(grid: Grid) -> tuple[Grid, ...]:
    """The grids of divisors of a multiple, the coarsest in front: they meet budgets better."""
    divisors = (n for n in range(grid.multiple // 2, 0, -1) if grid.multiple % n == 0)
    return tuple(Grid(n, n) for n in divisors)
