"""Segmentation: a class for every pixel, or a mask; and the regions of a mask, which text detectors are after."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.tasks.base import Answers, FloatArray, Judgement, Task, looks_like_scores, verdict_of
from onnxprune.data.tasks.boxes import f1, matched

_LEAST_SIDE = 4
_UNDECIDED = 0.3
"""Of the pixels of a mask, fewer than this are neither clearly in nor clearly out."""
_SMALLEST_REGION = 3


class SegmentationTask(Task):
    """Scores per pixel, [N, C, H, W] or [N, H, W, C], or a mask (C = 1, also [N, H, W]): mean IoU with the original's.

    The mean is over the classes that the original sees, for a mask the IoU of what is in it. ``regions_f1`` tells how
    many connected regions of a mask are found again, by boxes around them with an IoU of at least 0.5.
    """

    name = "segmentation"
    takes = "[N, C, H, W] or [N, H, W, C]"

    def recognise(self, answers: Answers, *, asked: bool) -> Sequence[tuple[str, ...]]:
        return [(name,) for name in answers.outputs if _readable(answers, name) and (asked or _is_map(answers, name))]

    def compare(self, before: Answers, after: Answers) -> Judgement:
        (name,) = before.outputs
        axis, cut = _axis(before, name), _cut(before, name)
        pairs = list(zip(before.outputs[name], after.outputs[name], strict=True))
        if any(a.shape != b.shape for a, b in pairs):
            return Judgement(self.name, (name,), 0.0, "ruined", "maps of other extents than the original's", {})
        count = pairs[0][0].shape[axis]
        maps = [(_classes(a, axis, cut), _classes(b, axis, cut)) for a, b in pairs]
        both, either, there = np.zeros(max(count, 2)), np.zeros(max(count, 2)), np.zeros(max(count, 2))
        for old, new in maps:
            same = np.bincount(old[old == new].reshape(-1), minlength=len(both))
            sizes = [np.bincount(one.reshape(-1), minlength=len(both)) for one in (old, new)]
            both, either, there = both + same, either + sizes[0] + sizes[1] - same, there + sizes[0]
        seen = np.flatnonzero(there > 0) if count > 1 else np.array([1])
        share = float((both[seen] / np.maximum(either[seen], 1)).mean()) if either[seen].any() else 1.0
        figures = {"miou": share, "pixels": float(both.sum() / max(there.sum(), 1))}
        words = f"IoU {share:.3f} with the original's {'mask' if count == 1 else f'map of {len(seen)} classes (mean)'}"
        if count == 1:
            regions = [(_regions(old), _regions(new)) for old, new in maps]
            found = sum(matched(old, new, 0.5) for old, new in regions)
            was, is_ = (sum(len(pair[i]) for pair in regions) for i in (0, 1))
            figures["regions_f1"] = f1(found, was, is_)
            words += f", {found} of {was} regions found again"
        if count == 1 and not there[1]:
            words += " (which is empty: other samples would tell more)"
        return Judgement(self.name, (name,), share, verdict_of(share), f"{words} for {len(pairs)} samples", figures)


def _readable(answers: Answers, name: str) -> bool:
    return answers.rank(name) in (2, 3) and all(min(v.shape) > 0 for v in answers.outputs[name])


def _axis(answers: Answers, name: str) -> int:
    """The axis of classes of one sample: the shorter of the first and the last."""
    shape = answers.outputs[name][0].shape
    return 0 if len(shape) == 3 and shape[0] <= shape[-1] else -1 if len(shape) == 3 else 0


def _is_map(answers: Answers, name: str) -> bool:
    value = answers.outputs[name][0]
    ending = answers.endings.get(name)
    if value.ndim == 2:
        # One score per pixel without an axis of its own: told from steps × classes by the Sigmoid alone.
        return ending == "Sigmoid" and min(value.shape) >= _LEAST_SIDE and _is_mask(answers, name)
    axis = _axis(answers, name)
    sides = [extent for index, extent in enumerate(value.shape) if index != axis % 3]
    if min(sides) < _LEAST_SIDE:
        return False
    if value.shape[axis] == 1:
        return _is_mask(answers, name)
    scores = np.concatenate([_rows(v, axis) for v in answers.outputs[name][:16]])
    return looks_like_scores(scores, 1, ending)


def _rows(value: NDArray[np.floating], axis: int) -> FloatArray:
    """All pixels, [P, C]; of large maps some."""
    rows = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
    return rows[:: max(len(rows) // 4096, 1)].astype(np.float64)


def _is_mask(answers: Answers, name: str) -> bool:
    """Whether values are clearly in or clearly out."""
    values = np.concatenate([v.reshape(-1)[:: max(v.size // 4096, 1)] for v in answers.outputs[name][:64]])
    cut = _cut(answers, name)
    inside = values if cut == 0.5 else 1 / (1 + np.exp(-np.clip(values.astype(np.float64), -50, 50)))
    undecided = ((inside > 0.25) & (inside < 0.75)).mean()
    # What a Sigmoid makes is a mask although there is nothing to be seen in these samples.
    some_of_each = (values > cut).any() and (values <= cut).any()
    return bool((some_of_each or answers.endings.get(name) == "Sigmoid") and undecided < _UNDECIDED)


def _cut(answers: Answers, name: str) -> float:
    """From which value on a pixel is in a mask: 0.5 of probabilities, 0 of logits."""
    values = answers.outputs[name]
    return 0.5 if all(v.min() >= 0 and v.max() <= 1 for v in values) else 0.0


def _classes(value: NDArray[np.floating], axis: int, cut: float) -> NDArray[np.int64]:
    if value.ndim == 2:
        return (value > cut).astype(np.int64)
    if value.shape[axis] == 1:
        return (value.squeeze(axis) > cut).astype(np.int64)
    return np.asarray(value.argmax(axis=axis), dtype=np.int64)


def _regions(mask: NDArray[np.int64]) -> FloatArray:
    """Boxes (x1, y1, x2, y2) around the connected regions, but for specks."""
    from scipy import ndimage  # slow to import

    labels, _ = ndimage.label(mask)
    found = [s for s in ndimage.find_objects(labels) if s[0].stop - s[0].start >= _SMALLEST_REGION]
    return np.array([[x.start, y.start, x.stop, y.stop] for y, x in found], dtype=np.float64).reshape(-1, 4)
