"""Give every model to every engine, as published and pruned, and write down who takes what.

    python -m tests.compilers.study --folder DIR --out docs/compilers.md

The models are those that packages ship, those in `models/`, and the ONNX files of DIR. Each answer comes from a process
of its own with a time limit. The figures stand in a CSV file beside the page: an interrupted run just starts again,
`--again PATTERN` asks anew (a glob of engine/model; `--again worse`: what was worse after pruning), `--table-only`
writes the page from the figures that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tests.benchmarks.environments import interpreter, one_thread
from tests.zoo.measuring import PACKAGE, identity
from tests.zoo.sources import NAMES

from .engines import COMPILERS, Compiler
from .report import page
from .rows import LIMIT, Row, read, write

WORSE = "worse"
MODELS = Path(__file__).parents[2] / "models"
_WORKER = Path(__file__).with_name("worker.py")
_PREPARING_SECONDS = 600.0


def main() -> int:
    """Ask what has not been asked, and write the page."""
    options = _parse()
    figures = options.out.with_suffix(".csv")
    rows = {_key(row): row for row in read(figures)} if figures.exists() else {}
    if not options.table_only:
        compilers = _installed([compiler for compiler in COMPILERS if compiler.name in options.engines])
        for source in _sources(options):
            missing = [c for c in compilers if _wanted(source, c, rows, options.again)]
            for row in _ask(source, missing, options.largest) if missing else ():
                rows[_key(row)] = row
                write(figures, rows.values())
                options.out.write_text(page(list(rows.values()), figures.name))
                print(f"{row.engine} {row.model}: {' → '.join(row.states)} {row.pruned}", flush=True)
    options.out.write_text(page(list(rows.values()), figures.name))
    return 1 if any(row.worse for row in rows.values()) else 0


def _parse() -> argparse.Namespace:
    names = [compiler.name for compiler in COMPILERS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--folder", type=Path, help="folder of ONNX files")
    parser.add_argument("--out", type=Path, required=True, help="the page; its figures go to the same name, .csv")
    parser.add_argument("--engines", nargs="+", choices=names, default=names, help="all by default")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="models to take: a glob of their names")
    parser.add_argument("--again", metavar="PATTERN", help=f"ask anew: a glob of engine/model, or '{WORSE}'")
    parser.add_argument("--largest", type=float, default=60e6, help="bytes; larger files are left out")
    parser.add_argument("--table-only", action="store_true", help="ask nothing")
    return parser.parse_args()


def _key(row: Row) -> tuple[str, str, str]:
    return row.origin, row.model, row.engine


def _sources(options: argparse.Namespace) -> list[str]:
    """What there is to ask: package:NAME, and paths, smallest first. The packages' files are taken as packaged."""
    files = [*MODELS.glob("*.onnx")]
    if options.folder is not None:
        files += [file for file in options.folder.rglob("*.onnx") if file.stem not in NAMES]
    found = [*map(str, sorted(files, key=lambda file: file.stat().st_size)), *(f"{PACKAGE}:{name}" for name in NAMES)]
    small = (source for source in found if ":" in source or Path(source).stat().st_size <= options.largest)
    return [source for source in small if fnmatchcase(identity(source)[1], options.only)]


def _wanted(source: str, compiler: Compiler, rows: dict[tuple[str, str, str], Row], again: str | None) -> bool:
    row = rows.get((*identity(source), compiler.name))
    if row is None:
        return True
    return row.worse if again == WORSE else again is not None and fnmatchcase(f"{row.engine}/{row.model}", again)


def _installed(compilers: Sequence[Compiler]) -> list[Compiler]:
    """Those whose environments are there or can be made; the others are told."""
    found = []
    for compiler in compilers:
        try:
            version(compiler)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{compiler.title} cannot be installed here: {error}", flush=True)
        else:
            found.append(compiler)
    return found


def version(compiler: Compiler) -> str:
    """The versions of what is asked. Raises CalledProcessError where it cannot be installed."""
    code = f"from importlib.metadata import version\nprint(', '.join(version(n) for n in {compiler.distributions!r}))"
    done = subprocess.run([interpreter(compiler.environment), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _ask(source: str, compilers: Sequence[Compiler], largest: float) -> Iterator[Row]:
    """A row per engine, of those that take files of this size."""
    origin, name = identity(source)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        command = [sys.executable, "-m", "tests.compilers.preparing", source, scratch, "--largest", str(largest)]
        done = _within(command, _PREPARING_SECONDS)
        if not (folder / "prepared.json").exists():
            print(f"{name} is left out: {done.strip() or 'too large'}", flush=True)
            return
        counts = json.loads((folder / "prepared.json").read_text())
        for compiler in compilers:
            if (folder / "original.onnx").stat().st_size > compiler.largest:
                continue
            original, pruned = (ask(compiler, folder, which) for which in ("original", "pruned"))
            yield Row(
                origin if origin == PACKAGE else Path(source).parent.name,
                name,
                compiler.name,
                version(compiler),
                counts["nodes"],
                counts["pruned_nodes"],
                counts["new_nodes"],
                original.get("error", ""),
                pruned.get("error", ""),
                original.get("difference", float("nan")),
                pruned.get("difference", float("nan")),
            )


def ask(compiler: Compiler, folder: Path, which: str) -> dict[str, Any]:
    """What an engine makes of one of the files that `preparing` left: ``difference`` or ``error``."""
    python = interpreter(compiler.environment)
    files = (f"{which}.onnx", "inputs.npz", f"{which}.npz")
    printed = _within([python, str(_WORKER), compiler.name, *(str(folder / file) for file in files)], compiler.seconds)
    try:
        return dict(json.loads(printed.strip().splitlines()[-1]))
    except (ValueError, IndexError, TypeError):
        return {"error": printed[-300:] or "it said nothing"}


def _within(command: Sequence[str], seconds: float) -> str:
    """What a process prints, or how it ended."""
    start = time.monotonic()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=one_thread()
    )
    try:
        printed, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"{LIMIT} {time.monotonic() - start:.0f} s"
    if process.returncode:
        last = (errors.strip().splitlines() or [""])[-1]
        return f"the process ended with {process.returncode}: {last}"
    return printed


if __name__ == "__main__":
    sys.exit(main())
