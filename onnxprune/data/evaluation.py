"""How well a model does on labelled samples, measured in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.logits import Head, head_of
from onnxprune.errors import DataError
from onnxprune.ir.model import ModelLike, as_model
from onnxprune.ir.session import Session

if TYPE_CHECKING:
    from onnxprune.data import Batch, Batches
    from onnxprune.ir.model import Model

Array = NDArray[Any]

_SMALLEST = 1e-12
"""A probability that is nothing in float32 counts as this."""
_BATCH = 256


@dataclass(frozen=True)
class Score:
    """How well a model does on some samples: mean loss, and the share of right answers (None for values).

    ``samples`` is their number.
    """

    loss: float
    accuracy: float | None
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def evaluate(model: ModelLike, samples: Batches, *, output: str | None = None, threads: int = 0) -> Score:
    """Run a model on labelled samples in onnxruntime.

    Class numbers as labels give cross-entropy and accuracy, values the mean squared error.

    Args:
        model: a Model, ModelProto or path.
        samples: with labels.
        output: the graph output to judge; may be None where there is one.
        threads: of onnxruntime; 0 is its choice.

    Raises:
        DataError: there are no samples or no labels, or they do not fit the output.
        TrainingError: it is open which output is meant.
        VerificationError: onnxruntime does not run the model.
    """
    source = as_model(model)
    head = head_of(source, output)
    loss, right, count, places = 0.0, 0, 0, 0
    for batch, outputs in run_over(source, samples, threads=threads):
        if batch.targets is None:
            raise DataError("the samples have no labels to compare with")
        size, result = len(batch), outputs[head.output]
        if batch.targets.dtype.kind == "f":
            loss += size * _squared_error(result, batch.targets)
        else:
            one, hits = _classified(result, batch.targets, head)
            loss, right, places = loss + size * one, right + hits, places + batch.targets.size
        count += size
    if not count:
        raise DataError("there are no samples to evaluate with")
    return Score(loss / count, right / places if places else None, count)


def run_over(model: Model, samples: Batches, *, threads: int = 0) -> Iterator[tuple[Batch, dict[str, Array]]]:
    """Every batch with the model's outputs for it, [B, ...] by name.

    A model that insists on a batch size gets it: the last batch is filled up, and its outputs are cut.

    Raises:
        VerificationError: onnxruntime does not run the model.
    """
    from onnxprune.data import inputs_of

    fixed = next((spec.batch for spec in inputs_of(model) if spec.batch is not None), None)
    session = Session(model, "the model", threads=threads)
    for batch in samples.iterate(fixed or _BATCH):
        size = len(batch)
        outputs = session.run({name: _filled(values, fixed or size) for name, values in batch.inputs.items()})
        yield batch, {name: np.asarray(values)[:size] for name, values in outputs.items()}


def _filled(values: Array, size: int) -> Array:
    return values if len(values) == size else np.resize(values, (size, *values.shape[1:]))


def _squared_error(result: Array, targets: Array) -> float:
    if result.size != targets.size:
        raise DataError(f"the labels have shape {targets.shape}, the model's output {result.shape}")
    return float(np.square(result.reshape(targets.shape).astype(np.float64) - targets).mean())


def _classified(result: Array, targets: Array, head: Head) -> tuple[float, int]:
    """Mean cross-entropy and right answers."""
    from scipy.special import log_softmax

    scores, ending = classes_second(result, targets.ndim), head.ending
    if result.size == targets.size and ending != "LogSoftmax":
        # A single value tells two classes apart.
        one = result.reshape(targets.shape)
        scores = np.stack([1 - one if ending == "Sigmoid" else np.zeros_like(one), one], axis=1)
        ending = "Softmax" if ending == "Sigmoid" else None
    if scores.ndim < 2 or scores.shape[:1] + scores.shape[2:] != targets.shape:
        raise DataError(f"class numbers of shape {targets.shape} do not fit the model's output of shape {result.shape}")
    if targets.min(initial=0) < 0 or targets.max(initial=0) >= scores.shape[1]:
        bad = int(targets.min() if targets.min() < 0 else targets.max())
        raise DataError(f"label {bad} is outside of the model's {scores.shape[1]} classes (0 to {scores.shape[1] - 1})")
    wide = scores.astype(np.float64)
    log = np.log(np.maximum(wide, _SMALLEST)) if ending == "Softmax" else log_softmax(wide, axis=1)
    chosen = np.take_along_axis(log, np.expand_dims(targets, 1), axis=1)
    return float(-chosen.mean()), int((scores.argmax(axis=1) == targets).sum())


def classes_second(result: Array, target_rank: int) -> Array:
    """Results without the axes of length 1 that some classifiers end with: [B, classes, 1, 1] for one label each."""
    surplus: Sequence[int] = result.shape[target_rank + 1 :]
    return result.reshape(result.shape[: target_rank + 1]) if surplus and set(surplus) == {1} else result
