"""Channels across a cut: bytes that cross, and what is left of the answers on pictures that nothing was fitted to.

The model is cut where the fewest bytes cross (or at --at), which cross as int8; channels go until no more than the
asked share of the float bytes is left. A row is appended to ``docs/split_wire.csv``.

    python -m tests.benchmarks.split_wire MODEL.onnx CALIBRATE TEST [--share 0.125] [--at TENSOR] [--samples 256]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import onnxprune
from onnxprune.data.fidelity import measure_fidelity
from onnxprune.data.samples import collect
from onnxprune.pruning.options import JobOptions, PlanOptions
from onnxprune.splitting.costs import Ledger
from onnxprune.splitting.narrowing import WireSize, narrowed
from onnxprune.splitting.parts import joined
from onnxprune.splitting.splitting import split_at
from onnxprune.splitting.weighing import weigh
from onnxprune.splitting.wire import roundings
from tests.benchmarks.rows import add_row

ROWS = Path("docs/split_wire.csv")


def main() -> None:
    """Study the model that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibrate")
    parser.add_argument("test")
    parser.add_argument("--share", type=float, default=0.125)
    parser.add_argument("--at")
    parser.add_argument("--samples", type=int, default=256)
    said = parser.parse_args()
    begin = time.perf_counter()
    model = onnxprune.load(said.model)
    whole = weigh(onnxprune.analyze(model))
    cut = whole.best("wire") if said.at is None else whole.at(said.at.split(","))
    assert cut is not None
    most = said.share * cut.wire["plain"]
    job = JobOptions(calibration=said.calibrate, calibration_samples=said.samples)
    made = narrowed(model, WireSize(cut.tensors, "int8"), most, PlanOptions(round_to=1), job)
    ledger = Ledger(onnxprune.analyze(made.model))
    again = weigh(ledger).at(cut.tensors)
    assert again.cut is not None
    samples = collect(said.calibrate, made.model, said.samples)
    ranges = roundings(ledger.analysis.model, samples, again.tensors)
    parts = split_at(made.model, ledger, [again.cut], coding="int8", ranges=ranges).parts
    test = collect(said.test, model, 10_000)
    answer = measure_fidelity(model, joined(ledger.analysis.model, parts), test).answers[0]
    row = {
        "model": said.model.stem,
        "cut": " ".join(cut.tensors),
        "float_bytes": round(cut.wire["plain"]),
        "bytes": round(again.wire["int8"]),
        "packed_bytes": round(sum(ranges[name].packed for name in again.tensors)),
        "samples": said.samples,
        "test_pictures": len(test),
        "answers": answer.sentence,
        "seconds": round(time.perf_counter() - begin),
    }
    print(row)
    add_row(ROWS, row)


if __name__ == "__main__":
    main()
