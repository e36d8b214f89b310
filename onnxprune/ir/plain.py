"""JSON that others wrote: plain data of a depth that can be worked with, or refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

_DEEPEST = 32


def parse(text: str | bytes, *, finite: bool = True) -> Any:
    """The data of a JSON document.

    Args:
        text: the document.
        finite: refuse ``NaN`` and ``Infinity``, which are no JSON, but which Python writes.

    Raises:
        ValueError: it is no JSON, nested deeper than anything of ours, or gives a name twice.
    """
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse if finite else None)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels") from None
    level = [data]
    for _ in range(_DEEPEST):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [child for children in inner for child in children if isinstance(child, (dict, list))]
    if level:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
    return data


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it gives {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
