"""A network trained on ImageNet, pruned with photographs for calibration: how close its answers stay.

There are no labels: the pruned network's answers on crops of photographs that calibration has not seen are compared
with those of the original. Writes ``docs/retention_photos.csv``.

    python -m tests.benchmarks.retention_photos MODEL.onnx PHOTOS

MODEL takes (batch, 3, 224, 224), normalised as ImageNet is; PHOTOS is a folder of photographs (those that come with
scikit-image: ``skimage/data``).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from onnxprune.data.fidelity import measure_fidelity
from onnxprune.data.samples import collect
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.criteria import criterion

from .retention import Remembered

ROWS = Path("docs/retention_photos.csv")
BUDGETS = (0.1, 0.2, 0.3, 0.5)
PER_PHOTO = 16
LARGE = 256
"""Pixels: smaller pictures are left out."""
_MEAN, _STD = (np.array(v, dtype=np.float32).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def crops(files: list[Path], seed: int) -> NDArray[np.float32]:
    """Random crops of photographs, [N, 3, 224, 224]."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    found: list[Any] = []
    for file in files:
        image = Image.open(file).convert("RGB")
        for _ in range(PER_PHOTO):
            side = int(rng.integers(256, 400))
            scale = side / min(image.size)
            small = image.resize((max(224, round(image.width * scale)), max(224, round(image.height * scale))))
            x, y = int(rng.integers(0, small.width - 223)), int(rng.integers(0, small.height - 223))
            pixels = np.asarray(small.crop((x, y, x + 224, y + 224)), dtype=np.float32) / 255
            found.append((pixels.transpose(2, 0, 1) - _MEAN) / _STD)
    return np.stack(found).astype(np.float32)


def photographs(folder: Path) -> list[Path]:
    """Pictures in colour that are large enough."""
    from PIL import Image

    files = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in (".png", ".jpg", ".jpeg"):
            with Image.open(file) as image:
                # Of a stereo pair one is enough: both halves of the photographs must differ.
                if image.mode in ("RGB", "RGBA") and min(image.size) >= LARGE and "_right" not in file.stem:
                    files.append(file)
    return files


def main() -> None:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    arguments = parser.parse_args()
    model = onnxprune.load(arguments.model)
    name = next(value.name for value in model.graph.input if value.name not in model.weights)
    files = photographs(arguments.photos)
    seen, unseen = files[0::2], files[1::2]
    fit = collect({name: crops(seen, 0)}, model, 1 << 20)
    held_out = collect({name: crops(unseen, 1)}, model, 1 << 20)
    print(f"{len(fit)} crops of {[f.name for f in seen]}, {len(held_out)} of {[f.name for f in unseen]}", flush=True)
    analysis = onnxprune.analyze(model)
    chosen = {label: Remembered(criterion(label)) for label in ("l2", "refit")}
    is_new = True
    for reduce in BUDGETS:
        for label, allocation in (("l2", "uniform"), ("refit", "global")):
            plan = onnxprune.plan(
                analysis, reduce=reduce, allocation=allocation, criterion=chosen[label], calibration=fit
            )
            pruned = onnxprune.apply(model, plan)
            for method in ("none", "bias", "refit"):
                result = pruned if method == "none" else compensate(pruned, model, plan, fit, method=method).model
                output = measure_fidelity(model, result, held_out).outputs[0]
                row = {
                    "criterion": label,
                    "allocation": allocation,
                    "compensation": method,
                    "removed": f"{1 - plan.after['flops'] / plan.before['flops']:.4f}",
                    "calibration": len(fit),
                    "crops": len(held_out),
                    "agreement": f"{output.agreement:.4f}",
                    "kl": f"{output.kl:.4f}",
                    "cosine": f"{output.cosine:.4f}",
                }
                with ROWS.open("w" if is_new else "a", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, list(row), lineterminator="\n")
                    if is_new:
                        writer.writeheader()
                    writer.writerow(row)
                is_new = False
                print(row, flush=True)


if __name__ == "__main__":
    main()
