"""Ten times as fast: ``python -m tests.benchmarks.ten_times --data FASHION-MNIST --work FOLDER``.

A wide network of the VGG kind (5.7 M parameters) is trained on Fashion-MNIST and exported; one command, with 256 of the
training images and no labels, removes 75 % of its MACs, refits what is left and computes it in int8. The page
``docs/ten_times.md`` shows what that gives on the 10,000 test images. An interrupted study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from onnxprune.data.idx import read_idx
from onnxprune.ir.sampling import Rounds
from onnxprune.latency.bench import bench
from onnxprune.latency.machine import processor

PAGE = Path(__file__).parents[2] / "docs" / "ten_times.md"
OPTIONS = ("--mode", "flops", "--reduce", "0.75")
_WIDTHS = ((128, 128), (256, 256), (512, 512))
_EPOCHS, _BATCH, _SEED = 4, 128, 0
_STEPS = {
    "pruned": ("as they are", "none", False),
    "refitted": ("refitted", "refit", False),
    "refitted, int8": ("refitted", "refit", True),
}


def main() -> None:
    """Train, shrink, measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the four IDX files")
    parser.add_argument("--work", type=Path, required=True, help="folder for the models")
    parser.add_argument("--epochs", type=int, default=_EPOCHS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    model = options.work / "wide.onnx"
    if not model.exists():
        train(options.data, model, options.epochs)
    images, labels = test_images(options.data)
    rows = [{"what": "original", **_measured(model, model, images, labels)}]
    for what, (_, compensate, int8) in _STEPS.items():
        output = options.work / f"{what.replace(', ', '_')}.onnx"
        seconds = _shrunk(model, output, options.data, compensate, int8=int8)
        rows.append({"what": what, "seconds": seconds, **_measured(model, output, images, labels)})
        print(json.dumps(rows[-1]), flush=True)
    PAGE.write_text(page(rows), encoding="utf-8")


def train(data: Path, target: Path, epochs: int) -> None:
    """Train the network and export it."""
    import torch
    from torch import nn

    torch.manual_seed(_SEED)
    layers: list[nn.Module] = []
    channels = 1
    for stage in _WIDTHS:
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(channels * 9, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    images = torch.from_numpy(read_idx(_file(data, "train-images")).astype(np.float32) / 255)[:, None]
    labels = torch.from_numpy(read_idx(_file(data, "train-labels")).astype(np.int64))
    steps = epochs * (len(images) // _BATCH)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    generator = torch.Generator().manual_seed(_SEED)
    begin = time.monotonic()
    for epoch in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(_BATCH)[: len(images) // _BATCH]:
            x = images[batch]
            if torch.rand((), generator=generator) < 0.5:
                x = x.flip(3)
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(network(x.to(memory_format=torch.channels_last)), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.monotonic() - begin:.0f} s", flush=True)
    example = torch.zeros(1, 1, 28, 28)
    names = {"input_names": ["image"], "output_names": ["logits"]}
    axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(network.eval(), (example,), str(target), dynamo=False, dynamic_axes=axes, **names)


def test_images(data: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The test images as the network takes them, and their labels."""
    images = read_idx(_file(data, "t10k-images")).astype(np.float32)[:, None] / 255
    return images, read_idx(_file(data, "t10k-labels")).astype(np.int64)


test_images.__test__ = False  # type: ignore[attr-defined]


def _file(data: Path, part: str) -> Path:
    return next(path for path in sorted(data.glob(f"{part}*")) if "ubyte" in path.name)


def _shrunk(model: Path, output: Path, data: Path, compensate: str, *, int8: bool) -> float:
    """The one command; returns its seconds."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "onnxprune", "prune", model, "-o", output, *OPTIONS, "--force", "--no-bench"]
    command += ["--calibrate", f"{data}/", "--compensate", compensate, *(["--int8"] if int8 else [])]
    subprocess.run([str(word) for word in command], check=True)
    return time.monotonic() - begin


def _measured(original: Path, model: Path, images: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found = [session.run(None, {"image": images[at : at + 500]})[0] for at in range(0, len(images), 500)]
    ratios = {}
    for threads in (1, 2):
        rounds = Rounds(seconds=6.0, least=12)
        timed = bench(original, model, threads=threads, rounds=rounds, memory=False).subjects
        ratio = timed[1].ratio
        ratios[f"threads_{threads}"] = [timed[0].latency.median, ratio.median, ratio.low, ratio.high] if ratio else []
    costs = onnxprune.analyze(original).totals
    return {
        "accuracy": float((np.concatenate(found).argmax(1) == labels).mean()),
        "bytes": model.stat().st_size,
        "params": costs["params"],
        "macs": costs["flops"],
        **ratios,
    }


def page(rows: list[dict[str, Any]]) -> str:
    """What was measured, as Markdown."""
    first = rows[0]
    lines = [
        "# Ten times",
        "",
        "Written by `python -m tests.benchmarks.ten_times`; do not edit by hand.",
        "",
        f"A VGG-like network with {first['params'] / 1e6:.1f} M parameters and {first['macs'] / 1e6:.0f} M MACs,",
        "trained on Fashion-MNIST. One command, with training images but without labels:",
        "",
        "```sh",
        f"onnxprune prune wide.onnx -o fast.onnx {' '.join(OPTIONS)} --calibrate fashion-mnist/ --int8",
        "```",
        "",
        "Accuracy on the 10,000 test images, which nothing was chosen on; times in onnxruntime beside the original, in",
        "turns.",
        "",
        "| | accuracy | points lost | file | 1 thread: times as fast | 2 threads | seconds of the command |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        speeds = [f"{1 / row[f'threads_{n}'][1]:.1f} ×" for n in (1, 2)]
        lost = 100 * (first["accuracy"] - row["accuracy"])
        cells = [row["what"], f"{100 * row['accuracy']:.2f} %", f"{lost:.2f}", f"{row['bytes'] / 1e6:.2f} MB"]
        lines.append(f"| {' | '.join([*cells, *speeds, format(row.get('seconds', 0), '.0f')])} |")
    times = ", ".join(f"{1e3 * first[f'threads_{n}'][0]:.1f} ms with {n} thread{'s' * (n > 1)}" for n in (1, 2))
    lines += ["", f"The original takes {times}. onnxruntime {version('onnxruntime')}, {processor()}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
