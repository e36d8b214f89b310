"""Quantities as people write and read them: 5M, 300k, 1.2 GB."""

from __future__ import annotations

import math
import re

import typer

_FACTORS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_QUANTITY = re.compile(
    r"(?P<number>[0-9][0-9_]*(\.[0-9]*)?(e[0-9]+)?|\.[0-9]+) ?(?P<suffix>[kmgt]i?)?b?", re.IGNORECASE
)
_TIME = re.compile(r"(?P<number>[0-9]*\.?[0-9]+(e-?[0-9]+)?) ?(?P<unit>s|ms|us|µs)", re.IGNORECASE)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_PREFIXES = ("", "k", "M", "G", "T", "P")


def parse_quantity(text: str) -> float:
    """The number that ``5M``, ``1.2G``, ``300k``, ``64MiB`` or ``2e6`` stands for.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"'{text}' is not a quantity; write it like 5M, 1.2G, 300k or 2000000")
    return float(match["number"]) * _FACTORS[(match["suffix"] or "").lower()]


def parse_seconds(text: str) -> float:
    """The seconds that ``5ms``, ``0.2s`` or ``800us`` stand for.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"'{text}' is not a time; write it like 5ms, 0.2s or 800us")
    return float(match["number"]) * _SECONDS[match["unit"].lower()]


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
