"""What operators say about axes: the data of the dependency analysis.

An *axis* is one dimension of one tensor; weights are tensors like any other. Operators describe a node by
relations between axes (see :class:`Relations`): *same*, *mapped*, *regrouped*, *pin* and *approximate*.
Whatever axis of a node no relation mentions is pinned: an operator lists only what it can answer for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

IntArray = NDArray[np.int64]

BORDER = -1
"""What stands for a node where the border of the graph speaks."""


class Axis(NamedTuple):
    """One dimension of one tensor of the normalised model."""

    tensor: str
    dim: int

    def __str__(self) -> str:
        return f"{self.tensor}[{self.dim}]"


class AxisTable:
    """Numbers all axes of all tensors of known shape, so that the solver works on integers."""

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        self._base: dict[str, int] = {}
        self._owner: list[str] = []
        extents: list[int] = []
        for tensor, shape in shapes.items():
            self._base[tensor] = len(extents)
            self._owner.extend([tensor] * len(shape))
            extents.extend(shape)
        self.extents: list[int] = extents

    def __len__(self) -> int:
        return len(self.extents)

    def id(self, tensor: str, dim: int) -> int:
        """The number of axis ``tensor[dim]``; ``dim`` is not negative."""
        return self._base[tensor] + dim

    def tensor(self, axis: int) -> str:
        """The tensor that axis number ``axis`` belongs to."""
        return self._owner[axis]

    def axis(self, axis: int) -> Axis:
        """The axis of that number, by name."""
        tensor = self._owner[axis]
        return Axis(tensor, axis - self._base[tensor])

    def axes_of(self, tensor: str, rank: int) -> range:
        """The numbers of all axes of a tensor."""
        base = self._base[tensor]
        return range(base, base + rank)

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._base


class Same(NamedTuple):
    """Position i of ``a`` stands for position i of ``b``."""

    a: int
    b: int
    node: int


class Mapped(NamedTuple):
    """Position ``at_a[k]`` of axis ``a`` stands for position ``at_b[k]`` of axis ``b``, for every k."""

    a: int
    b: int
    at_a: IntArray
    at_b: IntArray
    node: int


@dataclass(frozen=True)
class Regrouped:
    """A row-major block: the axes ``ins`` and the axes ``outs`` count the same elements (Reshape).

    One axis of each side carries a removal; which one is decided when the analysis knows the candidates.
    """

    ins: tuple[int, ...]
    outs: tuple[int, ...]
    node: int


@dataclass(frozen=True)
class Pin:
    """Positions of an axis that must stay (``positions`` None: all of them), and why."""

    axis: int
    reason: str
    node: int
    positions: IntArray | None = None


@dataclass(frozen=True)
class Approximate:
    """Removing positions of this axis changes what the kept ones compute, and why.

    ``mendable`` tells that the operator can compute them, on request, as if the removed positions were zero.
    """

    axis: int
    reason: str
    node: int
    mendable: bool = False


@dataclass(frozen=True)
class Balanced:
    """The axis consists of ``blocks`` equal runs that must keep equally many positions (grouped Conv).

    ``relative`` is the weight axis that counts positions within a run, if there is one: its extent is that of
    ``axis`` divided by ``blocks``.
    """

    axis: int
    blocks: int
    node: int
    relative: int | None = None


class Producer(NamedTuple):
    """A weight's output-channel axis: what pruning starts from."""

    axis: int
    node: int


@dataclass
class Relations:
    """Collects what the operators say; ``node`` is the index of the node that is speaking.

    Methods take (tensor, dim) pairs. Axes of extent 1 carry nothing and are passed over, so that broadcasting
    needs no special case.
    """

    axes: AxisTable
    node: int = -1
    same: list[Same] = field(default_factory=list)
    mapped: list[Mapped] = field(default_factory=list)
    regrouped: list[Regrouped] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    approximations: list[Approximate] = field(default_factory=list)
    balances: list[Balanced] = field(default_factory=list)
    producers: list[Producer] = field(default_factory=list)
    mentioned: dict[int, set[int]] = field(default_factory=dict)

    def begin(self, node: int) -> None:
        """The node that speaks next."""
        self.node = node
        self.mentioned[node] = set()

    def forget(self) -> None:
        """Drop what the current node has said (it failed half-way, and half the truth is worse than none)."""
        kinds: tuple[list[Any], ...] = (
            self.same,
            self.mapped,
            self.regrouped,
            self.pins,
            self.approximations,
            self.balances,
            self.producers,
        )
        for said in kinds:
            while said and said[-1].node == self.node:
                said.pop()
        self.mentioned[self.node] = set()

    def _mention(self, axis: int) -> None:
        self.mentioned[self.node].add(axis)

    def equal(self, a: str, dim_a: int, b: str, dim_b: int) -> None:
        """*same*: position i of one axis stands for position i of the other (extents equal, or one is 1)."""
        ia, ib = self.axes.id(a, dim_a), self.axes.id(b, dim_b)
        na, nb = self.axes.extents[ia], self.axes.extents[ib]
        self._mention(ia)
        self._mention(ib)
        if na == nb != 1:
            self.same.append(Same(ia, ib, self.node))
        elif na != 1 and nb != 1:
            raise ValueError(f"axes {a}[{dim_a}] and {b}[{dim_b}] have extents {na} and {nb}")
        # Else broadcasting: the wide axis goes through this node unchanged, the other has nothing to remove.

    def equal_all(self, a: str, b: str, rank: int, offset: int = 0, but: int | None = None) -> None:
        """*same* between dimension d of ``a`` and d + ``offset`` of ``b``, for every d below ``rank`` but one."""
        base_a, base_b = self.axes.id(a, 0), self.axes.id(b, offset)
        extents, mentioned = self.axes.extents, self.mentioned[self.node]
        for dim in range(rank):
            if dim == but:
                continue
            ia, ib = base_a + dim, base_b + dim
            na, nb = extents[ia], extents[ib]
            if na == nb == 1:
                continue  # never candidates
            mentioned.add(ia)
            mentioned.add(ib)
            if na == nb:
                self.same.append(Same(ia, ib, self.node))
            elif na != 1 and nb != 1:
                raise ValueError(f"axes {a}[{dim}] and {b}[{dim + offset}] have extents {na} and {nb}")

    def map(self, a: str, dim_a: int, b: str, dim_b: int, at_a: IntArray, at_b: IntArray) -> None:
        """*mapped*: position ``at_a[k]`` of one axis stands for position ``at_b[k]`` of the other."""
        ia, ib = self.axes.id(a, dim_a), self.axes.id(b, dim_b)
        self._mention(ia)
        self._mention(ib)
        # An axis of extent 1 is never a candidate; the position that it stands for must not leave it empty.
        if self.axes.extents[ia] == 1:
            self.pins.append(Pin(ib, f"is the only position of {a}[{dim_a}]", self.node, at_b))
        elif self.axes.extents[ib] == 1:
            self.pins.append(Pin(ia, f"is the only position of {b}[{dim_b}]", self.node, at_a))
        else:
            self.mapped.append(Mapped(ia, ib, at_a, at_b, self.node))

    def regroup(self, a: str, dims_a: Iterable[int], b: str, dims_b: Iterable[int]) -> None:
        """*mapped*, row-major: the axes of one side count the same elements as those of the other."""
        ins = tuple(self.axes.id(a, d) for d in dims_a)
        outs = tuple(self.axes.id(b, d) for d in dims_b)
        for axis in ins + outs:
            self._mention(axis)
        self.regrouped.append(Regrouped(ins, outs, self.node))

    def free(self, tensor: str, dim: int) -> None:
        """This node allows any removal on the axis, and links it with no other (its fix-up does the rest)."""
        self._mention(self.axes.id(tensor, dim))

    def pin(self, tensor: str, dim: int, reason: str, positions: IntArray | None = None) -> None:
        """*pin*: these positions must stay."""
        axis = self.axes.id(tensor, dim)
        self._mention(axis)
        self.pins.append(Pin(axis, reason, self.node, positions))

    def approximate(self, tensor: str, dim: int, reason: str, *, mendable: bool = False) -> None:
        """*approximate*: removal is possible, but changes what the kept positions compute; see :class:`Approximate`."""
        axis = self.axes.id(tensor, dim)
        self._mention(axis)
        self.approximations.append(Approximate(axis, reason, self.node, mendable))

    def balance(self, tensor: str, dim: int, blocks: int, relative: tuple[str, int] | None = None) -> None:
        """Each of the ``blocks`` equal runs of the axis must keep equally many positions; see :class:`Balanced`."""
        axis = self.axes.id(tensor, dim)
        self._mention(axis)
        weight_axis = None if relative is None else self.axes.id(*relative)
        if weight_axis is not None:
            self._mention(weight_axis)
        self.balances.append(Balanced(axis, blocks, self.node, weight_axis))

    def producer(self, tensor: str, dim: int) -> None:
        """The axis is a weight's output-channel axis."""
        self.producers.append(Producer(self.axes.id(tensor, dim), self.node))


def component_count(at_a: IntArray, at_b: IntArray, extent_a: int, extent_b: int) -> int:
    """Into how many components two axes fall that are *mapped* like this: how fine their atoms would be."""
    size = extent_a + extent_b
    links = coo_matrix((np.ones(len(at_a), dtype=np.int8), (at_a, at_b + extent_a)), shape=(size, size))
    return int(connected_components(links, directed=False)[0])
