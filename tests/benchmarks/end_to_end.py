"""The command line from file to file, beside loading and saving the same file with onnx."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .environments import one_thread

WANTED_FACTOR, WANTED_EXTRA = 3, 1.0
"""At most so many times the time of loading and saving, plus so many seconds."""
WANTED_MEMORY = 2.5
"""Peak memory, in sizes of the file."""

_LOAD_AND_SAVE = """
import sys, time
import onnx
start = time.perf_counter()
onnx.save(onnx.load(sys.argv[1]), sys.argv[2])
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class EndToEnd:
    """Seconds by the clock, and bytes.

    ``load_and_save`` leaves out the start of Python and the import of onnx; ``prune`` is the whole command.
    ``peak`` is all that the command takes at most, Python included.
    """

    model: str
    exporter: str
    file_size: int
    load_and_save: float
    prune: float
    peak: int

    @property
    def wanted(self) -> float:
        """The most that the command may take."""
        return WANTED_FACTOR * self.load_and_save + WANTED_EXTRA

    @property
    def good_enough(self) -> bool:
        """Whether the figures of the project are reached."""
        return self.prune <= self.wanted and self.peak <= WANTED_MEMORY * self.file_size


def measure(path: Path, repeat: int) -> EndToEnd:
    """Both on one file, in turns; medians, and the largest peak."""
    bare, command, peaks = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "out.onnx")
        for _ in range(repeat):
            made = subprocess.run(
                [sys.executable, "-c", _LOAD_AND_SAVE, str(path), out],
                check=True,
                capture_output=True,
                env=one_thread(),
            )
            bare.append(float(made.stdout))
            Path(out).unlink()
            seconds, peak = _prune(path, out)
            command.append(seconds)
            peaks.append(peak)
            Path(out).unlink()
    size = path.stat().st_size
    return EndToEnd(path.stem, path.parent.name, size, median(bare), median(command), max(peaks))


def _prune(path: Path, out: str) -> tuple[float, int]:
    """Seconds and peak bytes of the command."""
    arguments = ["prune", str(path), "-o", out, "--channels", "0.5", "--no-verify"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxprune", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=one_thread(),
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"onnxprune {' '.join(arguments)} ended with {process.returncode}")
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def table(results: list[EndToEnd]) -> str:
    """Seconds and memory, as Markdown."""
    lines = [
        "| model | exporter | file | load + save | onnxprune prune | wanted | peak memory | in file sizes | wanted |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {each.model} | {each.exporter} | {each.file_size / 1e6:.0f} MB | {each.load_and_save:.2f} s | "
        f"{each.prune:.2f} s | {each.wanted:.2f} s | {each.peak / 1e6:.0f} MB | "
        f"{each.peak / each.file_size:.2f} | {WANTED_MEMORY} |"
        for each in results
    ]
    return "\n".join(lines)
