"""What a converter is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.ops.registry import OpsetTable

if TYPE_CHECKING:
    from onnxprune.torch.builder import Builder

Convert: TypeAlias = "Callable[[Node, Builder], fx.Node | Sequence[fx.Node]]"
Host: TypeAlias = "Callable[[Node, Builder], fx.Node | None]"
Refuse: TypeAlias = Callable[[Node], "str | None"]


@dataclass(frozen=True)
class Converter:
    """How the nodes of one operator become nodes of a PyTorch graph.

    Attributes:
        op_type: the operator.
        convert: adds what computes the node's outputs; returns one fx node, or one per output.
        since: the first opset it is right for.
        until: the last one, or None.
        domain: the operator set.
        host: the same where all operands are shapes or constants, on Python numbers and tuples of them instead of
            tensors, so that sizes stay symbolic under ``torch.compile``; returns None where it cannot.
        refuse: the reason why a node cannot be converted, or None.
    """

    op_type: str
    convert: Convert
    since: int = 1
    until: int | None = None
    domain: str = ""
    host: Host | None = None
    refuse: Refuse | None = None

    @property
    def types(self) -> tuple[str, ...]:
        """The operator, as what a table holds says it."""
        return (self.op_type,)


Converters: TypeAlias = OpsetTable[Converter]
"""Converters by domain, type and opset."""
