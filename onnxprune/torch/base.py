"""What a converter is, and the table that finds the one for a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from torch import fx

from onnxprune.errors import RegistryError
from onnxprune.ir.graph import Node

if TYPE_CHECKING:
    from onnxprune.torch.builder import Builder

Convert: TypeAlias = "Callable[[Node, Builder], fx.Node | Sequence[fx.Node]]"
Host: TypeAlias = "Callable[[Node, Builder], fx.Node | None]"
Refuse: TypeAlias = Callable[[Node], "str | None"]

_NO_LIMIT = 2**31


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


class Registry:
    """Converters by domain, type and opset; immutable, :meth:`extended` returns a new one.

    Raises RegistryError where two converters claim the same.
    """

    def __init__(self, converters: Iterable[Converter]) -> None:
        self._converters: dict[tuple[str, str], list[Converter]] = {}
        for converter in converters:
            known = self._converters.setdefault((converter.domain, converter.op_type), [])
            for other in known:
                if converter.since <= (other.until or _NO_LIMIT) and other.since <= (converter.until or _NO_LIMIT):
                    raise RegistryError(
                        f"two converters claim {converter.domain or 'ai.onnx'}.{converter.op_type} for overlapping "
                        f"opsets (since {other.since} and since {converter.since}); give one another opset range"
                    )
            known.append(converter)

    def find(self, node: Node) -> Converter | None:
        """The converter for a node, or None if nobody registered one."""
        for converter in self._converters.get((node.domain, node.op_type), ()):
            if converter.since <= node.version <= (converter.until or _NO_LIMIT):
                return converter
        return None

    def extended(self, *converters: Converter) -> Registry:
        """A registry that knows these converters too; RegistryError if one of them is known already."""
        return Registry([*(c for known in self._converters.values() for c in known), *converters])

    def supported(self) -> list[tuple[str, str, int, int | None]]:
        """(domain, type, first opset, last opset or None) of every converter, sorted."""
        entries = ((c.domain, c.op_type, c.since, c.until) for known in self._converters.values() for c in known)
        return sorted(entries, key=lambda entry: entry[:3])
