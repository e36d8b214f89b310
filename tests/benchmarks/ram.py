"""Is the planned arena what engines take? ``python -m tests.benchmarks.ram MODEL... ``.

Each model runs in a process of its own in onnxruntime, with one thread and without its arena: every tensor is taken
from the system and given back. What the process holds at most during a run, over what it held before, is beside
what ``onnxprune.latency.planner`` foresees, and what ``onnxprune.analysis.arena`` plans for any engine. The input is
the caller's in all. ``docs/ram.csv`` gets a row for every model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import onnxprune
from onnxprune.analysis.arena import arena
from onnxprune.analysis.binding import find_binding
from onnxprune.ir.session import random_inputs
from onnxprune.latency.planner import taken
from tests.benchmarks.rows import add_row, put_table

TABLE = Path(__file__).parents[2] / "docs" / "ram.csv"
#: Freed memory goes back at once, or peaks would not be seen.
_GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}
_PROGRAM = """
import ctypes, sys
import numpy as np, onnxruntime as ort

def told(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

options = ort.SessionOptions()
options.enable_cpu_mem_arena = options.enable_mem_pattern = False
options.intra_op_num_threads, options.log_severity_level = 1, 4
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feed = dict(np.load(sys.argv[2]))
session.run(None, feed)
ctypes.CDLL("libc.so.6").malloc_trim(0)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = told("VmRSS")
session.run(None, feed)
print(told("VmHWM") - before)
"""


def main() -> None:
    """Measure the models that are named."""
    TABLE.unlink(missing_ok=True)
    rows = []
    for path in map(Path, sys.argv[1:]):
        rows.append(measured(path))
        add_row(TABLE, rows[-1])
        print(rows[-1], flush=True)
    put_table(
        TABLE.with_name("promises.md"), "ram", list(rows[0]), [[str(cell) for cell in row.values()] for row in rows]
    )


def measured(path: Path) -> dict[str, object]:
    """Planned and measured MB of one model, without its inputs, which the caller holds."""
    model = onnxprune.load(path)
    inputs = random_inputs(model, find_binding(model, None).shapes, 0)
    planned = arena(model, without=list(inputs))
    with tempfile.TemporaryDirectory() as folder:
        feed = Path(folder) / "inputs.npz"
        np.savez(feed, **inputs)
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(path), str(feed)],
            capture_output=True, text=True, check=True, env={**os.environ, **_GIVING_BACK},
        )  # fmt: skip
    peak = int(json.loads(done.stdout))
    foreseen = taken(model).size
    return {
        "model": path.stem,
        "planned": round(planned.size / 1e6, 2),
        "alive": round(planned.live / 1e6, 2),
        "foreseen": round(foreseen / 1e6, 2),
        "onnxruntime": round(peak / 1e6, 2),
        "planned / onnxruntime": round(planned.size / peak, 2) if peak else "",
        "foreseen / onnxruntime": round(foreseen / peak, 2) if peak else "",
    }


if __name__ == "__main__":
    main()
