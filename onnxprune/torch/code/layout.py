"""Python text in lines: brackets that do not fit are broken as formatters do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

WIDTH = 120
_STEP = "    "


@dataclass(frozen=True)
class Bracket:
    """A bracket: what stands before it, and what in it.

    Attributes:
        before: up to and with the opening bracket.
        items: the parts that commas separate.
        close: the closing bracket and what follows.
        bare: written without brackets where it fits in its line.
        group: a tuple, which keeps a comma where it holds one item.
    """

    before: str
    items: tuple[Expression, ...]
    close: str = ")"
    bare: bool = False
    group: bool = False


Expression: TypeAlias = "str | Bracket"


def flat(expression: Expression) -> str:
    """An expression in one line."""
    if isinstance(expression, str):
        return expression
    inner = ", ".join(map(flat, expression.items))
    if expression.bare:
        return inner
    # A tuple of one has its comma.
    comma = "," if expression.group and len(expression.items) == 1 else ""
    return f"{expression.before}{inner}{comma}{expression.close}"


def lines(prefix: str, expression: Expression, suffix: str = "", depth: int = 0) -> list[str]:
    """A statement in as few lines as hold it."""
    indent = _STEP * depth
    whole = f"{indent}{prefix}{flat(expression)}{suffix}"
    if isinstance(expression, str) or not expression.items or len(whole) <= WIDTH:
        return [whole]
    found = [f"{indent}{prefix}{expression.before}"]
    joined = f"{indent}{_STEP}{', '.join(map(flat, expression.items))}"
    if len(joined) <= WIDTH and not expression.bare and not (expression.group and len(expression.items) == 1):
        found.append(joined)
    else:
        for item in expression.items:
            found += lines("", item, ",", depth + 1)
    found.append(f"{indent}{expression.close}{suffix}")
    return found


def keyed(key: str, value: Expression, sign: str = "=") -> Expression:
    """An expression with a name before it, of an argument or in a dictionary."""
    if isinstance(value, str):
        return f"{key}{sign}{value}"
    return replace(value, before=f"{key}{sign}{value.before}")


def text(value: str) -> str:
    """A string as Python writes it, in ASCII; whatever it holds, it stays a string."""
    written = ascii(value)
    if written[0] == "'" and '"' not in written:
        written = '"' + written[1:-1].replace("\\'", "'") + '"'
    return written


def said(value: str) -> str:
    """A name for a docstring: whatever could end it, or cannot be seen, is replaced."""
    return "".join(char if char.isprintable() and char.isascii() and char not in '"\\' else "?" for char in value)


def group(items: Sequence[Expression], *, bare: bool = False) -> Bracket:
    """A tuple."""
    return Bracket("(", tuple(items), ")", bare, True)


def bracket(before: str, items: Sequence[Expression], close: str = ")") -> Bracket:
    """A bracket of these items."""
    return Bracket(before, tuple(items), close)
