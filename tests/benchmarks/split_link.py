"""Predicted against measured: parts in two processes over a slow link, as ``examples/split/split_zmq.py`` runs them.

Each model is recorded here (``onnxprune profile``), cut where the work of both sides is nearest to equal, and run over
each link. Rows are appended to ``docs/split_link.csv``; ``others`` is how many programs wanted each processor:
from one on, the lower quartile tells more than the median. Needs pyzmq.

    python -m tests.benchmarks.split_link MODEL.onnx...
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnxprune
from onnxprune.latency.times import Times, record_times
from onnxprune.splitting.costs import Ledger
from onnxprune.splitting.links import Link
from onnxprune.splitting.splitting import split_at
from onnxprune.splitting.weighing import Setting, weigh
from tests.benchmarks.rows import add_row

ROWS = Path("docs/split_link.csv")
EXAMPLE = Path(__file__).parents[2] / "examples" / "split" / "split_zmq.py"
LINKS = (Link(10e6, 0.02), Link(50e6, 0.005), Link(200e6, 0.001))
_RUNS = 40


def measured(folder: Path, link: Link, port: int) -> dict[str, float]:
    """Seconds from input to answer, with quartiles."""
    common = [str(folder), "--port", str(port), "--link", str(link.rate), str(link.delay), "--runs", str(_RUNS)]
    cloud = subprocess.Popen([sys.executable, str(EXAMPLE), "cloud", *common])
    try:
        command = [sys.executable, str(EXAMPLE), "edge", *common]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        found: dict[str, float] = json.loads(done.stdout)
        cloud.wait(timeout=10)
    finally:
        cloud.kill()
    return found


def study(path: Path, port: int) -> None:
    """The rows of a model."""
    model = onnxprune.load(path)
    analysis = onnxprune.analyze(model)
    ledger = Ledger(analysis)
    times: Times = record_times(analysis)
    for number, link in enumerate(LINKS):
        found = weigh(ledger, Setting("plain", link, times, times))
        cut = min(
            (cut for cut in found.cuts if cut.cut is not None and len(cut.tensors) == 1),
            key=lambda cut: abs(cut.head.macs - cut.tail.macs) + cut.wire["plain"],
        )
        assert cut.cut is not None
        assert cut.latency is not None
        with tempfile.TemporaryDirectory() as scratch:
            split_at(model, ledger, [cut.cut]).save(Path(scratch, "parts"))
            taken = measured(Path(scratch, "parts"), link, port + number)
        row = {
            "model": path.stem,
            "link": f"{link.rate / 1e6:.0f}Mbit/{1e3 * link.delay:.0f}ms",
            "kilobytes": f"{cut.wire['plain'] / 1e3:.1f}",
            "predicted_ms": f"{1e3 * cut.latency:.2f}",
            **{f"{name}_ms": f"{1e3 * taken[name]:.2f}" for name in ("fastest", "lower", "median", "upper")},
            "lower_over_predicted": f"{taken['lower'] / cut.latency:.3f}",
            "median_over_predicted": f"{taken['median'] / cut.latency:.3f}",
            "others": f"{os.getloadavg()[0] / (os.cpu_count() or 1):.1f}",
            "machine": times.profile.identity.get("processor", "?"),
        }
        print(row, flush=True)
        add_row(ROWS, row)


def main() -> None:
    """Study the models that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    for number, path in enumerate(parser.parse_args().models):
        study(path, 5600 + 10 * number)


if __name__ == "__main__":
    main()
