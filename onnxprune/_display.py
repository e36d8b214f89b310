"""How figures, names and conditions are put: for the terminal, the page of a report and notebooks alike."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.ir.model import Model

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
    return f"{100 * fraction:.1f} %"


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


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def assumptions(analysis: Analysis) -> str:
    """The input shapes that all figures hold for, and which of them were guessed."""
    shapes = ", ".join(
        f"{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in analysis.shapes.binding.items()
    )
    text = f"Input shapes: {shapes or 'none'}."
    return " ".join((text, *analysis.shapes.bound.in_words()))


def carried(analysis: Analysis, after: Model | None = None) -> list[str]:
    """What carries state from run to run, with its shape before and after; or what looks as if it did."""
    if not analysis.state:
        pairs = some(map(str, analysis.proposed_state))
        return [f"State pairs: {pairs} may shrink together with --state auto."] if pairs else []
    lines = []
    for pair in analysis.state:
        shapes = [analysis.shapes.extents[name] for name in pair]
        sizes = ["×".join(map(str, shape)) for shape in shapes]
        for place, name in enumerate(pair if after is not None else ()):
            declared = next(v for v in (*after.graph.input, *after.graph.output) if v.name == name) if after else None
            dims = declared.type.tensor_type.shape.dim if declared is not None else ()
            sizes[place] += " → " + "×".join(str(d.dim_value or n) for d, n in zip(dims, shapes[place], strict=True))
        lines.append(f"State: {pair.input} {sizes[0]}, {pair.output} {sizes[1]}.")
    return lines


def not_understood(analysis: Analysis) -> list[str]:
    """A line per reason for which nodes are pinned because they are not understood, naming some."""
    by_reason: dict[str, list[str]] = {}
    for node, reason in analysis.unknown.items():
        by_reason.setdefault(reason, []).append(node)
    return [f"Not understood, and therefore pinned: {reason}: {some(nodes)}" for reason, nodes in by_reason.items()]
