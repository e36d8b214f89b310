"""What an engine made of a model before and after pruning: a row of the study's table."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

TOLERANCE = 1e-3
"""Outputs agree with onnxruntime's up to this, relative to their spread."""

TAKEN, REFUSED, DIFFERS, UNKNOWN = "taken", "refused", "differs", "unknown"
LIMIT = "no answer within"
"""How the error begins of what took longer than its time limit: that is no refusal."""
_RANK = {TAKEN: 2, DIFFERS: 1, REFUSED: 0}


@dataclass(frozen=True)
class Row:
    """One model and one engine.

    ``nodes`` are those of the file, ``pruned_nodes`` those of the pruned one, and ``new_nodes`` of these the ones whose
    outputs the original does not have. ``original`` and ``pruned`` are the engine's errors, empty where it takes the
    file; the differences are from onnxruntime's outputs of the same file, relative to the spread.
    """

    origin: str
    model: str
    engine: str
    version: str = ""
    nodes: int = 0
    pruned_nodes: int = 0
    new_nodes: int = 0
    original: str = ""
    pruned: str = ""
    original_difference: float = math.nan
    pruned_difference: float = math.nan

    @property
    def states(self) -> tuple[str, str]:
        """What became of the original, and of the pruned one."""
        return _state(self.original, self.original_difference), _state(self.pruned, self.pruned_difference)

    @property
    def known(self) -> bool:
        """Whether both files were answered for."""
        return UNKNOWN not in self.states

    @property
    def equal(self) -> bool:
        """Whether the engine makes the same of both."""
        return self.states[0] == self.states[1]

    @property
    def worse(self) -> bool:
        """Whether the engine takes the original, and not the pruned one or with other outputs."""
        original, pruned = self.states
        return self.known and _RANK[pruned] < _RANK[original]


def _state(error: str, difference: float) -> str:
    if error:
        return UNKNOWN if LIMIT in error else REFUSED
    return TAKEN if difference <= TOLERANCE else DIFFERS


def read(path: Path) -> list[Row]:
    """The rows of a CSV file that `write` wrote."""
    with path.open(newline="") as stream:
        return [Row(**{name: _value(name, text) for name, text in line.items()}) for line in csv.DictReader(stream)]


def _value(name: str, text: str) -> Any:
    return {"int": int, "float": float, "str": str}[Row.__annotations__[name]](text)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows in the order of origins, models and engines."""
    ordered = sorted(rows, key=lambda row: (row.origin, row.model, row.engine))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in ordered:
            writer.writerow({k: f"{v:.3g}" if isinstance(v, float) else v for k, v in asdict(row).items()})
    partial.replace(path)
