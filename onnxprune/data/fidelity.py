"""How much of what a model computes is left: its outputs beside those of the original, on data without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.logits import head_of
from onnxprune.data.samples import Samples
from onnxprune.data.tasks import AUTO, Answers, Judgement, Verdict, judge
from onnxprune.data.tasks.base import VERDICTS
from onnxprune.errors import DataError
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session

FloatArray = NDArray[np.float64]

_MEMORY = 1 << 28
"""Bytes of outputs of a model that are held; more samples are left out."""
_WORST = 5
_MOST_ROWS = 4096


@dataclass(frozen=True)
class RowFidelity:
    """One row of an output, or one channel: its ``index``, and ``cosine`` and ``error`` as for all of it."""

    index: int
    cosine: float
    error: float


@dataclass(frozen=True)
class OutputFidelity:
    """One output beside the original's.

    ``cosine`` is the mean cosine of the angle between both per sample, ``error`` the mean squared difference over the
    variance of the original's. For outputs [N, C] that score classes: ``agreement``, the share of samples with the
    same largest score, ``kl``, the mean Kullback-Leibler divergence of the class probabilities in nats (softmax of
    the scores, unless they are probabilities already), and the accuracy of both where labels are known.
    ``worst`` are the rows (of outputs with more than one axis beside N, along the shorter of the first and the last)
    with the lowest cosines, the worst one first, of ``rows``: what is large in one drowns what is small in another.
    """

    name: str
    cosine: float
    error: float
    agreement: float | None = None
    kl: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None
    worst: tuple[RowFidelity, ...] = ()
    rows: int = 0


@dataclass(frozen=True)
class Fidelity:
    """All outputs on so many ``samples``; ``seen`` tells that they are those the model was fitted to.

    ``answers`` is how much is left of what the outputs say, in the words of their task. ``made`` says of what the
    samples are made if they are synthetic: then nothing of this is evidence about real data.
    """

    outputs: tuple[OutputFidelity, ...]
    samples: int
    seen: bool = False
    answers: tuple[Judgement, ...] = ()
    made: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict on what the outputs say; None where nothing can be said."""
        return max((one.verdict for one in self.answers), key=VERDICTS.index, default=None)

    @property
    def share(self) -> float | None:
        """The smallest share of answers that are left, 0 to 1; None where nothing can be said."""
        return min((one.share for one in self.answers), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {"verdict": self.verdict, "share": self.share, **asdict(self)}


def measure_fidelity(
    original: Model, changed: Model, samples: Samples, *, seen: bool = False, task: str = AUTO
) -> Fidelity:
    """Run both models on samples and compare their outputs.

    Args:
        original: the one that is right.
        changed: the other one.
        samples: inputs, and labels if there are any; as many are taken as outputs fit into 256 MiB.
        seen: whether the changed model was fitted to them.
        task: what the outputs say: the name of a task, or ``auto``, which looks at them.

    Raises:
        VerificationError: onnxruntime does not run one of them.
        DataError: no output is comparable.
        UsageError: the task is not known, or cannot read the outputs.
    """
    before, count = answers_of(original, samples, "the original")
    samples = samples.part(0, count)
    after, _ = answers_of(changed, samples, "the pruned model")
    targets = samples.targets
    found = []
    for name in before.outputs:
        a, b = before.stacked(name), after.stacked(name) if name in after.outputs else None
        if a is not None and b is not None and a.shape == b.shape:
            found.append(_with_rows(compare_outputs(name, a, b, targets), a, b))
    shared = [name for name in before.outputs if name in after.outputs]
    if not shared:
        raise DataError("no output of the pruned model can be compared with the original's on this data")
    labelled = targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu"
    said = judge(replace(before.only(shared), labelled=labelled), after.only(shared), task)
    return Fidelity(tuple(found), count, seen, said, samples.made)


def answers_of(model: Model, samples: Samples, what: str) -> tuple[Answers, int]:
    """What a model says about samples, one by one, and about how many: as many as fit into memory.

    An output whose first axis is not that of samples (so many boxes, say) is taken for what is said about all of a
    batch, if that is one sample.
    """
    session = Session(model, what)
    parts: dict[str, list[NDArray[Any]]] = {}
    count, size = 0, 0
    for batch in samples.batches():
        length = len(next(iter(batch.values())))
        for name, array in session.run(batch).items():
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub" or not array.ndim:
                continue
            if len(array) == length:
                parts.setdefault(name, []).extend(array)
            elif length == 1:
                parts.setdefault(name, []).append(array)
            size += array.nbytes
        count += length
        if size > _MEMORY:
            break
    whole = {name: values for name, values in parts.items() if len(values) == count}
    return Answers(whole, {name: head_of(model, name).ending for name in whole}), count


def outputs_of(model: Model, samples: Samples, what: str) -> dict[str, FloatArray]:
    """All numeric outputs of the same extents for all samples, [N, ...], for as many as fit into memory."""
    answers, _ = answers_of(model, samples, what)
    stacked = {name: answers.stacked(name) for name in answers.outputs}
    return {name: values for name, values in stacked.items() if values is not None}


def _with_rows(whole: OutputFidelity, a: FloatArray, b: FloatArray) -> OutputFidelity:
    """The figures of an output with those of its worst rows."""
    axis = min((1, a.ndim - 1), key=lambda axis: a.shape[axis])
    if a.ndim < 3 or not 1 < a.shape[axis] <= _MOST_ROWS:
        return whole
    others = tuple(other for other in range(a.ndim) if other != axis)
    lengths = np.sqrt(np.square(a).sum(axis=others) * np.square(b).sum(axis=others))
    same = (a == b).all(axis=others)
    cosine = np.where(lengths > 0, (a * b).sum(axis=others) / np.where(lengths > 0, lengths, 1.0), same)
    variance = a.var(axis=others)
    error = np.square(a - b).mean(axis=others) / np.where(variance > 0, variance, 1.0)
    order = np.argsort(cosine, kind="stable")[:_WORST]
    worst = tuple(RowFidelity(int(i), float(cosine[i]), float(error[i])) for i in order)
    return replace(whole, worst=worst, rows=a.shape[axis])


def compare_outputs(name: str, a: FloatArray, b: FloatArray, targets: NDArray[Any] | None = None) -> OutputFidelity:
    """One output of the original and of a changed model, [N, ...]."""
    x, y = a.reshape(len(a), -1), b.reshape(len(b), -1)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosine = np.where(lengths > 0, (x * y).sum(axis=1) / np.where(lengths > 0, lengths, 1.0), np.all(x == y, axis=1))
    variance = np.square(x - x.mean(axis=0)).mean() or 1.0
    plain = OutputFidelity(name, float(cosine.mean()), float(np.square(x - y).mean() / variance))
    if a.ndim != 2 or a.shape[1] < 2:
        return plain
    p, q = _log_probabilities(a), _log_probabilities(b)
    kl = float((np.exp(p) * (p - q)).sum(axis=1).mean())
    agreement = float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
    known = targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu" and len(targets) == len(a)
    right = [float((scores.argmax(axis=1) == targets).mean()) if known else None for scores in (a, b)]
    return replace(plain, agreement=agreement, kl=kl, accuracy_before=right[0], accuracy_after=right[1])


def _log_probabilities(scores: FloatArray) -> FloatArray:
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return np.log(np.maximum(scores, 1e-12))
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
