"""Control flow: the nodes of bodies are like all others, and what crosses the border of a body stays.

The borders are nodes of a private domain in opened models; see ``onnxprune.ir.control_flow``.
"""

from __future__ import annotations

from onnxprune.ir.control_flow import DOMAIN, ENTRY
from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator
from onnxprune.ops.generators import pin_axes
from onnxprune.ops.relations import Relations


class Border(Operator):
    """Operands, results of bodies → what If, Loop and Scan return, or hand to a body: every axis stays."""

    types = ("If", "Loop", "Scan", "Loop" + ENTRY, "Scan" + ENTRY)
    domain = DOMAIN

    def relate(self, node: Node, relations: Relations) -> None:
        reason = f"crosses the border of {node.op_type.removesuffix(ENTRY)} '{node.name}'"
        pin_axes(relations, node, (*node.inputs, *node.outputs), reason)


OPERATORS: tuple[Operator, ...] = (Border(),)
