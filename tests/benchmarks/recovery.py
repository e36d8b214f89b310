"""A network that somebody uses, without labels: what is left of its answers in closed form, and after recovery.

The original's class on pictures of TEST, which are others than those of CALIBRATE, beside the pruned network's: of all
pictures, and of those where the original is more than half sure. Rows are appended to ``docs/recovery.csv``.

    python -m tests.benchmarks.recovery MODEL.onnx CALIBRATE TEST [OPTIONS] [--reduce 0.3] [--recover --minutes 20]

CALIBRATE and TEST are SPECs (folder?size=224&mean=…&std=…, with &augment=flip&views=2 for views of each picture;
CALIBRATE may be synthetic:128); OPTIONS are options of a plan as name=value, by default
those of ``onnxprune prune --calibrate``; ``rounds=auto`` or ``rounds=3`` of ``--recover`` is one, too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import onnxprune
from onnxprune.data.fidelity import outputs_of
from onnxprune.data.samples import Samples, collect
from onnxprune.data.tasks.base import softmax
from onnxprune.ir.model import Model
from onnxprune.passes.normalize import normalize
from tests.benchmarks.rows import add_row

ROWS = Path("docs/recovery.csv")
SURE = 0.5


def agreement(original: Model, pruned: Model, samples: Samples) -> tuple[float, float]:
    """The share of samples with the original's class: of all, and of those where it is sure."""
    before, after = (next(iter(outputs_of(model, samples, "a model").values())) for model in (original, pruned))
    same = before.argmax(axis=1) == after.argmax(axis=1)
    sure = softmax(before).max(axis=1) > SURE
    return float(same.mean()), float(same[sure].mean())


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def main() -> None:
    """Run one case, and add its row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("calibrate")
    parser.add_argument("test")
    parser.add_argument("--reduce", type=float, default=0.3)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--recover", action="store_true")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("options", nargs="*", help="of the plan, name=value")
    given = parser.parse_intermixed_args()
    options = {name: _value(value) for name, _, value in (text.partition("=") for text in given.options)}
    model = onnxprune.load(given.model)
    begin, used = time.perf_counter(), time.process_time()
    made = onnxprune.compress(
        model,
        reduce=given.reduce,
        calibration=given.calibrate,
        calibration_samples=given.samples,
        recover=given.recover,
        minutes=given.minutes,
        certify=False,
        **options,
    )
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    others = collect(given.test, normalize(model), 1 << 20)
    every, sure = agreement(model, made.model, others)
    row = {
        "model": given.model.stem,
        "removed": f"{1 - made.plan.after['flops'] / made.plan.before['flops']:.3f}",
        "data": "pictures" if Path(given.calibrate.partition("?")[0]).exists() else given.calibrate,
        "options": " ".join(given.options) or "default",
        "samples": given.samples,
        "steps": 0 if made.recovery is None else made.recovery.states[made.recovery.kept].step,
        "agreement": f"{every:.3f}",
        "sure": f"{sure:.3f}",
        "pictures": len(others),
        "rounds": max(len(made.rounds), 1),
        "seconds": f"{np.round(seconds):.0f}",
        "processor": f"{used:.0f}",
    }
    add_row(ROWS, row)
    print(row, flush=True)


if __name__ == "__main__":
    main()
