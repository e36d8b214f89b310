"""Quantities as people type them: 5M, 300k, 5ms, 1%."""

from __future__ import annotations

import math
import re

import typer

_FACTORS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_QUANTITY = re.compile(
    r"(?P<number>[0-9][0-9_]*(\.[0-9]*)?(e[0-9]+)?|\.[0-9]+) ?(?P<suffix>[kmgt]i?)?b?", re.IGNORECASE
)
_DURATION = re.compile(r"(?P<number>([0-9]+(\.[0-9]*)?|\.[0-9]+)(e-?[0-9]+)?) ?(?P<unit>s|ms|us|µs)")
_LINK = re.compile(
    r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+) ?(?P<prefix>[kmg]?)bit(/s)?(/(?P<delay>[0-9.].*))?", re.IGNORECASE
)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


def parse_quantity(text: str) -> float:
    """The number that ``5M``, ``1.2G``, ``300k``, ``64MiB`` or ``2e6`` stands for.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"'{text}' is not a quantity; write it like 5M, 1.2G, 300k or 2000000")
    return float(match["number"]) * _FACTORS[(match["suffix"] or "").lower()]


def parse_duration(text: str) -> float:
    """The seconds that ``5ms``, ``1.2s`` or ``800us`` stand for.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"'{text}' is not a time; write it like 5ms, 1.2s or 800us")
    return float(match["number"]) * _SECONDS[match["unit"]]


def parse_share(text: str) -> float:
    """The share that ``1%``, ``0.5 %`` or ``0.01`` stands for.

    Raises:
        typer.BadParameter: it is neither.
    """
    number, sign, rest = text.strip().partition("%")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if rest or not math.isfinite(value):
        raise typer.BadParameter(f"'{text}' is not a share; write it like 1% or 0.01")
    return value / 100 if sign else value


def parse_link(text: str) -> tuple[float, float]:
    """Bits per second and seconds of delay that ``10Mbit/20ms`` stands for; without a delay, none.

    Raises:
        typer.BadParameter: it is no link.
    """
    match = _LINK.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"'{text}' is not a link; write rate and delay like 10Mbit/20ms")
    delay = parse_duration(match["delay"]) if match["delay"] else 0.0
    return float(match["number"]) * _FACTORS[match["prefix"].lower()], delay
