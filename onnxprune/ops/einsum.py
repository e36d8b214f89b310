"""Einsum: a contraction between any number of operands, written as an equation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator
from onnxprune.ops.relations import Relations


@dataclass(frozen=True)
class Equation:
    """The label of every dimension of every operand and of the result.

    Labels are letters, or numbers for the dimensions behind an ellipsis, counted from their last one.
    """

    operands: tuple[tuple[str, ...], ...]
    result: tuple[str, ...]

    @property
    def repeated(self) -> frozenset[str]:
        """Labels that stand twice in one operand: its diagonal is taken."""
        return frozenset(label for labels in self.operands for label, times in Counter(labels).items() if times > 1)

    @property
    def contracted(self) -> frozenset[str]:
        """Labels that the result does not have: products are added up along them."""
        return frozenset(label for labels in self.operands for label in labels) - set(self.result)

    def holders(self, label: str) -> list[tuple[int, int]]:
        """The (operand, dimension) pairs that carry a label."""
        return [(i, labels.index(label)) for i, labels in enumerate(self.operands) if label in labels]


def parse(equation: str, ranks: Sequence[int]) -> Equation:
    """Read an equation for operands of these ranks; ValueError if they do not fit it."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"equation '{equation}' names {len(terms)} operands, but the node has {len(ranks)}")
    operands = tuple(_labels(term, rank) for term, rank in zip(terms, ranks, strict=True))
    hidden = max((_hidden(term, rank) for term, rank in zip(terms, ranks, strict=True)), default=0)
    if arrow:
        return Equation(operands, _labels(right, len(right.replace("...", "")) + ("..." in right) * hidden))
    times = Counter(label for labels in operands for label in labels if label.isalpha())
    once = sorted(label for label, count in times.items() if count == 1)
    return Equation(operands, (*_numbers(hidden), *once))


def _hidden(term: str, rank: int) -> int:
    """How many dimensions the ellipsis of a term stands for."""
    hidden = rank - len(term.replace("...", ""))
    if hidden < 0 or (hidden and "..." not in term):
        raise ValueError(f"term '{term}' of the equation does not fit an operand with {rank} dimensions")
    return hidden


def _numbers(hidden: int) -> tuple[str, ...]:
    return tuple(str(place) for place in range(hidden - 1, -1, -1))


def _labels(term: str, rank: int) -> tuple[str, ...]:
    numbers = _numbers(_hidden(term, rank))
    before, _, after = term.partition("...")
    return (*before, *numbers, *after)


class Einsum(Operator):
    """Operands and result share an axis per letter; a letter that the result lacks is contracted."""

    types = ("Einsum",)
    since = 12

    def _equation(self, node: Node) -> Equation:
        return parse(node.attr("equation"), [len(node.in_shape(i)) for i in range(len(node.inputs))])

    def relate(self, node: Node, relations: Relations) -> None:
        equation, y = self._equation(node), node.outputs[0]
        repeated = equation.repeated
        for label in dict.fromkeys(label for labels in equation.operands for label in labels):
            holders = [(node.inputs[i], dim) for i, dim in equation.holders(label)]
            if label in equation.result:
                holders.append((y, equation.result.index(label)))
            if label in repeated:
                self._pin_diagonal(node, equation, label, relations)
                continue
            # Broadcast operands have extent 1 here: whatever is wide is the same.
            anchor = max(holders, key=lambda axis: node.shape(axis[0])[axis[1]])
            relations.free(*anchor)
            for holder in holders:
                if holder != anchor:
                    relations.equal(*holder, *anchor)
        for operand, dim in self._produced(node, equation):
            relations.producer(node.inputs[operand], dim)

    def _pin_diagonal(self, node: Node, equation: Equation, label: str, relations: Relations) -> None:
        reason = f"Einsum takes the diagonal over '{label}'"
        for tensor, labels in zip((*node.inputs, node.outputs[0]), (*equation.operands, equation.result), strict=True):
            for dim, own in enumerate(labels):
                if own == label:
                    relations.pin(tensor, dim, reason)

    def _produced(self, node: Node, equation: Equation) -> list[tuple[int, int]]:
        """(operand, dimension) of the letters that a weight alone brings into the result."""
        if all(node.is_constant(i) for i in range(len(node.inputs))):
            return []
        found = []
        for label in equation.result:
            holders = equation.holders(label)
            if len(holders) == 1 and node.is_constant(holders[0][0]):
                found.append(holders[0])
        return found

    def cost(self, node: Node) -> Contraction | None:
        equation, y = self._equation(node), node.outputs[0]
        if len(equation.operands) < 2 or not equation.result or equation.repeated:
            return None
        axes = []
        for label in dict.fromkeys(label for labels in equation.operands for label in labels):
            holders = [(node.inputs[i], dim) for i, dim in equation.holders(label)]
            axes.append(max(holders, key=lambda axis: node.shape(axis[0])[axis[1]]))
        weights = tuple(dict.fromkeys(i for i in node.inputs if i in node.graph.constants))
        produced = self._produced(node, equation)
        out_dim = len(equation.result) - 1
        if produced:
            operand, dim = produced[-1]
            out_dim = equation.result.index(equation.operands[operand][dim])
        return Contraction(
            kind="dense" if weights else "activations",
            factor=1,
            axes=tuple(axes),
            weights=weights,
            output=y,
            out_dim=out_dim,
        )

    def mask(self, node: Node, masker: Masker) -> None:
        equation = self._equation(node)
        for label in equation.contracted - equation.repeated:
            holders = [(i, d) for i, d in equation.holders(label) if masker.removed(node.inputs[i], d) is not None]
            if holders:
                # One factor at zero is enough; a weight is preferred, which costs no further node.
                operand, dim = max(holders, key=lambda holder: node.is_constant(holder[0]))
                masker.zero(node, operand, dim)


OPERATORS: tuple[Operator, ...] = (Einsum(),)
