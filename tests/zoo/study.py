"""Prune every model of a folder and write down what came of it, as a table.

    python -m tests.zoo.study --folder DIR --out docs/zoo.md

DIR holds one folder per exporter, as `export_zoo` leaves them; the models that packages ship are added. Every
model has a process of its own with a time and a memory limit. The figures stand in a CSV file beside the table:
an interrupted run just starts again, `--again PATTERN` measures some models anew (`--again failed`: those that
failed), and `--table-only` writes the table from the figures that are there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .measuring import PACKAGE, Row, identity
from .report import page
from .sources import NAMES

FAILED = "failed"


def main() -> int:
    """Measure what has not been measured, and write the table."""
    options = _parse()
    figures = options.out.with_suffix(".csv")
    rows = {(row.origin, row.model): row for row in read(figures)} if figures.exists() else {}
    todo = [] if options.table_only else list(_sources(options))
    todo = [source for source in todo if _wanted(source, rows, options.again)]
    for number, source in enumerate(todo, 1):
        start = time.monotonic()
        row = _in_process(source, options.timeout, options.gigabytes)
        rows[row.origin, row.model] = row
        write(figures, rows.values())
        options.out.write_text(page(list(rows.values())))
        outcome = row.error or f"{row.left:.3f} left, difference {row.difference:.1e}"
        print(f"{number}/{len(todo)} {source}: {outcome} [{time.monotonic() - start:.0f} s]", flush=True)
    options.out.write_text(page(list(rows.values())))
    return 1 if any(row.error for row in rows.values()) else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--folder", type=Path, help="folder of folders of ONNX files")
    parser.add_argument("--out", type=Path, required=True, help="the table; its figures go to the same name, .csv")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="models to measure: a glob of origin/name")
    parser.add_argument("--again", metavar="PATTERN", help=f"measure these anew: a glob of origin/name, or '{FAILED}'")
    parser.add_argument("--no-packages", action="store_true", help="leave out the models that packages ship")
    parser.add_argument("--table-only", action="store_true", help="measure nothing")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds per model")
    parser.add_argument("--gigabytes", type=float, default=12.0, help="address space per model")
    parser.add_argument("--largest", type=float, default=450e6, help="bytes; larger files are left out")
    return parser.parse_args()


def _sources(options: argparse.Namespace) -> Iterator[str]:
    """What there is to measure: package:NAME, then paths, smallest first."""
    found = [] if options.no_packages else [f"{PACKAGE}:{name}" for name in NAMES]
    if options.folder is not None:
        files = [file for file in options.folder.glob("*/*.onnx") if file.stat().st_size <= options.largest]
        found += map(str, sorted(files, key=lambda file: file.stat().st_size))
    return (source for source in found if fnmatchcase("/".join(identity(source)), options.only))


def _wanted(source: str, rows: dict[tuple[str, str], Row], again: str | None) -> bool:
    row = rows.get(identity(source))
    if row is None:
        return True
    return bool(row.error) if again == FAILED else again is not None and fnmatchcase(f"{row.origin}/{row.model}", again)


def _in_process(source: str, timeout: float, gigabytes: float) -> Row:
    """Measure one model in a process of low priority, one thread and limited memory."""

    def limit() -> None:
        os.nice(19)
        resource.setrlimit(resource.RLIMIT_AS, (int(gigabytes * 1e9),) * 2)

    command = [sys.executable, "-m", "tests.zoo.measuring", source]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, preexec_fn=limit, env=environment
        )
    except subprocess.TimeoutExpired:
        return Row(*identity(source), error=f"no result within {timeout:.0f} s")
    if result.returncode != 0:
        last = (result.stderr.strip().splitlines() or [""])[-1]
        return Row(*identity(source), error=f"the process ended with {result.returncode}: {last}")
    return Row(**json.loads(result.stdout.splitlines()[-1]))


def read(path: Path) -> list[Row]:
    """The rows of a CSV file that `write` wrote."""
    with path.open(newline="") as stream:
        return [Row(**{name: _value(name, text) for name, text in line.items()}) for line in csv.DictReader(stream)]


def _value(name: str, text: str) -> Any:
    kind = Row.__annotations__[name]
    if kind == "bool":
        return text == "True"
    return {"int": int, "float": float, "str": str}[kind](text)


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows in the order of origins and names."""
    ordered = sorted(rows, key=lambda row: (row.origin, row.model))
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in ordered:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in asdict(row).items()})
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
