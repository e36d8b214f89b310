"""Classifiers: the class with the largest score, and sets of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from onnxprune.data.tasks.base import (
    Answers,
    FloatArray,
    IntArray,
    Judgement,
    Task,
    looks_like_scores,
    percentage,
    sureness,
    verdict_of,
)

_SURE = 0.5
_OFTEN = 5
"""Classes that the original names less often say nothing about themselves."""


class ClassTask(Task):
    """Scores of classes, [N, C] or [N, C, 1, 1]: the share of samples with the original's class.

    The verdict looks at the mean over the classes that the original names at least five times, too, and takes the
    lower: a model that always says the same keeps nothing, however often that is right.
    """

    name = "classes"
    takes = "[N, C]"
    whole = True

    def recognise(self, answers: Answers, *, asked: bool) -> Sequence[tuple[str, ...]]:
        found = []
        for name, scores in _scored(answers):
            if scores.shape[1] < 2 and answers.endings.get(name) != "Sigmoid" and not asked:
                continue
            if asked or answers.labelled or _scores_classes(scores, answers.endings.get(name)):
                found.append((name,))
        return found

    def compare(self, before: Answers, after: Answers) -> Judgement:
        ((name, old),), (was, is_) = _scored(before), (said_classes(answers) for answers in (before, after))
        same = was == is_
        share = float(same.mean())
        often = [same[was == index].mean() for index in np.unique(was) if (was == index).sum() >= _OFTEN]
        balanced = float(np.mean(often)) if often else share
        sure = sureness(_several(old)) > _SURE
        figures = {"agreement": share, "balanced_agreement": balanced, "sure": float(sure.mean())}
        words = f"the original's class for {percentage(share)} of {len(same)} samples"
        if sure.any():
            figures["sure_agreement"] = float(same[sure].mean())
            words += f", {percentage(figures['sure_agreement'])} of the {int(sure.sum())} where it is sure"
        if balanced < share - 0.1:
            words += f", but {percentage(balanced)} as the mean over classes"
        return Judgement(self.name, (name,), share, verdict_of(min(share, balanced)), words, figures)

    def losses(self, before: Answers, after: Answers) -> FloatArray:
        return np.asarray(said_classes(before) != said_classes(after), dtype=np.float64)


def said_classes(answers: Answers) -> IntArray:
    """The class with the largest score of one output, [N]."""
    ((_, scores),) = _scored(answers)
    return np.asarray(_several(scores).argmax(axis=1), dtype=np.int64)


def _several(scores: FloatArray) -> FloatArray:
    """A single score [N, 1] tells two classes apart."""
    return np.concatenate([1 - scores, scores], axis=1) if scores.shape[1] == 1 else scores


class LabelTask(Task):
    """Several labels for one sample, [N, C] behind a Sigmoid: F1 of the labels over 0.5 against the original's."""

    name = "labels"
    takes = "[N, C]"

    def recognise(self, answers: Answers, *, asked: bool) -> Sequence[tuple[str, ...]]:
        found = []
        for name, scores in _scored(answers):
            if scores.shape[1] < 2:
                continue
            several = answers.endings.get(name) == "Sigmoid" and not answers.labelled and (scores > _SURE).any()
            if asked or several:
                found.append((name,))
        return found

    def compare(self, before: Answers, after: Answers) -> Judgement:
        ((name, old),), ((_, new),) = _scored(before), _scored(after)
        was, is_ = old > _SURE, new > _SURE
        found = int((was & is_).sum())
        all_ = int(was.sum() + is_.sum())
        share = 2 * found / all_ if all_ else 1.0
        words = f"{found} of the original's {int(was.sum())} labels for {len(old)} samples (F1 {share:.3f})"
        figures = {"f1": share, "same_sets": float((was == is_).all(axis=1).mean())}
        return Judgement(self.name, (name,), share, verdict_of(share), words, figures)


def _scored(answers: Answers) -> Iterator[tuple[str, FloatArray]]:
    """The outputs that are [N, C], without axes of extent 1 behind C."""
    for name in answers.outputs:
        values = answers.stacked(name)
        if values is not None and values.ndim >= 2 and set(values.shape[2:]) <= {1}:
            yield name, values.reshape(values.shape[:2])


def _scores_classes(scores: FloatArray, ending: str | None) -> bool:
    if ending == "Sigmoid":
        return True
    lengths = np.linalg.norm(scores, axis=1)
    normed = scores.shape[1] > 2 and np.allclose(lengths, 1.0, atol=1e-3)
    return not normed and looks_like_scores(scores, 1, ending)
