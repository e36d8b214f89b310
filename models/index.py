"""What is known of each reference model, in ``index.json``, and how it is measured."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from models.data import Split
from models.tasks import Floats, Layout, Task, with_channel

FOLDER = Path(__file__).parent
INDEX_FILE = FOLDER / "index.json"
_BATCH = 500


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
    parts = [
        session.run(None, {port.name: inputs[start : start + batch]})[0]
        for start in range(0, len(inputs), batch)
    ]
    return np.concatenate(parts)


def score(file: Path, task: Task, layout: Layout, split: Split) -> float:
    """The metric of ``task`` that a model reaches on a split."""
    inputs, targets = task.prepare(split)
    outputs = run(file, with_channel(inputs, layout))
    return task.score(outputs if outputs.ndim == 2 else outputs.reshape(-1, 28, 28), targets)


def measure(
    file: Path, network: str, exporter: str, task: Task, layout: Layout, sample: Split, test: Split
) -> Entry:
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


def load_index(file: Path = INDEX_FILE) -> list[Entry]:
    """The entries of the index, empty where there is none yet."""
    if not file.exists():
        return []
    return [Entry(**entry) for entry in json.loads(file.read_text())["models"]]


def update_index(entries: list[Entry], file: Path = INDEX_FILE) -> None:
    """Put new entries in place of those of the same files; entries are sorted by file."""
    merged = {entry.file: entry for entry in [*load_index(file), *entries]}
    listed = [asdict(merged[name]) for name in sorted(merged)]
    document = {"sample": "fashion_sample.npz", "models": listed}
    file.write_text(json.dumps(document, indent=2) + "\n")
