"""How much of what a model computes is left: its outputs beside those of the original, on data without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.samples import Samples
from onnxprune.errors import DataError
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class OutputFidelity:
    """One output beside the original's.

    ``cosine`` is the mean cosine of the angle between both per sample, ``error`` the mean squared difference over the
    variance of the original's. For outputs [N, C] that score classes: ``agreement``, the share of samples with the
    same largest score, ``kl``, the mean Kullback-Leibler divergence of the class probabilities in nats (softmax of
    the scores, unless they are probabilities already), and the accuracy of both where labels are known.
    """

    name: str
    cosine: float
    error: float
    agreement: float | None = None
    kl: float | None = None
    accuracy_before: float | None = None
    accuracy_after: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """All outputs on so many ``samples``; ``seen`` tells that they are those the model was fitted to."""

    outputs: tuple[OutputFidelity, ...]
    samples: int
    seen: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return asdict(self)


def measure_fidelity(original: Model, changed: Model, samples: Samples, *, seen: bool = False) -> Fidelity:
    """Run both models on samples and compare their outputs.

    Raises:
        VerificationError: onnxruntime does not run one of them.
        DataError: no output is comparable.
    """
    before, after = outputs_of(original, samples, "the original"), outputs_of(changed, samples, "the pruned model")
    found = [
        compare_outputs(name, before[name], after[name], samples.targets)
        for name in before
        if name in after and before[name].shape == after[name].shape
    ]
    if not found:
        raise DataError("no output of the pruned model can be compared with the original's on this data")
    return Fidelity(tuple(found), len(samples), seen)


def outputs_of(model: Model, samples: Samples, what: str) -> dict[str, FloatArray]:
    """All numeric outputs for all samples, [N, ...]."""
    session = Session(model, what)
    parts: dict[str, list[NDArray[Any]]] = {}
    for batch in samples.batches():
        for name, array in session.run(batch).items():
            if isinstance(array, np.ndarray) and array.dtype.kind in "fiub" and array.ndim:
                parts.setdefault(name, []).append(array)
    rest = {name: {array.shape[1:] for array in arrays} for name, arrays in parts.items()}
    return {name: np.concatenate(arrays).astype(np.float64) for name, arrays in parts.items() if len(rest[name]) == 1}


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
    accuracies = [float((scores.argmax(axis=1) == targets).mean()) if known else None for scores in (a, b)]
    return OutputFidelity(name, plain.cosine, plain.error, agreement, kl, *accuracies)


def _log_probabilities(scores: FloatArray) -> FloatArray:
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-3):
        return np.log(np.maximum(scores, 1e-12))
    shifted = scores - scores.max(axis=1, keepdims=True)
    logs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs
