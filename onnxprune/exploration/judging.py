"""One number for how good a model is: right answers on held-out samples, or agreement with the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from onnxprune.data.fidelity import answers_of
from onnxprune.data.tasks import AUTO, Answers, judge, readers_of
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.data import Batches, Data
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model

Kind = Literal["accuracy", "r2", "answers"]
_BATCH = 256
_MOST = 4096
"""Samples that answers are compared on, at most."""


@dataclass(frozen=True)
class Judge:
    """Judges models on samples.

    ``kind`` says by what: ``accuracy`` (the share of right answers), ``r2`` (of values: the share of their variance
    that the model explains) or ``answers``, what the original says: the share of them that is
    left, by the measure of ``task``, as ``prune`` has it.
    """

    kind: Kind
    samples: Batches | Samples
    answers: Answers | None = None
    task: str = AUTO

    def score(self, model: Model, threads: int = 1) -> float:
        """At most 1; higher is better.

        Raises:
            DataError: labels do not fit the output.
            VerificationError: onnxruntime does not run the model.
        """
        from onnxprune.data.samples import Samples

        if isinstance(self.samples, Samples):
            assert self.answers is not None
            return share_left(self.answers, answers_of(model, self.samples, "the pruned model")[0], self.task)
        from onnxprune.data.evaluation import evaluate

        result = evaluate(model, self.samples, threads=threads)
        if result.accuracy is not None:
            return result.accuracy
        variance = _variance(self.samples)
        return 1 - result.loss / variance if variance else float(result.loss == 0)


def judge_for(model: Model, data: Data, task: str = AUTO) -> Judge:
    """How models that come from ``model`` are judged on this data.

    The held-out samples' labels where there are some, else the answers of the model itself, on the held-out samples
    or, without any, on the others. Accuracy on samples that were trained on would say nothing. ``task`` is that of the
    answers; ``auto`` looks at them.

    Raises:
        UsageError: the task is not known, cannot read the outputs, or is of no use, since labels judge.
    """
    kind = kind_of(data)
    if kind != "answers":
        if task != AUTO:
            raise UsageError(f"labels of held-out samples judge here: leave task '{task}' out")
        assert data.test is not None
        return Judge(kind, data.test)
    from onnxprune.data.samples import collect

    samples = collect(data.train if data.test is None else data.test, model, _MOST)
    answers, count = answers_of(model, samples, "the original")
    readers_of(answers, task)  # whether it reads them
    return Judge(kind, samples.part(0, count), answers, task)


def share_left(before: Answers, after: Answers, task: str = AUTO) -> float:
    """The smallest share of answers that are left, over what all outputs say; 0 where outputs are missing."""
    if not before.outputs.keys() <= after.outputs.keys():
        return 0.0
    return min((one.share for one in judge(before, after.only(list(before.outputs)), task)), default=0.0)


def kind_of(data: Data) -> Kind:
    """By what models are judged on this data."""
    if data.test is None:
        return "answers"
    first = next(iter(data.test.iterate(1)), None)
    if first is None or first.targets is None:
        return "answers"
    return "r2" if first.targets.dtype.kind == "f" else "accuracy"


def _variance(samples: Batches) -> float:
    count, total, squares = 0, 0.0, 0.0
    for batch in samples.iterate(_BATCH):
        if batch.targets is not None:
            values = batch.targets.astype(np.float64)
            count, total = count + values.size, total + float(values.sum())
            squares += float(np.square(values).sum())
    return squares / count - (total / count) ** 2 if count else 0.0
