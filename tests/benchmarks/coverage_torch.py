"""Which models become PyTorch modules: onnxprune beside onnx2torch, onnx2pytorch and onnx2fx, on the same files.

    python -m tests.benchmarks.coverage_torch [--zoo] [--folder DIR] [--output docs/torch_coverage.md]

Each tool reads each file in a process of its own. A model counts as read if the module computes what onnxruntime does
(within 1e-4 of the largest value), and as trainable if every parameter then gets a finite gradient in training mode.
The answers stand in a CSV file beside the page: an interrupted run just starts again, `--again PATTERN` asks anew.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

import onnxprune
from onnxprune.ir.session import random_inputs
from onnxprune.ir.shapes import infer_shapes

from .coverage_torch_page import ORIGIN, PEERS, PRUNED, Answers, page
from .environments import OWN, Environment, interpreter, one_thread

WORKER = Path(__file__).with_name("coverage_torch_worker.py")
MODELS = Path(__file__).parents[2] / "models"
SECONDS = 180
"""Of the processor, for a tool and a model."""
SHARE = 0.5
"""Of the channels of every group, what pruned models lack."""

IMPORTERS = Environment(
    "importers",
    "ONNXPRUNE_BENCH_IMPORTERS",
    ("torch==2.14.1", "torchvision==0.29.1", "onnx2torch==1.5.15", "onnx2pytorch==0.6.0", "onnx2fx==0.0.1"),
)

_PACKAGE = "package"
_REFERENCE = "models"

Key = tuple[str, str]
Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Subject:
    """A model: where it comes from, its name, its file if there is one as it is, shapes of its inputs, and values.

    ``inputs`` are sets of values for those inputs that take no noise; each set is a run.
    """

    origin: str
    name: str
    path: Path | None
    shapes: Mapping[str, tuple[int, ...]]
    inputs: tuple[Inputs, ...] = ({},)

    @property
    def key(self) -> Key:
        """What names it in the table."""
        return self.origin, self.name

    def load(self) -> onnxprune.Model:
        """The model."""
        if self.path is not None:
            return onnxprune.load(self.path)
        from tests.zoo import sources

        return onnxprune.load(sources.load(self.name))


def subjects(zoo: bool, folder: Path | None, largest: float) -> Iterator[Subject]:
    """The reference models, and on request those that packages ship and those of a folder, small ones first."""
    for path in sorted(MODELS.glob("*.onnx")):
        yield Subject(_REFERENCE, path.stem, path, {})
    if zoo:
        from tests.zoo import sources

        for name in sources.NAMES:
            yield Subject(_PACKAGE, name, None, sources.input_shapes(name), _runs(sources.example_inputs(name)))
    if folder is not None:
        files = [path for path in folder.glob("*/*.onnx") if path.stat().st_size <= largest]
        for path in sorted(files, key=lambda path: path.stat().st_size):
            yield Subject(path.parent.name, path.stem, path, {})


def _runs(inputs: Inputs) -> tuple[Inputs, ...]:
    """Speech at 16 kHz, and where the model takes the rate, at 8 kHz too: a branch of its own, half as long."""
    if "sr" not in inputs:
        return (inputs,)
    speech = inputs["input"]
    return inputs, {**inputs, "sr": np.array(8000, dtype=np.int64), "input": speech[:, : speech.shape[1] // 2]}


def answers(subject: Subject, workers: Mapping[str, Worker], peers: bool) -> Answers:
    """What the tools make of the model, and onnxprune of the pruned one: a word each."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = subject.load()
        path = subject.path or _saved(model, folder)
        prepare(model, path, subject, folder)
        for tool, worker in workers.items():
            if peers or tool not in PEERS:
                found[tool] = worker.examine(path, folder)
        try:
            pruned = onnxprune.compress(model, channels=SHARE, input_shapes=subject.shapes, certify=False).model
        except onnxprune.BudgetError:
            return {**found, PRUNED: "nothing may go"}
        path = _saved(pruned, folder)
        prepare(pruned, path, subject, folder)
        return {**found, PRUNED: workers["onnxprune"].examine(path, folder)}


class Worker:
    """The parent's end of ``coverage_torch_worker.py``."""

    def __init__(self, tool: str, environment: Environment) -> None:
        self._process = subprocess.Popen(
            [interpreter(environment), str(WORKER), tool, str(SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=one_thread(),
        )

    def examine(self, path: Path, folder: Path) -> str:
        """What the tool makes of a model, with the inputs and outputs in ``folder``: a word for the table."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), str(folder)]) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        if "error" in found:
            return "too slow" if found["error"] == "TimeoutError" else str(found["error"])
        if not found["difference"] <= 1e-4:
            return f"wrong ({found['difference']:.0e})"
        return "yes" if found["trains"] else "not trainable"

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


def prepare(model: onnxprune.Model, path: Path, subject: Subject, folder: Path) -> None:
    """Put inputs for a model, and what onnxruntime computes from them, into a folder."""
    normal = onnxprune.normalize(model)
    noise = random_inputs(normal, dict(infer_shapes(normal, subject.shapes).binding), seed=0)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    for number, given in enumerate(subject.inputs):
        inputs = {name: given.get(name, noise[name]) for name in names}
        np.savez(folder / f"inputs-{number}.npz", *inputs.values())
        np.savez(folder / f"outputs-{number}.npz", *session.run(None, inputs))


def _saved(model: onnxprune.Model, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(model.to_proto(), path)
    return path


def read(path: Path) -> dict[Key, Answers]:
    """The answers that `write` wrote."""
    with path.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    return {(line[ORIGIN], line["model"]): {k: v for k, v in list(line.items())[2:] if v} for line in lines}


def write(path: Path, rows: Mapping[Key, Answers]) -> None:
    """Write answers in the order of origins and names; the file is whole at every moment."""
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as stream:
        columns = [ORIGIN, "model", "onnxprune", PRUNED, *PEERS]
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({ORIGIN: origin, "model": name, **found} for (origin, name), found in sorted(rows.items()))
    partial.replace(path)


def main() -> None:
    """Ask what has not been asked, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", action="store_true", help="the models that packages ship, too")
    parser.add_argument(
        "--folder", type=Path, help="folder of folders of ONNX files, as tests/zoo/export_zoo.py leaves"
    )
    parser.add_argument("--largest", type=float, default=450e6, help="bytes; larger files of the folder are left out")
    parser.add_argument("--peers", type=float, default=450e6, help="bytes; peers are not asked about larger files")
    parser.add_argument("--again", default="", metavar="PATTERN", help="ask about these anew: a glob of origin/name")
    parser.add_argument("--output", type=Path, required=True, help="the page; its answers go to the same name, .csv")
    options = parser.parse_args()
    table = options.output.with_suffix(".csv")
    rows = read(table) if table.exists() else {}
    with ExitStack() as stack:
        environments = {"onnxprune": OWN, **dict.fromkeys(PEERS, IMPORTERS)}
        workers = {tool: stack.enter_context(Worker(tool, each)) for tool, each in environments.items()}
        for subject in subjects(options.zoo, options.folder, options.largest):
            if subject.key in rows and not fnmatchcase("/".join(subject.key), options.again):
                continue
            peers = subject.path is None or subject.path.stat().st_size <= options.peers
            rows[subject.key] = answers(subject, workers, peers)
            write(table, rows)
            options.output.write_text(page(rows))
            print("/".join(subject.key), rows[subject.key], file=sys.stderr, flush=True)
    options.output.write_text(page(rows))


if __name__ == "__main__":
    main()
