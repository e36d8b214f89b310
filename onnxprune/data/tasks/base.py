"""What a task is, and the words for what is left of answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
Verdict = Literal["kept", "damaged", "ruined"]

KEPT, RUINED = 0.9, 0.5
"""At least this share of the answers is left where they are kept; less than this where they are ruined."""
VERDICTS: tuple[Verdict, ...] = ("kept", "damaged", "ruined")
"""From good to bad."""


def verdict_of(share: float, kept: float = KEPT, ruined: float = RUINED) -> Verdict:
    """``kept`` from a share of ``kept`` on, ``ruined`` below ``ruined`` or where it is no number, else ``damaged``."""
    return "kept" if share >= kept else "damaged" if share >= ruined else "ruined"


@dataclass(frozen=True)
class Answers:
    """What a model says about N samples.

    ``outputs`` holds an array per sample for every output by name, ``endings`` which of Softmax, LogSoftmax and Sigmoid
    makes an output, if one does; ``labelled`` tells that the samples have class numbers as labels.
    """

    outputs: Mapping[str, Sequence[NDArray[Any]]]
    endings: Mapping[str, str | None] = field(default_factory=dict)
    labelled: bool = False

    def only(self, names: Sequence[str]) -> Answers:
        """These outputs alone."""
        return replace(self, outputs={name: self.outputs[name] for name in names})

    def without(self, names: Sequence[str]) -> Answers:
        """All outputs but these."""
        return replace(self, outputs={name: values for name, values in self.outputs.items() if name not in names})

    def __len__(self) -> int:
        return len(next(iter(self.outputs.values()), ()))

    def one(self, index: int) -> Answers:
        """What is said of a single sample."""
        return replace(self, outputs={name: values[index : index + 1] for name, values in self.outputs.items()})

    def stacked(self, name: str) -> FloatArray | None:
        """One output for all samples, [N, ...], or None where its extents differ between samples."""
        values = self.outputs[name]
        return np.stack(values).astype(np.float64) if len({value.shape for value in values}) == 1 else None

    def rank(self, name: str) -> int:
        """How many axes an output has, without that of samples."""
        return self.outputs[name][0].ndim

    def described(self, name: str) -> str:
        """The extents of an output, as people write them."""
        return "×".join(map(str, ("N", *self.outputs[name][0].shape)))


@dataclass(frozen=True)
class Judgement:
    """How much is left of what one output, or several that belong together, say.

    Attributes:
        task: by whose measure.
        outputs: their names.
        share: of the answers that are left, 0 to 1; what that is, the task's documentation says.
        verdict: ``kept``, ``damaged`` or ``ruined``.
        words: the same for people.
        figures: all that was measured, by name.
    """

    task: str
    outputs: tuple[str, ...]
    share: float
    verdict: Verdict
    words: str
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict in words; loud where it is bad."""
        told = self.verdict if self.verdict == "kept" else self.verdict.upper()
        return f"Answers {told} ({self.task}): {self.words}."


class Task(ABC):
    """Reads outputs, and compares what two models say."""

    name: ClassVar[str]
    takes: ClassVar[str] = "others"
    """The shapes that it reads, for error messages."""
    whole: ClassVar[bool] = False
    """Whether the answer to a sample is either kept or lost, and nothing in between: its losses are 0 or 1."""

    @abstractmethod
    def recognise(self, answers: Answers, *, asked: bool) -> Sequence[tuple[str, ...]]:
        """The names of the outputs that it is about, those together that belong together.

        With ``asked``, the user says that this is the task: shapes that can be read suffice.
        """

    @abstractmethod
    def compare(self, before: Answers, after: Answers) -> Judgement:
        """What the original says, beside what the changed model says."""

    def losses(self, before: Answers, after: Answers) -> FloatArray:
        """Of every sample, how much of the original's answer is lost: [N], 0 to 1.

        A sample's loss is its own: it must not depend on the others, or no bound holds.
        """
        shares = [self.compare(before.one(index), after.one(index)).share for index in range(len(before))]
        return 1 - np.clip(np.nan_to_num(np.array(shares, dtype=np.float64)), 0.0, 1.0)


def softmax(scores: FloatArray, axis: int = -1) -> FloatArray:
    """Scores as probabilities: as they are where they are already (or their logarithms)."""
    if are_probabilities(scores, axis):
        return scores
    with np.errstate(over="ignore"):
        powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True), dtype=np.float64)


def are_probabilities(scores: FloatArray, axis: int = -1) -> bool:
    """Whether scores are positive and add up to one."""
    return bool((scores >= -1e-6).all() and np.allclose(scores.sum(axis=axis), 1.0, atol=1e-2))


def sureness(scores: FloatArray, axis: int = -1) -> FloatArray:
    """The largest probability along an axis."""
    return np.asarray(softmax(scores, axis).max(axis=axis), dtype=np.float64)


def looks_like_scores(scores: FloatArray, axis: int, ending: str | None) -> bool:
    """Whether an output scores classes: it ends as classifiers do, or is on the whole sure of one of them.

    Embeddings and regressions are neither.
    """
    if ending in ("Softmax", "LogSoftmax") or are_probabilities(scores, axis):
        return True
    least = 0.65 if scores.shape[axis] == 2 else 0.3 + 0.7 / scores.shape[axis]
    return bool(sureness(scores, axis).mean() >= least)


def percentage(share: float) -> str:
    """One decimal, and neither 0 nor 100 where something is left or lost."""
    rounded = round(100 * share, 1)
    if rounded in (0.0, 100.0) and share not in (0.0, 1.0):
        return "> 99.9 %" if rounded else "< 0.1 %"
    return f"{rounded:.1f} %"
