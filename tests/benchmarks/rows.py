"""Tables of results: one row a run, added to a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path


def add_row(path: Path, row: Mapping[str, object]) -> None:
    """Add a row; a table that is not there yet begins with its header."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
