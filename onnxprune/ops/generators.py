"""OneHot, Range and their kin: what they make has fixed places; and operators that hold every axis, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator, normalized_axis
from onnxprune.ops.relations import Relations


def pin_axes(
    relations: Relations, node: Node, tensors: Iterable[str], reason: str, dims: Sequence[int] | None = None
) -> None:
    """Pin axes of some of the node's tensors: those in ``dims``, or all of them.

    Tensors without a known shape have no axes to pin.
    """
    for tensor in dict.fromkeys(tensors):
        if tensor and tensor in relations.axes:
            for dim in range(len(node.shape(tensor))) if dims is None else dims:
                relations.pin(tensor, dim, reason)


class Held(Operator):
    """Base of operators of which no axis may shrink; subclasses list the types and say why."""

    reasons: ClassVar[dict[str, str]] = {}

    def relate(self, node: Node, relations: Relations) -> None:
        pin_axes(relations, node, (*node.inputs, *node.outputs), f"{node.op_type} {self.reasons[node.op_type]}")


class Generated(Held):
    """Operators whose result counts, draws or lists positions: every axis stays."""

    reasons: ClassVar[dict[str, str]] = {
        "EyeLike": "places ones by position",
        "Multinomial": "draws positions of the axis",
        "NonZero": "lists the positions of all axes",
        "RandomNormal": "draws a value for every position in turn",
        "RandomNormalLike": "draws a value for every position in turn",
        "RandomUniform": "draws a value for every position in turn",
        "RandomUniformLike": "draws a value for every position in turn",
        "Range": "numbers positions",
        "Size": "counts all positions",
    }
    types = tuple(reasons)
    draws = frozenset(t for t in types if t.startswith("Random") or t == "Multinomial")


class OneHot(Operator):
    """indices (…), depth, values (2) → Y: the indices' axes, with a new one of extent depth at ``axis``."""

    types = ("OneHot",)

    def relate(self, node: Node, relations: Relations) -> None:
        indices, y = node.inputs[0], node.outputs[0]
        axis = normalized_axis(int(node.attr("axis", -1)), len(node.out_shape()))
        for dim in range(len(node.in_shape(0))):
            relations.equal(indices, dim, y, dim if dim < axis else dim + 1)
        relations.pin(y, axis, "OneHot compares positions with indices")


OPERATORS: tuple[Operator, ...] = (Generated(), OneHot())
