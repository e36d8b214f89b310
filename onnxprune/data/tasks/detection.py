"""Detectors of objects: boxes with scores and classes, matched with those of the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.tasks.base import Answers, FloatArray, IntArray, Judgement, Task, verdict_of
from onnxprune.data.tasks.boxes import f1, matched, suppressed

CONFIDENT = 0.25
_OVERLAP = 0.7
_MOST = 300
"""Candidates of one image that are looked at."""
_LEAST_PLACES = 16
_ORDERED = 0.9


@dataclass(frozen=True)
class _Found:
    """What is seen in one image, the best first: boxes [D, 4], scores and classes [D]."""

    boxes: FloatArray
    scores: FloatArray
    classes: IntArray


@dataclass(frozen=True)
class _Layout:
    """Where boxes, scores and classes stand.

    ``boxes`` is the output that holds them; ``scores`` that of the scores, ``classes`` that of class numbers. Without
    ``scores`` the boxes' output holds all: rows of 4 + C values ([A, 4 + C], or ``turned``), with an objectness in
    between if ``gated``.
    """

    boxes: str
    scores: str | None = None
    classes: str | None = None
    turned: bool = False
    gated: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (self.boxes, self.scores, self.classes) if name is not None)

    def read(self, answers: Answers) -> Iterator[tuple[FloatArray, FloatArray, IntArray]]:
        """Per sample: boxes as they stand [A, 4], the best score of each and its class [A]."""
        for index, value in enumerate(answers.outputs[self.boxes]):
            rows = value.astype(np.float64)
            rows = rows.T if self.turned else rows
            if self.scores is None:
                scores = rows[:, 5:] * rows[:, 4:5] if self.gated else rows[:, 4:]
            else:
                other = answers.outputs[self.scores][index].astype(np.float64)
                scores = other.reshape(len(rows), -1) if len(rows) else np.zeros((0, 1))
            classes = scores.argmax(axis=1)
            if self.classes is not None:
                classes = answers.outputs[self.classes][index].reshape(-1)
            yield rows[:, :4], scores.max(axis=1), classes.astype(np.int64)


class DetectionTask(Task):
    """Boxes: F1 of those that are found again, with the same class and an IoU of at least 0.5.

    It reads one output [N, 4 + C, A] or [N, A, 4 + C] (with or without an objectness as the fifth value), or boxes
    [N, A, 4] with scores [N, A, C] or [N, A], and class numbers if they stand apart. Boxes are corners, or centre and
    size. A detection has a score of at least 0.25 and overlaps no better one of its class by more than 0.7. Images in
    which neither model sees anything count for nothing.
    """

    name = "detection"
    takes = "[N, 4 + C, A], [N, A, 4 + C], or boxes [N, A, 4] with scores [N, A, C]"

    def recognise(self, answers: Answers, *, asked: bool) -> Sequence[tuple[str, ...]]:
        layout = _layout(answers, asked)
        if layout is None:
            return ()
        seen = any((scores >= CONFIDENT).any() for _, scores, _ in layout.read(answers))
        return [layout.names] if seen or asked else ()

    def compare(self, before: Answers, after: Answers) -> Judgement:
        layout, pairs = _pairs(before, after)
        was, is_ = sum(len(old.boxes) for old, _ in pairs), sum(len(new.boxes) for _, new in pairs)
        counts = {level: sum(_matched(old, new, level) for old, new in pairs) for level in (0.5, 0.75)}
        loose, strict = (f1(counts[level], was, is_) for level in (0.5, 0.75))
        words = (
            f"{counts[0.5]} of the original's {was} boxes found again, {is_ - counts[0.5]} others "
            f"(F1 {loose:.3f}; {strict:.3f} at IoU 0.75) in {len(pairs)} samples"
        )
        figures = {"f1": loose, "f1_75": strict, "boxes": float(was), "boxes_after": float(is_)}
        figures["matched"] = float(counts[0.5])
        return Judgement(self.name, layout.names, loose, verdict_of(loose), words, figures)

    def losses(self, before: Answers, after: Answers) -> FloatArray:
        """Of every image one less its F1; where neither model sees anything, nothing is lost."""
        found = [f1(_matched(old, new, 0.5), len(old.boxes), len(new.boxes)) for old, new in _pairs(before, after)[1]]
        return 1 - np.array(found)


def _pairs(before: Answers, after: Answers) -> tuple[_Layout, list[tuple[_Found, _Found]]]:
    """What both see, image by image; the original tells how it is laid out."""
    layout = _layout(before, asked=True)
    assert layout is not None
    corners = _are_corners(layout, before)
    return layout, list(zip(_detections(layout, before, corners), _detections(layout, after, corners), strict=True))


def _layout(answers: Answers, asked: bool) -> _Layout | None:
    """How the outputs say boxes, or None if they do not."""
    shapes = {name: values[0].shape for name, values in answers.outputs.items()}
    for boxes in (n for n, shape in shapes.items() if len(shape) == 2 and shape[1] == 4):
        beside = [n for n, shape in shapes.items() if n != boxes and shape[:1] == shapes[boxes][:1] and len(shape) <= 2]
        scores = next((n for n in beside if _are_scores(answers, n)), None)
        if scores is not None:
            whole = (n for n in beside if n != scores and _is_one(shapes[n]) and _are_whole(answers, n))
            return _Layout(boxes, scores, next(whole, None) if _is_one(shapes[scores]) else None)
    for name, shape in shapes.items():
        if len(shape) != 2 or min(shape) < 5 or max(shape) < _LEAST_PLACES:
            continue
        turned = shape[0] < shape[1]
        first = answers.outputs[name][0]
        sample = (first.T if turned else first).astype(np.float64)
        if asked or _are_boxes_with_scores(sample):
            return _Layout(name, turned=turned, gated=_is_gated(sample))
    return None


def _is_one(shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or shape[1] == 1


def _are_scores(answers: Answers, name: str) -> bool:
    values = [v for v in answers.outputs[name] if v.size]
    return bool(values) and all(v.min() >= 0 and v.max() <= 1 for v in values) and not _are_whole(answers, name)


def _are_whole(answers: Answers, name: str) -> bool:
    return all(np.array_equal(value, np.round(value)) for value in answers.outputs[name])


def _are_boxes_with_scores(rows: FloatArray) -> bool:
    """Rows of four values of which some are larger than scores can be, and scores, of which few are high."""
    boxes, scores = rows[:, :4], rows[:, 4:]
    within = scores.min() >= -1e-3 and scores.max() <= 1 + 1e-3
    # Probabilities of one step after the other add up to one; these are of places, where mostly nothing is.
    return bool(within and boxes.max() > 2 and boxes.mean() > 2 * scores.mean() and np.median(scores) < CONFIDENT)


def _is_gated(rows: FloatArray) -> bool:
    """Whether the fifth value tells if there is anything at all: classes are far more certain than that, then."""
    if rows.shape[1] < 6:
        return False
    best = rows[:, 5:].max(axis=1)
    return bool(best.mean() > 5 * rows[:, 4].mean() and (rows[:, 4] > rows[:, 5:].mean()).any())


def _are_corners(layout: _Layout, answers: Answers) -> bool:
    """Whether boxes are corners, and not centre and size: what stands last is hardly ever less than the first."""
    ordered = [(boxes[:, 2:] >= boxes[:, :2]).all(axis=1) for boxes, _, _ in layout.read(answers)]
    return bool(np.concatenate(ordered).mean() > _ORDERED)


def _detections(layout: _Layout, answers: Answers, corners: bool) -> Iterator[_Found]:
    for boxes, scores, classes in layout.read(answers):
        order = np.argsort(-scores, kind="stable")[:_MOST]
        sure = order[scores[order] >= CONFIDENT]
        found = boxes[sure] if corners else _cornered(boxes[sure])
        stay = suppressed(found, scores[sure], classes[sure], _OVERLAP)
        yield _Found(found[stay], scores[sure][stay], classes[sure][stay])


def _cornered(boxes: FloatArray) -> FloatArray:
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _matched(old: _Found, new: _Found, level: float) -> int:
    same: NDArray[Any] = (old.classes[:, None] == new.classes[None]).astype(np.int64)
    return matched(old.boxes, new.boxes, level, same)
