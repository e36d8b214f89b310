"""How the time of an analysis grows with the graph: ``python -m tests.benchmarks.scaling`` writes docs/scaling.md."""

from __future__ import annotations

import argparse
import gc
import math
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

import onnxprune

from .generated import NETWORKS

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
SIZES = (100, 300, 1_000, 3_000, 10_000, 20_000)
"""Nodes."""
SMALLEST = 1_000
"""Nodes; below, what does not depend on the graph counts, and the slope is not taken there."""
WANTED_SECONDS = 10.0
"""For the largest size, all steps together."""
WANTED_SLOPE = 1.25
"""Linear, and something for caches and memory."""

_HEAD = f"""# Time and size of the graph

Written by `python -m tests.benchmarks.scaling`; do not edit by hand. Generated networks with narrow layers (see
`tests/benchmarks/generated.py`), in memory: nothing is read from a file, written or verified. Seconds of the
processor, with one thread: `analyze` (with normalisation), `plan(channels=0.5)` and `apply`. Operands are the
inputs of all nodes. The slope is that of log(total) over log(operands) from {SMALLEST} nodes on: 1 is linear. At
most {WANTED_SECONDS:.0f} s are wanted for {SIZES[-1]} nodes.
"""


@dataclass(frozen=True)
class Run:
    """Seconds of the processor for one network."""

    network: str
    nodes: int
    operands: int
    analyze: float
    plan: float
    apply: float

    @property
    def total(self) -> float:
        """Seconds of all steps."""
        return self.analyze + self.plan + self.apply


def measure(network: str, nodes: int) -> Run:
    """One run on a network of about so many nodes."""
    proto = NETWORKS[network](nodes)
    gc.collect()  # what earlier runs left is not to be paid for by this one
    model = onnxprune.load(proto)
    marks = [time.process_time()]
    analysis = onnxprune.analyze(model)
    marks.append(time.process_time())
    plan = onnxprune.plan(analysis, channels=0.5)
    marks.append(time.process_time())
    onnxprune.apply(model, plan)
    marks.append(time.process_time())
    operands = sum(len(node.input) for node in proto.graph.node)
    return Run(network, len(proto.graph.node), operands, *np.diff(marks).tolist())


def slope(runs: list[Run]) -> float:
    """Of log(seconds) over log(operands), by least squares over all but small graphs."""
    large = [run for run in runs if run.nodes >= SMALLEST]
    return float(np.polyfit([math.log(r.operands) for r in large], [math.log(r.total) for r in large], 1)[0])


def table(results: dict[str, list[Run]]) -> str:
    """All runs and the slope of every network, as Markdown."""
    lines = ["| network | nodes | operands | analyze | plan | apply | total |", "|---|--:|--:|--:|--:|--:|--:|"]
    for runs in results.values():
        lines += [
            f"| {run.network} | {run.nodes} | {run.operands} | {run.analyze:.3f} s | {run.plan:.3f} s | "
            f"{run.apply:.3f} s | {run.total:.3f} s |"
            for run in runs
        ]
    slopes = [
        "| network | slope |",
        "|---|--:|",
        *(f"| {name} | {slope(runs):.2f} |" for name, runs in results.items()),
    ]
    return "\n".join([*lines, "", *slopes])


def main() -> None:
    """Measure, print and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--print-only", action="store_true", help="leave the page as it is")
    options = parser.parse_args()
    unknown = set(options.networks) - set(NETWORKS)
    if unknown:
        parser.error(f"no network is called {', '.join(sorted(unknown))}")
    results: dict[str, list[Run]] = {}
    for name in options.networks or NETWORKS:
        measure(name, SIZES[0])  # to warm up
        for nodes in SIZES:
            results.setdefault(name, []).append(measure(name, nodes))
            print(results[name][-1], flush=True)
    page = table(results)
    print(f"\n{page}\n")
    if not options.print_only:
        versions = ", ".join(f"{name} {version(name)}" for name in ("onnx", "numpy", "scipy"))
        PAGE.write_text(f"{_HEAD}\n{page}\n\nPython {platform.python_version()}, {versions}.\n")


if __name__ == "__main__":
    main()
