"""What half of the multiply-accumulates saves in every runtime that is installed here.

    python -m tests.benchmarks.runtimes MODEL...

Models are pruned by `reduce=0.5` and otherwise default options, in the blocks of each runtime, and run in turns with
their original. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.ir.engine import Engine
from onnxprune.ir.runtimes import names
from onnxprune.ir.sampling import Rounds
from onnxprune.latency.machine import LocalMachine
from onnxprune.latency.profile import inputs_of
from onnxprune.latency.statistics import Ratio, paired_ratio, spread
from onnxprune.pruning.widths import block

REDUCE = 0.5


def measure(path: Path, engine: Engine, shapes: dict[str, tuple[int, ...]] | None) -> tuple[float, Ratio]:
    """Seconds of the original, and the pruned one's time over it."""
    analysis = onnxprune.analyze(path, shapes)
    blocks = f"auto:{block(engine.kernels)}"
    pruned = onnxprune.compress(path, reduce=REDUCE, input_shapes=shapes, certify=False, round_to=blocks).model
    machine = LocalMachine(engine)
    seconds = machine.rounds([analysis.model, pruned], inputs_of(analysis), Rounds(least=20, seconds=4.0))
    return spread(seconds[:, 0]).median, paired_ratio(seconds[:, 1], seconds[:, 0])


def engines() -> Iterator[Engine]:
    """One per runtime that is installed."""
    for name in names():
        try:
            yield Engine(runtime=name)
        except UsageError as error:
            print(error)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--input-shape", help="of models with dynamic shapes: name=1x3x224x224")
    options = parser.parse_args()
    shapes = None
    if options.input_shape:
        name, _, extents = options.input_shape.rpartition("=")
        shapes = {name: tuple(int(extent) for extent in extents.split("x"))}
    found = list(engines())
    print("| model | " + " | ".join(f"{e.runtime} {e.version()} | ratio" for e in found) + " |")
    print("|---|" + "--:|--:|" * len(found))
    for path in options.models:
        cells = []
        for engine in found:
            seconds, ratio = measure(path, engine, shapes)
            half = (ratio.high - ratio.low) / 2
            cells.append(f"{1e3 * seconds:.3g} ms | {ratio.median:.2f} ± {half:.2f}")
        print(f"| {path.stem} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
