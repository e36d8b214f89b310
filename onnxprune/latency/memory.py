"""Peak memory of running a model, in a process of its own.

The file is a program, too: it imports nothing but numpy and the runtime, so that what it measures is the runtime's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.errors import MeasurementError
from onnxprune.ir.engine import Engine
from onnxprune.ir.session import first_line

_RUNS = 3
_PATIENCE = 600.0


@dataclass(frozen=True)
class Memory:
    """Peak resident bytes: of the whole process, and of it what came after the runtime was imported."""

    peak: int
    model: int


def peak_memory(path: Path, inputs: Path, engine: Engine) -> Memory | None:
    """Load a model and run it a few times in a new process; None where the system does not tell peaks.

    Args:
        path: the model.
        inputs: an ``.npz`` file of its inputs by name.
        engine: threads and provider.

    Raises:
        MeasurementError: the process failed.
        UsageError: there is no such engine here.
    """
    engine.require()
    command = [sys.executable, "-m", "onnxprune.latency.memory", str(path), str(inputs), json.dumps(engine.to_dict())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True)
        before, after = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines() or ["no reason given"]
        raise MeasurementError(f"the process that measures the memory of {path.name} failed: {said[-1]}") from error
    return None if before is None or after is None else Memory(after, max(after - before, 0))


def _peak() -> int | None:
    """The largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux a new process starts with the peak of the one that started it.
        kilobytes = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(kilobytes[0]) * 1024 if kilobytes else None
    if sys.platform == "darwin":
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return None


def _main(path: str, inputs: str, settings: str) -> None:
    import numpy as np

    engine = Engine(**json.loads(settings))
    engine.version()  # the runtime is imported before the first look: its own size does not count
    with np.load(inputs, allow_pickle=False) as arrays:
        feed: Mapping[str, Any] = {name: arrays[name] for name in arrays.files}
    before = _peak()
    session = engine.session(path)
    try:
        for _ in range(_RUNS):
            session.run(None, feed)
    except Exception as error:
        sys.exit(first_line(error))
    print(json.dumps([before, _peak()]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
