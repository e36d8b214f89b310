"""Node names in little space, and the names that people paste back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from onnxprune._display import compact, shown

_ELLIPSIS = "…"
_LEAST = 16


@dataclass(frozen=True)
class Name:
    """A name in a table: whole where there is room, else shortened to the width that is left.

    ``op_type`` is the node's, if another column of the table shows it: the name need not repeat it then.
    """

    text: str
    op_type: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(shorten(shown(self.text), options.max_width, self.op_type), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        width = len(shown(self.text))
        return Measurement(min(_LEAST, width), width).with_maximum(options.max_width)


def shorten(name: str, width: int, op_type: str = "") -> str:
    """``name`` in at most ``width`` characters: whole, without repetitions, or without its middle."""
    for form in _forms(name, op_type):
        if len(form) <= width:
            return form
    tail = width // 2
    head = width - tail - 1
    return f"{form[:head]}{_ELLIPSIS}{form[-tail:]}" if tail > 0 else _ELLIPSIS[:width]


def _forms(name: str, op_type: str) -> tuple[str, ...]:
    """A name, and what may stand for it, ever shorter."""
    short = compact(shown(name))
    return name, short, short.removesuffix(f"/{op_type}") if op_type else short


def resolve(pattern: str, layers: Sequence[tuple[str, str]]) -> str:
    """The layer that a name copied from a table stands for; names and globs as they are.

    Args:
        pattern: what was typed.
        layers: name and operator of every layer.
    """
    if any(name == pattern for name, _ in layers):
        return pattern
    spelled = [name for name, _ in layers if shown(name) == pattern]
    if len(spelled) == 1:
        return spelled[0]
    glob = pattern.replace(_ELLIPSIS, "*")
    found = [name for name, op_type in layers if any(fnmatchcase(form, glob) for form in _forms(name, op_type)[1:])]
    return found[0] if len(found) == 1 else glob
