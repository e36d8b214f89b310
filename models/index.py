"""What is known of each reference model, in ``index.json`` and ``README.md``, and how it is measured."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from models.data import SAMPLE_FILE, Split
from models.tasks import Floats, Layout, Task, with_channel

FOLDER = Path(__file__).parent
INDEX_FILE = FOLDER / "index.json"
README_FILE = FOLDER / "README.md"
_BATCH = 500
_TABLE_START = "<!-- table: written by the builders -->"
_TABLE_END = "<!-- end of table -->"


@dataclass(frozen=True)
class Entry:
    """One reference model.

    ``sample_score`` is measured on ``fashion_sample.npz``, ``test_score`` on the whole test split (10,000
    images); both with onnxruntime. ``params`` counts the floating point numbers in initialisers.
    """

    file: str
    network: str
    exporter: str
    opset: int
    layout: Layout
    dynamic_batch: bool
    params: int
    bytes: int
    task: str
    metric: str
    sample_score: float
    test_score: float


def run(file: Path, inputs: Floats) -> Floats:
    """The first output of a model for inputs (N, ...), in batches of whatever size the model takes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    batch = port.shape[0] if isinstance(port.shape[0], int) else _BATCH
    parts = [session.run(None, {port.name: inputs[start : start + batch]})[0] for start in range(0, len(inputs), batch)]
    return np.concatenate(parts)


def score(file: Path, task: Task, layout: Layout, split: Split) -> float:
    """The metric of ``task`` that a model reaches on a split."""
    inputs, targets = task.prepare(split)
    outputs = run(file, with_channel(inputs, layout))
    return task.score(outputs if outputs.ndim == 2 else outputs.reshape(-1, 28, 28), targets)


def measure(file: Path, network: str, exporter: str, task: Task, layout: Layout, sample: Split, test: Split) -> Entry:
    """Check a written model and gather its entry of the index."""
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    return Entry(
        file=file.name,
        network=network,
        exporter=exporter,
        opset=next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")),
        layout=layout,
        dynamic_batch=not batch.HasField("dim_value"),
        params=sum(array.size for array in weights if array.dtype.kind == "f"),
        bytes=file.stat().st_size,
        task=task.name,
        metric=task.metric,
        sample_score=round(score(file, task, layout, sample), 4),
        test_score=round(score(file, task, layout, test), 4),
    )


def load_index() -> list[Entry]:
    """The entries of the index, empty where there is none yet."""
    if not INDEX_FILE.exists():
        return []
    return [Entry(**entry) for entry in json.loads(INDEX_FILE.read_text())["models"]]


def update_index(entries: list[Entry]) -> None:
    """Put new entries in place of those of the same files, in the index and in the table of the README."""
    merged = {entry.file: entry for entry in [*load_index(), *entries]}
    listed = [merged[name] for name in sorted(merged)]
    document = {"sample": SAMPLE_FILE.name, "models": [asdict(entry) for entry in listed]}
    INDEX_FILE.write_text(json.dumps(document, indent=2) + "\n")
    before, _, rest = README_FILE.read_text().partition(_TABLE_START)
    _, _, after = rest.partition(_TABLE_END)
    README_FILE.write_text(before + _TABLE_START + _table(listed) + _TABLE_END + after)


def _table(entries: list[Entry]) -> str:
    rows = [
        "| file | network | exporter | opset | input | batch | params | kB | metric | test split | sample |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows += [
        f"| `{entry.file}` | {entry.network} | {entry.exporter} | {entry.opset} | {entry.layout} "
        f"| {'dynamic' if entry.dynamic_batch else '1'} | {entry.params:,} | {entry.bytes / 1000:.0f} "
        f"| {entry.metric} | {entry.test_score:.4f} | {entry.sample_score:.4f} |"
        for entry in entries
    ]
    return "\n" + "\n".join(rows) + "\n"
