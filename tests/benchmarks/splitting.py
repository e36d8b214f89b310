"""Cuts of real models: how many there are, how long they take to find, and whether written pairs equal the whole.

Of every model three pairs are written to a folder, read back and run beside the whole: at the narrowest cut, at the one
nearest to half the work, and at one drawn. Rows are appended to ``docs/splitting.csv``.

    python -m tests.benchmarks.splitting MODEL.onnx...
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import onnxprune
from onnxprune.errors import OnnxPruneError
from onnxprune.splitting.costs import Ledger
from onnxprune.splitting.proof import certify_split
from onnxprune.splitting.splitting import split_at
from onnxprune.splitting.weighing import CutCost, Weighing, weigh
from onnxprune.splitting.writing import names_of
from tests.benchmarks.rows import add_row

ROWS = Path("docs/splitting.csv")


def chosen(found: Weighing) -> list[CutCost]:
    """The cuts that are written."""
    real = [cut for cut in found.cuts if cut.cut is not None]
    narrow = found.best("wire")
    if narrow is None:
        return []
    middle = min(real, key=lambda cut: abs(cut.head.macs - cut.tail.macs))
    return [narrow, middle, random.Random(0).choice(real)]


def study(path: Path) -> dict[str, object]:
    """The row of a model."""
    model = onnxprune.load(path)
    analysis = onnxprune.analyze(model)
    begin = time.process_time()
    ledger = Ledger(analysis)
    found = weigh(ledger)
    taken = time.process_time() - begin
    worst, passed, written = 0.0, 0, 0
    refused = []
    for cut in chosen(found):
        assert cut.cut is not None
        written += 1
        try:
            with tempfile.TemporaryDirectory() as folder:
                made = split_at(model, ledger, [cut.cut])
                made.save(Path(folder, "parts"))
                parts = [onnxprune.load(Path(folder, "parts", name)) for name in names_of(2)]
                proof = certify_split(model, analysis, parts)
            passed += proof.passed
            worst = max(worst, proof.max_relative)
        except OnnxPruneError as error:
            refused.append(str(error))
    narrow = found.best("wire")
    return {
        "model": path.stem,
        "nodes": len(ledger.flow.computing),
        "cuts": len(found.cuts) - 2,
        "on_the_front": sum(cut.best for cut in found.cuts if cut.cut is not None),
        "seconds": f"{taken:.2f}",
        "seconds_per_1000_nodes": f"{1000 * taken / max(len(ledger.flow.computing), 1):.2f}",
        "narrowest_bytes": "" if narrow is None else round(narrow.wire["plain"]),
        "head_macs_there": ""
        if narrow is None
        else f"{narrow.head.macs / max(ledger.part(ledger.flow.all).macs, 1):.3f}",
        "written": written,
        "equal": passed,
        "largest_difference": f"{worst:.1e}",
        "note": "; ".join(dict.fromkeys([found.note, *refused])).strip("; "),
    }


def main() -> None:
    """Study the models that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    for path in parser.parse_args().models:
        row = study(path)
        print(row, flush=True)
        add_row(ROWS, row)


if __name__ == "__main__":
    main()
