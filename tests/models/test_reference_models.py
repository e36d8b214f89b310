"""The reference models: each is valid, small, and as accurate on the committed sample as the index says.

Inputs, targets and metrics are computed here on their own and not by the code in models/ that recorded them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

FOLDER = Path(__file__).parents[2] / "models"
INDEX = json.loads((FOLDER / "index.json").read_text())
ENTRIES = {entry["file"]: entry for entry in INDEX["models"]}
LARGEST = 1_000_000  # bytes of a model
LARGEST_SAMPLE = 300_000  # bytes of the sample
# Kernels of another processor or runtime may turn a borderline image or pixel: two images of the 500.
CLOSE = 0.004
# What a model has to reach at all, so that pruning has something to lose. Thresholding the pixelated input
# itself, with no network, gives a mean IoU of 0.76.
USEFUL = {"accuracy": 0.88, "mean IoU": 0.86}

every_model = pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())


@pytest.fixture(scope="module")
def sample() -> dict[str, Any]:
    """``images`` (500, 28, 28) uint8 and ``labels`` (500,) uint8, as many of each class."""
    with np.load(FOLDER / INDEX["sample"]) as arrays:
        return dict(arrays)


def predict(file: Path, images: Any, layout: str) -> Any:
    """First output of a model for (N, 28, 28) images, in the batches it takes, without axes of extent one."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    step = port.shape[0] if isinstance(port.shape[0], int) else len(images)
    inputs = np.expand_dims(images, 1 if layout == "NCHW" else 3).astype(np.float32)
    outputs = [session.run(None, {port.name: inputs[i : i + step]})[0] for i in range(0, len(inputs), step)]
    return np.concatenate(outputs).squeeze()


def accuracy(entry: dict[str, Any], sample: dict[str, Any]) -> float:
    """Share of images whose class is the largest output."""
    logits = predict(FOLDER / entry["file"], sample["images"] / 255, entry["layout"])
    return float(np.mean(np.argmax(logits, 1) == sample["labels"]))


def mean_iou(entry: dict[str, Any], sample: dict[str, Any]) -> float:
    """How well the masks predicted from 7 x 7 blocks overlap with those of the full images."""
    images = sample["images"]
    pixelated = np.kron(
        images.reshape(-1, 7, 4, 7, 4).mean((2, 4)), np.ones((1, 4, 4))
    )  # every block filled with its mean
    found = predict(FOLDER / entry["file"], pixelated / 255, entry["layout"]) > 0
    wanted = images >= 32
    return float(np.mean((found & wanted).sum((1, 2)) / (found | wanted).sum((1, 2))))


METRICS = {"accuracy": accuracy, "mean IoU": mean_iou}


def test_the_index_lists_every_file() -> None:
    assert sorted(ENTRIES) == sorted(file.name for file in FOLDER.glob("*.onnx"))


def test_the_networks_and_exporters_that_are_promised_are_there() -> None:
    built = {(entry["network"], entry["exporter"].split()[-1]) for entry in ENTRIES.values()}
    for network in ("residual", "depthwise", "dense", "vgg", "unet"):
        assert {(network, "torchscript"), (network, "dynamo")} <= built
    assert sum(entry["exporter"].startswith("keras") for entry in ENTRIES.values()) >= 2
    assert {entry["dynamic_batch"] for entry in ENTRIES.values()} == {True, False}


def test_the_sample_is_small_and_balanced(sample: dict[str, Any]) -> None:
    assert (FOLDER / INDEX["sample"]).stat().st_size <= LARGEST_SAMPLE
    assert np.bincount(sample["labels"]).tolist() == [50] * 10


@every_model
def test_the_file_is_valid_small_and_as_described(entry: dict[str, Any]) -> None:
    file = FOLDER / entry["file"]
    assert file.stat().st_size == entry["bytes"] <= LARGEST
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert max(item.version for item in model.opset_import if item.domain == "") == entry["opset"]
    sizes = [np.prod(tensor.dims, dtype=int) for tensor in model.graph.initializer if tensor.data_type == 1]
    assert sum(sizes) == entry["params"]


@every_model
def test_the_file_says_nothing_of_the_machine_it_was_made_on(entry: dict[str, Any]) -> None:
    assert b"site-packages" not in (FOLDER / entry["file"]).read_bytes()


@every_model
def test_the_score_is_the_recorded_one(entry: dict[str, Any], sample: dict[str, Any]) -> None:
    measured = METRICS[entry["metric"]](entry, sample)
    assert measured == pytest.approx(entry["sample_score"], abs=CLOSE)
    assert measured >= USEFUL[entry["metric"]]
    assert entry["test_score"] >= USEFUL[entry["metric"]]
