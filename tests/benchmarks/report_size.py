"""How large reports are and how fast they open: ``python -m tests.benchmarks.report_size`` writes docs/report.md."""

from __future__ import annotations

import argparse
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import onnxprune
from onnxprune.exploration import read_results
from onnxprune.report import Report, candidate, subject
from onnxprune.report.page import render
from tests.benchmarks.generated import NETWORKS
from tests.report.browser import CHROMIUM, chromium, opened
from tests.report.runs import write_runs

if TYPE_CHECKING:
    from playwright.sync_api import Browser

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "report.md"
MODEL = ROOT / "models" / "residual_torchscript.onnx"
FAMILIES = ("residual", "dense", "transformer")
SIZES = (1_000, 5_000)
"""Nodes."""
RUNS = 10_000
REPEATS = 5
WANTED_BYTES, WANTED_OPEN, WANTED_RUNS = 5_000_000, 2.0, 3.0
"""Bytes and seconds for 1,000 nodes; seconds from the table of runs to the plotted page."""

_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->\n"
_NOTE = f"""Generated networks (see `tests/benchmarks/generated.py`) and what `plan(channels=0.5)` leaves of them, and
the residual model with {RUNS:,} recorded runs. *write* is reading the runs, drawing and rendering, after the analysis;
*open* from navigation until the first screen is drawn and every control works; *all* until every chart further down is
drawn, too, which readers cause by scrolling. The best of {REPEATS}. The machine may be shared:
*open* and *all* are long where it is, and seconds of the processor (Python's for *write*, those of all
processes of the browser for *open*) are nearer to what a quiet one needs. *write* leaves out what the first page of a
process takes besides: about 2.5 s to bundle the plotting library. Wanted are at most
{WANTED_BYTES / 1e6:.0f} MB and {WANTED_OPEN:.0f} s to open for 1,000 nodes, and {WANTED_RUNS:.0f} s to read, write
and open {RUNS:,} runs.
"""


@dataclass(frozen=True)
class Figures:
    """One report: its name, bytes, and seconds (``write`` and ``processor`` of the processor)."""

    name: str
    layers: int
    size: int
    write: float
    open: float
    processor: float
    all: float


def of_network(browser: Browser, family: str, nodes: int, folder: Path) -> Figures:
    """A report about a generated network and a pruned form of it."""
    proto = NETWORKS[family](nodes)
    model = onnxprune.load(proto)
    analysis = onnxprune.analyze(model)
    plan = onnxprune.plan(analysis, channels=0.5)
    pruned = onnxprune.apply(model, plan)
    original = subject("original", model, analysis)
    after = candidate(original, subject("pruned", pruned, onnxprune.analyze(pruned)), plan)
    took, text = best(lambda: render(Report(original, (after,))))
    title = f"{family}, {len(proto.graph.node):,} nodes"
    return opening(browser, title, len(analysis.layers), text, took, folder)


def of_runs(browser: Browser, folder: Path) -> Figures:
    """A report about many recorded runs."""
    table = folder / "runs.sqlite"
    write_runs(table, MODEL, 1_000)
    _multiply(table, RUNS // 1_000)
    model = onnxprune.load(MODEL)
    analysis = onnxprune.analyze(model)
    original = subject("original", model, analysis)
    took, text = best(lambda: render(Report(original, results=read_results(table))))
    assert f'"count":{RUNS}' in text
    return opening(browser, f"{RUNS:,} runs", len(analysis.layers), text, took, folder)


def opening(browser: Browser, name: str, layers: int, text: str, write: float, folder: Path) -> Figures:
    """Open a page several times."""
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    runs = [_open(browser, path) for _ in range(REPEATS)]
    first, processor, everything = (min(run[i] for run in runs) for i in range(3))
    return Figures(name, layers, path.stat().st_size, write, first, processor, everything)


def _open(browser: Browser, path: Path) -> tuple[float, float, float]:
    """Seconds until the first screen is drawn, of the processor until then, and until all charts are."""
    session = browser.new_browser_cdp_session()
    before, begun = _processor(session), time.perf_counter()
    with opened(browser, path) as view:
        first, processor = time.perf_counter() - begun, _processor(session) - before
        view.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        view.page.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(c => c.querySelector('svg, canvas'))"
        )
        view.settle()
        everything = time.perf_counter() - begun
        complaints = [line for line in view.console if line]
    assert not complaints, complaints
    return first, processor, everything


def _processor(session: object) -> float:
    found = session.send("SystemInfo.getProcessInfo")  # type: ignore[attr-defined]
    return sum(float(process["cpuTime"]) for process in found["processInfo"])


def _multiply(table: Path, times: int) -> None:
    """Copy the runs under other keys, a little worse each time."""
    with closing(sqlite3.connect(table)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
        values = {"key": "'{n}' || key", "accuracy": "accuracy - 0.004 * {n}", "flops": "flops * (1 + 0.01 * {n})"}
        chosen = ", ".join(values.get(column, f'"{column}"') for column in columns)
        before = connection.execute("SELECT max(rowid) FROM runs").fetchone()[0]
        for number in range(1, times):
            rows = f"SELECT {chosen.format(n=number)} FROM runs WHERE rowid <= {before}"
            connection.execute(f"INSERT INTO runs ({', '.join(f'{chr(34)}{c}{chr(34)}' for c in columns)}) {rows}")
        connection.commit()


def best(work: Callable[[], T]) -> tuple[float, T]:
    """The least of three times of the processor, and the result."""
    took = float("inf")
    for _ in range(3):
        begun = time.process_time()
        result = work()
        took = min(took, time.process_time() - begun)
    return took, result


def table(figures: list[Figures]) -> str:
    """Markdown."""
    lines = ["| report | layers | size | write, CPU | open, CPU | open | all |", "|---|--:|--:|--:|--:|--:|--:|"]
    lines += [
        f"| {f.name} | {f.layers} | {f.size / 1e6:.2f} MB | {f.write:.2f} s | {f.processor:.2f} s | {f.open:.2f} s | "
        f"{f.all:.2f} s |"
        for f in figures
    ]
    return "\n".join(lines)


def measure() -> tuple[list[Figures], str]:
    """All reports, and the browser's version."""
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        figures = []
        for nodes in SIZES:
            for family in FAMILIES:
                figures.append(of_network(browser, family, nodes, folder))
                print(figures[-1], flush=True)
        figures.append(of_runs(browser, folder))
        print(figures[-1], flush=True)
        return figures, browser.version


def main() -> None:
    """Measure, print and write the figures into the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.report_size", description=__doc__)
    parser.add_argument("--print-only", action="store_true", help="leave the page as it is")
    options = parser.parse_args()
    if CHROMIUM is None:
        parser.error("no Chromium is installed (apt-get install chromium)")
    figures, browser = measure()
    text = (
        f"{_NOTE}\n{table(figures)}\n\nChromium {browser}, headless; Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in ("altair", "vl-convert-python", "onnx"))
    )
    print(f"\n{text}.\n")
    if not options.print_only:
        page = PAGE.read_text(encoding="utf-8")
        head, rest = page.split(_BEGIN)
        PAGE.write_text(f"{head}{_BEGIN}{text}.\n{_END}{rest.split(_END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
