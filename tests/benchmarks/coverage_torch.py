"""Which models become PyTorch modules: onnxprune beside onnx2torch, onnx2pytorch and onnx2fx, on the same files.

    python -m tests.benchmarks.coverage_torch [--zoo] [--output docs/torch_coverage.md]

Each tool reads each file in a process of its own. A model counts as read if the module computes what onnxruntime does
(within 1e-4 of the largest value), and as trainable if every parameter then gets a finite gradient in training mode.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

import onnxprune
from onnxprune.runtime import random_inputs
from onnxprune.shapes import infer_shapes

from .environments import OWN, Environment, interpreter, one_thread

WORKER = Path(__file__).with_name("coverage_torch_worker.py")
MODELS = Path(__file__).parents[2] / "models"
SECONDS = 180

IMPORTERS = Environment(
    "importers",
    "ONNXPRUNE_BENCH_IMPORTERS",
    ("torch==2.14.1", "torchvision==0.29.1", "onnx2torch==1.5.15", "onnx2pytorch==0.6.0", "onnx2fx==0.0.1"),
)
TOOLS: Mapping[str, Environment] = {
    "onnxprune": OWN,
    "onnx2torch": IMPORTERS,
    "onnx2pytorch": IMPORTERS,
    "onnx2fx": IMPORTERS,
}

INTRODUCTION = """\
# Reading ONNX files into PyTorch

Written by `python -m tests.benchmarks.coverage_torch`. "yes": the module computes what onnxruntime does, within 1e-4
of the largest value, and every parameter gets a finite gradient in training mode. Otherwise the exception, or the
difference. "halved" models are pruned to half their MACs. onnx2torch 1.5.15, onnx2pytorch 0.6.0, onnx2fx 0.0.1.
"""


@dataclass(frozen=True)
class Subject:
    """A model, and shapes for its inputs if the file leaves them open."""

    name: str
    model: onnxprune.Model
    shapes: Mapping[str, tuple[int, ...]]


def subjects(zoo: bool) -> Iterator[Subject]:
    """The reference models, originals and halved, and on request the quick ones of the zoo."""
    for path in sorted(MODELS.glob("*.onnx")):
        model = onnxprune.load(path)
        yield Subject(path.stem, model, {})
        pruned = onnxprune.compress(model, mode="flops", reduce=0.5, certify=False).model
        yield Subject(f"{path.stem}, halved", pruned, {})
    if zoo:
        from tests.zoo.subjects import ALL, QUICK

        for subject in ALL:
            if subject.name in QUICK:
                yield Subject(subject.name, onnxprune.load(subject.load()), subject.shapes())


def examine(tool: str, folder: Path) -> str:
    """What one tool makes of the model in a folder: a word for the table."""
    command = [interpreter(TOOLS[tool]), str(WORKER), tool, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=one_thread())
    except subprocess.TimeoutExpired:
        return "too slow"
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return "crash"
    found = json.loads(lines[-1])
    if "error" in found:
        return str(found["error"])
    if found["difference"] > 1e-4:
        return f"wrong ({found['difference']:.0e})"
    return "yes" if found["trains"] else "not trainable"


def prepare(subject: Subject, folder: Path) -> None:
    """Put the model, inputs and what onnxruntime computes into a folder."""
    proto = subject.model.to_proto()
    onnx.save(proto, folder / "model.onnx")
    normal = onnxprune.normalize(subject.model)
    inputs = random_inputs(normal, dict(infer_shapes(normal, subject.shapes).binding), seed=0)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    np.savez(folder / "inputs.npz", *(inputs[name] for name in names))
    np.savez(folder / "outputs.npz", *session.run(None, {name: inputs[name] for name in names}))


def table(rows: Mapping[str, Mapping[str, str]]) -> str:
    """The results as Markdown."""
    lines = ["| model | " + " | ".join(TOOLS) + " |", "|---" * (len(TOOLS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(found[tool] for tool in TOOLS) + " |" for name, found in rows.items()]
    counts = [sum(found[tool] == "yes" for found in rows.values()) for tool in TOOLS]
    lines.append(f"| **of {len(rows)}** | " + " | ".join(f"**{count}**" for count in counts) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the comparison and print or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", action="store_true", help="published models too")
    parser.add_argument("--output", type=Path, help="the page to write")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, str]] = {}
    for subject in subjects(arguments.zoo):
        with tempfile.TemporaryDirectory() as folder:
            prepare(subject, Path(folder))
            rows[subject.name] = {tool: examine(tool, Path(folder)) for tool in TOOLS}
        print(subject.name, rows[subject.name], file=sys.stderr)
    page = f"{INTRODUCTION}\n{table(rows)}\n"
    if arguments.output is None:
        print(page)
    else:
        arguments.output.write_text(page)


if __name__ == "__main__":
    main()
