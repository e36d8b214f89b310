"""Tables of results: one row a run, added to a CSV file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def add_row(path: Path, row: Mapping[str, object]) -> None:
    """Add a row; a table that is not there yet begins with its header."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows; none where there is no table yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def put_table(page: Path, mark: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table into a page, between ``<!-- mark -->`` and ``<!-- end of mark -->``."""
    lines = [header, ["---"] * len(header), *rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    between = re.compile(f"(<!-- {re.escape(mark)} -->\n).*?(<!-- end of {re.escape(mark)} -->)", re.DOTALL)
    text, found = between.subn(lambda match: f"{match[1]}{table}\n{match[2]}", page.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{page} has no place for '{mark}'")
    page.write_text(text, encoding="utf-8")
