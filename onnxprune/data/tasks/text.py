"""Text by CTC: a class at every step, of which repetitions and blanks fall out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.tasks.base import Answers, FloatArray, Judgement, Task, are_probabilities, percentage, verdict_of

_LEAST_CLASSES = 10
_BLANKS = 0.2
"""Text has a blank at so many of its steps at least."""


class TextTask(Task):
    """Class scores at T steps, [N, T, C], where the first or the last class is blank: the share of equal strings.

    ``characters`` is one less the edit distance over the length of the original's strings.
    """

    name = "text"
    takes = "[N, T, C]"
    whole = True

    def recognise(self, answers: Answers, *, asked: bool) -> Sequence[tuple[str, ...]]:
        return [(n,) for n in answers.outputs if answers.rank(n) == 2 and (asked or _is_text(answers, n))]

    def losses(self, before: Answers, after: Answers) -> FloatArray:
        was, is_ = _strings(before, after)
        return np.array([old != new for old, new in zip(was, is_, strict=True)], dtype=np.float64)

    def compare(self, before: Answers, after: Answers) -> Judgement:
        (name,) = before.outputs
        was, is_ = _strings(before, after)
        share = float(np.mean([old == new for old, new in zip(was, is_, strict=True)]))
        length = sum(map(len, was))
        distance = sum(edit_distance(old, new) for old, new in zip(was, is_, strict=True))
        characters = max(1 - distance / length, 0.0) if length else share
        words = (
            f"the original's string for {percentage(share)} of {len(was)} samples, {characters:.1%} of the characters"
        )
        figures = {"equal_strings": share, "characters": characters}
        return Judgement(self.name, (name,), share, verdict_of(share), words, figures)


def _strings(before: Answers, after: Answers) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """What both say; the original tells which class is blank."""
    (name,) = before.outputs
    blank = _blank(before, name)[0]
    was, is_ = ([_string(steps, blank) for steps in answers.outputs[name]] for answers in (before, after))
    return was, is_


def _is_text(answers: Answers, name: str) -> bool:
    values = answers.outputs[name]
    if values[0].shape[-1] < _LEAST_CLASSES or not all(value.shape[0] for value in values):
        return False
    first = values[0].astype(np.float64)
    with np.errstate(over="ignore"):
        probable = are_probabilities(first) or are_probabilities(np.exp(first))
    return probable and _blank(answers, name)[1] >= _BLANKS


def _blank(answers: Answers, name: str) -> tuple[int, float]:
    """Which of the first and the last class is said more often, and at which share of the steps."""
    said = np.concatenate([value.argmax(axis=-1) for value in answers.outputs[name]])
    last = answers.outputs[name][0].shape[-1] - 1
    shares = {index: float((said == index).mean()) for index in (0, last)}
    index = max(shares, key=lambda i: shares[i])
    return index, shares[index]


def _string(steps: NDArray[np.floating], blank: int) -> tuple[int, ...]:
    said = steps.argmax(axis=-1)
    fresh = np.append(True, said[1:] != said[:-1])
    return tuple(int(index) for index in said[fresh & (said != blank)])


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """How many symbols have to be put in, taken out or replaced to make one of the other."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]
