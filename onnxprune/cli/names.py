"""Node names in little space, and the names that people paste back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

_ELLIPSIS = "…"
_LEAST = 16


@dataclass(frozen=True)
class Name:
    """A node name in a table: whole where there is room, else shortened to the width that is left."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(shorten(self.text, options.max_width), style=self.style, no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(_LEAST, len(self.text)), len(self.text)).with_maximum(options.max_width)


def shorten(name: str, width: int) -> str:
    """``name`` in at most ``width`` characters; its end says most, so that keeps the larger part."""
    if len(name) <= width:
        return name
    name = compact(name)
    if len(name) <= width:
        return name
    head = max((width - 1) // 3, 0)
    tail = width - 1 - head
    return f"{name[:head]}{_ELLIPSIS}{name[-tail:]}" if tail > 0 else _ELLIPSIS[:width]


def compact(name: str) -> str:
    """Without the path components that the next one repeats: ``/layers/layers.0/Conv`` is ``/layers.0/Conv``."""
    parts = name.split("/")
    following = [*parts[1:], ""]
    return "/".join(part for part, after in zip(parts, following, strict=True) if not after.startswith(f"{part}."))


def resolve(pattern: str, names: Sequence[str]) -> str:
    """A glob as it is; a name that was copied from a table as the glob or name that it stands for."""
    if pattern in names:
        return pattern
    whole = [name for name in names if compact(name) == pattern]
    if len(whole) == 1:
        return whole[0]
    return pattern.replace(_ELLIPSIS, "*")


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
