"""How the time of a convolution grows with its channels: where the staircase of a runtime is.

    python -m tests.benchmarks.widths --runtime openvino --out docs/widths.csv

One convolution, C to C channels, for every C from 16 to 128; the fastest of many runs counts, by the processor's
clock. Rows of other runtimes in the file stay.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.ir.engine import Engine
from onnxprune.ir.runtimes import names
from onnxprune.ir.timing import fitting_clock

WIDTHS = range(16, 129)
BLOCKS = (2, 4, 8, 16, 32)
KERNELS = (1, 3)
_SIDE, _RUNS, _ROUNDS, _LAYERS = 28, 8, 6, 2

Times = Mapping[tuple[str, int], Sequence[float]]
"""Seconds per width of WIDTHS, by runtime and kernel."""


def model(channels: int, kernel: int) -> bytes:
    """Layers of C to C channels one behind the other, between layers that convert to the runtime's layout and back."""
    rng = np.random.default_rng(0)
    nodes, weights, at = [], [], "x"
    ends = [(3, channels, 1), *[(channels, channels, kernel)] * _LAYERS, (channels, 1, 1)]
    for index, (before, after, k) in enumerate(ends):
        weight = rng.standard_normal((after, before, k, k)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [at, f"w{index}"], [f"y{index}"], f"conv{index}", pads=[k // 2] * 4))
        at = f"y{index}"
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])
    y = helper.make_tensor_value_info(at, onnx.TensorProto.FLOAT, [1, 1, _SIDE, _SIDE])
    graph = helper.make_graph(nodes, "widths", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def measure(engine: Engine, kernel: int) -> list[float]:
    """Seconds of a run at every width. All widths are gone through several times, so that no disturbance hits one."""
    clock, inputs = fitting_clock(engine), {"x": np.ones((1, 3, _SIDE, _SIDE), dtype=np.float32)}
    best = np.full(len(WIDTHS), np.inf)
    sessions = [engine.session(model(channels, kernel)) for channels in WIDTHS]
    for _ in range(_ROUNDS):
        for at, session in enumerate(sessions):
            session.run(None, inputs)
            for _ in range(_RUNS):
                start = clock()
                session.run(None, inputs)
                best[at] = min(best[at], clock() - start)
    return [float(seconds) for seconds in best]


def wasted(seconds: Sequence[float], block: int) -> float:
    """What counts between multiples of a block cost beyond a straight line through the multiples: the mean share.

    Near (block - 1) / (2 * channels) where time is a staircase in ceil(channels / block), more where odd counts are
    slower still, and 0 where it is a line.
    """
    widths = np.array(WIDTHS)
    times = np.array(seconds)
    on = widths % block == 0
    line = np.interp(widths[~on], widths[on], times[on])
    return float(np.mean(times[~on] / line - 1))


def table(times: Times) -> str:
    """The waste per block, as Markdown."""
    lines = [
        f"| runtime | kernel | {' | '.join(map(str, BLOCKS))} |",
        "|---|---|" + "--:|" * len(BLOCKS),
    ]
    for (runtime, kernel), seconds in sorted(times.items()):
        cells = " | ".join(f"{wasted(seconds, block):.1%}" for block in BLOCKS)
        lines.append(f"| {runtime} | {kernel}×{kernel} | {cells} |")
    return "\n".join(lines)


def read(path: Path) -> dict[tuple[str, int], list[float]]:
    """What `write` wrote."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    keys = dict.fromkeys((row["runtime"], int(row["kernel"])) for row in rows)
    return {
        (name, kernel): [float(r["us"]) / 1e6 for r in rows if (r["runtime"], int(r["kernel"])) == (name, kernel)]
        for name, kernel in keys
    }


def write(path: Path, times: Times) -> None:
    """A row per runtime, kernel and width."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("runtime", "kernel", "channels", "us"))
        writer.writerows(_rows(times))


def _rows(times: Times) -> Iterator[tuple[str, int, int, str]]:
    for (runtime, kernel), seconds in sorted(times.items()):
        yield from ((runtime, kernel, c, f"{1e6 * s:.4g}") for c, s in zip(WIDTHS, seconds, strict=True))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--runtime", choices=names(), default=names()[0])
    parser.add_argument("--out", type=Path, required=True, help="the figures (CSV); the table is printed")
    options = parser.parse_args()
    engine = Engine(runtime=options.runtime)
    times = read(options.out) if options.out.exists() else {}
    for kernel in KERNELS:
        times[f"{options.runtime} {engine.version()}", kernel] = measure(engine, kernel)
    write(options.out, times)
    print(table(times))


if __name__ == "__main__":
    main()
