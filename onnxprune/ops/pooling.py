"""Pooling: every channel for itself."""

from __future__ import annotations

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator
from onnxprune.ops.relations import Relations


class Pooling(Operator):
    """X (N, C, d1…) → Y (N, C, e1…); windows lie in the spatial axes only."""

    types = (
        "AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool",
    )  # fmt: skip
    homogeneous = frozenset(types)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        relations.equal(x, 0, y, 0)
        if node.has_output(1):
            reason = "MaxPool's second output counts positions over all channels"
            relations.pin(x, 1, reason)
            relations.pin(y, 1, reason)
        else:
            relations.equal(x, 1, y, 1)


OPERATORS: tuple[Operator, ...] = (Pooling(),)
