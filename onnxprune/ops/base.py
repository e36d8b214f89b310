"""What an operator has to say, in one place: its relations, its cost, its fix-ups and how it is masked.

To support an operator, subclass :class:`Operator` in the module of its family and list it in that module's
``OPERATORS``. Only ``relate`` is required.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxprune.ir.graph import Node
from onnxprune.ops.linear import Affine, LinearLayer, Paired
from onnxprune.ops.registry import OpsetTable
from onnxprune.ops.relations import IntArray, Relations


@dataclass(frozen=True)
class Contraction:
    """The multiply-accumulates of one node, as a product: ``factor`` times the extents of ``axes``.

    ``factor`` counts what no removal changes (kernel elements, say); ``axes`` are (tensor, dim) pairs whose extents
    may shrink. ``also`` adds further products of this form. ``weights`` are the node's parameter tensors, ``output``
    its output tensor and ``out_dim`` the channel dimension of the output.
    """

    kind: str
    factor: float
    axes: tuple[tuple[str, int], ...]
    weights: tuple[str, ...]
    output: str
    out_dim: int
    also: tuple[tuple[float, tuple[tuple[str, int], ...]], ...] = ()


class Rewriter(Protocol):
    """What a fix-up may ask and change while the graph is shrunk; see ``onnxprune.pruning.shrinking``.

    ``exact_norm`` tells whether what normalises or averages over removed positions has to compute as if they were
    there, and zero; operators that can do so say ``mendable``.
    """

    exact_norm: bool

    def kept(self, tensor: str, dim: int) -> IntArray | None:
        """The positions that stay on an axis, in order, or None if all do."""

    def extent(self, tensor: str, dim: int) -> int:
        """The extent of an axis after shrinking."""

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Set an attribute of the node in the shrunk graph."""

    def set_operand(self, node: Node, index: int, value: NDArray[Any]) -> None:
        """Replace input ``index`` of the node by a constant."""

    def set_elements(self, node: Node, index: int, elements: Mapping[int, int]) -> None:
        """Set single elements of a one-dimensional integer operand, constant or computed at run time."""

    def pick(self, node: Node, index: int, dim: int, positions: IntArray) -> None:
        """Let input ``index`` of the node see only these positions (of the shrunk axis ``dim``), in this order."""

    def pad(self, node: Node, index: int, counts: Mapping[int, int]) -> None:
        """Let input ``index`` of the node see so many zeros behind what is kept of these dimensions."""

    def spread(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node see the full extent of a dimension again, zeros where positions went."""

    def pick_result(self, node: Node, index: int, picked: Mapping[int, IntArray]) -> None:
        """Let the graph see only these positions of output ``index`` of the node, per dimension and ascending."""

    def scale_result(self, node: Node, index: int, factor: float) -> None:
        """Let the graph see output ``index`` of the node times a factor."""

    def constant(self, node: Node, index: int) -> NDArray[Any] | None:
        """What is left of the weight at input ``index`` of the node; None where it is no weight."""

    def keep_reporting(self, node: Node, shape: tuple[int, ...]) -> None:
        """Let a Shape node of the shrunk graph give the original extents, where they are fixed."""

    def add_constant(self, base: str, value: NDArray[Any]) -> str:
        """Add an initialiser and return its name."""


class Masker(Protocol):
    """What an operator may do to the original so that removed positions have no effect; see ``masking``.

    ``exact_norm`` tells whether what normalises or averages over removed positions reads them as zero, instead of not
    at all.
    """

    exact_norm: bool

    def removed(self, tensor: str, dim: int) -> IntArray | None:
        """The positions that go from an axis, or None if none does."""

    def zero(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node read zeros at the removed positions of dimension ``dim``."""

    def keep_only(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node see only the kept positions of dimension ``dim``."""

    def restore(self, node: Node, index: int, dim: int, like: tuple[str, int]) -> None:
        """Spread output ``index``, computed on kept positions only, over its full extent again (zeros between)."""


_PRECISIONS = {"float32": "fp32", "float16": "fp16", "uint8": "int8"}


class Operator:
    """One operator, or a family that behaves alike, for a range of opsets."""

    types: ClassVar[tuple[str, ...]] = ()
    domain: ClassVar[str] = ""
    since: ClassVar[int] = 1
    until: ClassVar[int | None] = None
    draws: ClassVar[frozenset[str]] = frozenset()
    """Those of the types whose results are drawn at random, anew in every run."""
    comparing: ClassVar[frozenset[str]] = frozenset()
    """Those whose result jumps where their two operands are equal, or where the only one is zero."""
    selects: ClassVar[bool] = False
    """Whether a result holds some of the operand's positions, each as it is."""
    in_place: ClassVar[bool] = False
    """Whether the result may be written over an input of the same size."""
    packs: ClassVar[bool] = False
    """Whether input and result are the same values in numbers of other sizes, and engines hold the smaller ones."""
    homogeneous: ClassVar[frozenset[str]] = frozenset()
    """Those that give f(s x) = s f(x) for a positive factor s of each channel."""
    joining: ClassVar[frozenset[str]] = frozenset()
    """Those of these that need the factor on all their operands; of the others the first counts."""

    bending: ClassVar[frozenset[str]] = frozenset()
    """Those that bend what would be linear: activation functions, of each value by itself."""
    placewise: ClassVar[bool] = False
    """Whether each element of the result is made of the elements at its place, of any number of operands."""

    def relate(self, node: Node, relations: Relations) -> None:
        """State the relations between the axes of the node's inputs, weights and outputs."""
        raise NotImplementedError

    def cost(self, node: Node) -> Contraction | None:
        """The node's multiply-accumulates, if it is a layer in the sense of the paper."""
        return None

    def precision(self, op_type: str, stored: str) -> str | None:
        """In which numbers a layer of this type computes: fp32, fp16, int8 or another; None where it is no layer.

        ``stored`` is the type of its weight, as numpy calls it.
        """
        return _PRECISIONS.get(stored, stored) if type(self).cost is not Operator.cost else None

    def linear(self, node: Node) -> LinearLayer | None:
        """The node as a matrix product with one of its weights, whose columns a refit may choose anew; None if not."""
        return None

    def paired(self, node: Node) -> Paired | None:
        """The node as a product of two activations that share their leading axes; None if it is not that."""
        return None

    def affine(self, node: Node) -> Affine | None:
        """The node as a factor and a shift for each channel, by vectors of its own; None if it is not that."""
        return None

    def varies(self, node: Node) -> tuple[float, float] | None:
        """Between which values of the first operand each element of the result follows it; None if not only there.

        Below and above, the result is the same whatever the operand is.
        """
        return None

    def reads(self, node: Node, index: int, wanted: IntArray) -> IntArray | None:
        """The positions of input ``index``, of one dimension, that these of the result depend on; None for all."""
        return None

    def source(self, node: Node, position: int) -> tuple[int, int] | None:
        """The input, and the position in it, that a position of the result, of one dimension, is taken from."""
        return None

    def compares(self, node: Node) -> int | None:
        """The axis whose positions are compared so that the result means the same for fewer of them (Softmax)."""
        return None

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        """Adapt attributes and constants that hold extents or positions of a shrunk axis."""

    def mask(self, node: Node, masker: Masker) -> None:
        """Make the node of the *original* blind to removed positions where it contracts or reduces over them."""


Registry: TypeAlias = OpsetTable[Operator]
"""Operators by domain, type and opset."""


def positions(extent: int) -> IntArray:
    """All positions of an axis."""
    return np.arange(extent, dtype=np.int64)


def normalized_axis(axis: int, rank: int) -> int:
    """An axis attribute as a number from 0 to rank - 1."""
    return axis + rank if axis < 0 else axis


def same_axes(relations: Relations, node: Node, source: str, target: str) -> None:
    """*same* between two tensors of equal rank, dimension by dimension."""
    relations.equal_all(source, target, len(node.shape(source)))


def broadcast_axes(relations: Relations, node: Node, source: str, target: str) -> None:
    """*same* between an operand and a result, aligned from the last dimension as numpy broadcasts."""
    rank = len(node.shape(source))
    relations.equal_all(source, target, rank, len(node.shape(target)) - rank)
