"""How figures, names and tables are put: for the terminal, the page of a report and notebooks alike."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError, installing

if TYPE_CHECKING:
    import pandas as pd

_PREFIXES = ("", "k", "M", "G", "T", "P")

TOTALS = {
    "params": ("parameters", ""),
    "flops": ("MACs", ""),
    "memory": ("memory", "B"),
    "peak_activations": ("peak activations", "B"),
    "file_size": ("file size", "B"),
}
"""What totals are called, and their units, in the order in which they are listed."""

MACS = "FLOPs are counted as MACs (multiply-accumulates); memory is bytes of weights and output activations."


def short(value: float) -> str:
    """Three significant digits and a prefix, at most five characters: 9.44M."""
    return _scaled(value, "")


def long(value: float, unit: str = "") -> str:
    """The same with a space, and a unit: 9.44 MB."""
    text = _scaled(value, " ") + unit
    return text if unit else text.strip()


def seconds(value: float) -> str:
    """A time with three significant digits: 4.27 ms."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if value * factor >= 0.9995:
            return f"{_scaled(value * factor, '')} {unit}"
    return f"{_scaled(value * 1e6, '')} µs"


def percent(fraction: float) -> str:
    """One decimal; what is not quite nothing does not look like nothing."""
    if 0 < fraction < 0.0005:
        return "<0.1 %"
    return f"{round(100 * fraction, 1) + 0.0:.1f} %"  # the sum takes the sign of a negative zero away


def _scaled(value: float, gap: str) -> str:
    if not math.isfinite(value):
        return str(value)
    power = 0
    while abs(value) >= 999.5 and power < len(_PREFIXES) - 1:
        value /= 1000
        power += 1
    if power == 0 and value == int(value):
        number = str(int(value))
    else:
        decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
        number = f"{value:.{decimals}f}"
    return f"{number}{gap}{_PREFIXES[power]}"


def shown(text: str) -> str:
    """Text that files may have a say in, on one line, with what a terminal would obey or hide spelled out.

    Control and escape characters, line breaks, marks of direction, and what is no character.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else _spelled(char) for char in text
    )


def _spelled(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def compact(name: str) -> str:
    """Without the path components that the next one repeats: ``/layers/layers.0/Conv`` is ``/layers.0/Conv``."""
    parts = name.split("/")
    following = [*parts[1:], ""]
    return "/".join(part for part, after in zip(parts, following, strict=True) if not after.startswith(f"{part}."))


ELLIPSIS = "…"
"""Stands for the part of a name that is left out."""


def shorten(name: str, width: int, op_type: str = "", among: Sequence[str] = ()) -> str:
    """``name`` in at most ``width`` characters: whole, without repetitions, or without its middle.

    The part left out is chosen so that what is left fits no other name in ``among``, if there is such a part.
    """
    for form in forms_of(name, op_type):
        if len(form) <= width:
            return form
    return _cut(form, width, [forms_of(other, op_type)[-1] for other in among if shown(other) != name])


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """Names of one list in at most ``width`` characters: whole, or without a part that tells none of them apart."""
    others = names if len(names) <= _MOST_APART else ()
    return [name if len(name) <= width else _cut(name, width, [o for o in others if o != name]) for name in names]


def forms_of(name: str, op_type: str) -> tuple[str, ...]:
    """A name, and what may stand for it, ever shorter."""
    short = compact(shown(name))
    return name, short, short.removesuffix(f"/{op_type}") if op_type else short


def _cut(form: str, width: int, others: Sequence[str]) -> str:
    room = width - 1
    if room < 2:
        return ELLIPSIS[:width]
    for tail in sorted(range(1, room), key=lambda tail: abs(tail - width // 2)):
        start, end = form[: room - tail], form[-tail:]
        if not any(len(other) >= room and other.startswith(start) and other.endswith(end) for other in others):
            return f"{start}{ELLIPSIS}{end}"
    # What differs may lie in the middle.
    for begin in range(len(form) - room, 0, -1):
        middle = form[begin : begin + room - 1]
        if not any(middle in other for other in others):
            return f"{ELLIPSIS}{middle}{ELLIPSIS}"
    tail = width // 2
    return f"{form[: room - tail]}{ELLIPSIS}{form[-tail:]}"


_MOST_APART = 300
"""Among more names, none is looked for that tells them all apart: it would take too long."""


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


@dataclass(frozen=True)
class Table:
    """What a result tells in rows: plain data, for notebooks and pandas alike.

    Attributes:
        headings: of the columns.
        rows: their cells, in the order of ``headings``; in HTML they are put as text.
        caption: what stands above.
        text: the columns that are no numbers, which are aligned to the left.
        count: how many rows there are, where ``rows`` are only the first.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ""
    text: tuple[int, ...] = (0,)
    count: int | None = None

    def to_html(self) -> str:
        """A table with escaped cells."""
        align = ["left" if index in self.text else "right" for index in range(len(self.headings))]

        def line(tag: str, cells: Iterable[Any]) -> str:
            made = []
            for a, cell in zip(align, map(str, cells), strict=True):
                # Figures and names stay on one line; sentences need not.
                whole = ";white-space:nowrap" if a == "right" or " " not in cell else ""
                made.append(f'<{tag} style="text-align:{a}{whole}">{html.escape(cell)}</{tag}>')
            return "".join(made)

        body = "".join(f"<tr>{line('td', row)}</tr>" for row in self.rows)
        left = 0 if self.count is None else self.count - len(self.rows)
        more = f"<p>and {left} more; see to_pandas()</p>" if left > 0 else ""
        return (
            f'<table><caption style="caption-side:top;text-align:left">{html.escape(self.caption)}</caption>'
            f"<thead><tr>{line('th', self.headings)}</tr></thead><tbody>{body}</tbody></table>{more}"
        )

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a frame. Raises UsageError where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError(f"frames need pandas, which is not installed; {installing('report')}") from error
        return pd.DataFrame([list(row) for row in self.rows], columns=list(self.headings))


MOST_ROWS = 60
"""How many rows of a long table notebooks show."""


def totals_table(before: Mapping[str, float], after: Mapping[str, float], caption: str) -> Table:
    """Totals before and after, and the share removed."""
    rows = tuple(
        (
            title,
            long(before[key], unit),
            long(after[key], unit),
            percent(1 - after[key] / before[key]) if before[key] else "–",
        )
        for key, (title, unit) in TOTALS.items()
        if key in before and key in after
    )
    return Table(("", "before", "after", "removed"), rows, caption)
