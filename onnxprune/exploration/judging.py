"""One number for how good a model is: right answers on held-out samples, or agreement with the original."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnxprune.data import Batches, Data
    from onnxprune.ir.model import Model

Kind = Literal["accuracy", "r2", "agreement"]
Array = NDArray[Any]

_BATCH = 256


@dataclass(frozen=True)
class Judge:
    """Judges models on samples.

    ``kind`` says by what: ``accuracy`` (the share of right answers), ``r2`` (of values: the share of their variance
    that the model explains) or ``agreement`` with ``answers``, what the original says.
    """

    kind: Kind
    samples: Batches
    answers: tuple[Array, ...] = ()

    def score(self, model: Model, threads: int = 1) -> float:
        """At most 1; higher is better.

        Raises:
            DataError: labels do not fit the output.
            VerificationError: onnxruntime does not run the model.
        """
        if self.kind == "agreement":
            found = tuple(_answers(model, self.samples, threads))
            return _agreement(self.answers, found)
        from onnxprune.data.evaluation import evaluate

        result = evaluate(model, self.samples, threads=threads)
        if result.accuracy is not None:
            return result.accuracy
        variance = _variance(self.samples)
        return 1 - result.loss / variance if variance else float(result.loss == 0)


def judge_for(model: Model, data: Data, threads: int = 1) -> Judge:
    """How models that come from ``model`` are judged on this data.

    The held-out samples' labels where there are some, else the answers of the model itself, on the held-out samples
    or, without any, on the others. Accuracy on samples that were trained on would say nothing.
    """
    kind = kind_of(data)
    if kind != "agreement":
        assert data.test is not None
        return Judge(kind, data.test)
    samples = data.train if data.test is None else data.test
    return Judge(kind, samples, tuple(_answers(model, samples, threads)))


def kind_of(data: Data) -> Kind:
    """By what models are judged on this data."""
    if data.test is None:
        return "agreement"
    first = next(iter(data.test.iterate(1)), None)
    if first is None or first.targets is None:
        return "agreement"
    return "r2" if first.targets.dtype.kind == "f" else "accuracy"


def _answers(model: Model, samples: Batches, threads: int) -> Iterator[Array]:
    """The first output, or the chosen class where it scores several; one array per batch."""
    from onnxprune.data.evaluation import run_over

    name = model.graph.output[0].name
    for _, outputs in run_over(model, samples, threads=threads):
        result = outputs[name]
        classes = result.ndim > 1 and result.shape[1] > 1 and result.dtype.kind == "f"
        yield result.argmax(axis=1) if classes else result


def _agreement(expected: tuple[Array, ...], found: tuple[Array, ...]) -> float:
    wanted, got = (np.concatenate([part.reshape(-1) for part in parts]) for parts in (expected, found))
    if wanted.dtype.kind != "f":
        return float((wanted == got).mean())
    gap = float(np.square(got.astype(np.float64) - wanted).sum())
    spread = float(np.square(wanted.astype(np.float64) - wanted.mean(dtype=np.float64)).sum())
    return 1 - gap / spread if spread else float(gap == 0)


def _variance(samples: Batches) -> float:
    count, total, squares = 0, 0.0, 0.0
    for batch in samples.iterate(_BATCH):
        if batch.targets is not None:
            values = batch.targets.astype(np.float64)
            count, total = count + values.size, total + float(values.sum())
            squares += float(np.square(values).sum())
    return squares / count - (total / count) ** 2 if count else 0.0
