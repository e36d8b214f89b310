"""Tools side by side: each in a process of its own, taking turns on the same model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .environments import ONNXSIM, OWN, TORCH_PRUNING, interpreter, one_thread

WORKER = Path(__file__).with_name("worker.py")
ENVIRONMENTS = {"onnxprune": OWN, "onnxprune file": OWN, "onnxsim": ONNXSIM, "Torch-Pruning": TORCH_PRUNING}
LIMIT = 600
"""Seconds of the processor that a worker has."""
SLOW = 20.0
"""Seconds of the processor: a first run that takes longer is not repeated, others only warm up."""


@dataclass(frozen=True)
class Run:
    """Seconds by the clock and of the processor, and the share of multiply-accumulates left where asked for."""

    wall: float
    cpu: float
    left: float | None = None


class WorkerError(Exception):
    """A worker that ended, or failed."""


class Worker:
    """The parent's end of ``worker.py``."""

    def __init__(self, tool: str, model: Path, limit: int) -> None:
        self._process = subprocess.Popen(
            [interpreter(ENVIRONMENTS[tool]), str(WORKER), tool, str(model), str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=one_thread(),
        )

    def run(self, request: str) -> Run:
        """One run; WorkerError if it fails."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{request}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError("ended") from None
        answer = json.loads(self._line())
        if "error" in answer:
            raise WorkerError(answer["error"])
        return Run(**answer)

    def ready(self) -> None:
        """Wait until the model is loaded."""
        self._line()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError("ended")
        return line


@contextmanager
def worker(tool: str, model: Path, limit: int = LIMIT) -> Iterator[Worker]:
    """A worker that is ready, and ends with the block, or when it has had ``limit`` seconds of the processor."""
    process = Worker(tool, model, limit)
    try:
        process.ready()
        yield process
    finally:
        process.stop()


def race(tools: Sequence[str], model: Path, repeat: int) -> dict[str, Run]:
    """Let tools take turns on one model.

    Returns the medians of ``repeat`` runs each, after one to warm up; a tool whose first run is slow has only
    that one.

    Raises:
        WorkerError: a tool failed, or used up the processor's time that workers have.
    """
    with ExitStack() as stack:
        workers = {tool: stack.enter_context(worker(tool, model)) for tool in tools}
        first = {tool: each.run("time") for tool, each in workers.items()}
        runs: dict[str, list[Run]] = {tool: [run] if run.cpu > SLOW else [] for tool, run in first.items()}
        for _ in range(repeat):
            for tool, each in workers.items():
                if first[tool].cpu <= SLOW:
                    runs[tool].append(each.run("time"))
    return {tool: Run(median(r.wall for r in found), median(r.cpu for r in found)) for tool, found in runs.items()}
