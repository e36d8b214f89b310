"""Boxes (x1, y1, x2, y2), and who matches whom."""

from __future__ import annotations

import numpy as np

from onnxprune.data.tasks.base import FloatArray, IntArray


def overlaps(a: FloatArray, b: FloatArray) -> FloatArray:
    """Intersection over union of boxes [A, 4] with boxes [B, 4]: [A, B]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (a, b)]
    either = areas[0][:, None] + areas[1][None] - both
    return np.asarray(both / np.maximum(either, 1e-12), dtype=np.float64)


def suppressed(boxes: FloatArray, scores: FloatArray, classes: IntArray, most: float) -> IntArray:
    """Which boxes stay, best first: none overlaps a better one of its class by more than ``most``."""
    order = np.argsort(-scores, kind="stable")
    iou = overlaps(boxes[order], boxes[order]) * (classes[order][:, None] == classes[order][None])
    stays = np.ones(len(order), dtype=bool)
    for index in range(len(order)):
        if stays[index]:
            stays[index + 1 :] &= iou[index, index + 1 :] <= most
    return order[stays]


def matched(a: FloatArray, b: FloatArray, least: float, same: IntArray | None = None) -> int:
    """How many boxes find one of the others for themselves, best first, with at least this overlap.

    ``same`` [A, B] tells which may match at all.
    """
    iou = overlaps(a, b) if same is None else overlaps(a, b) * same
    found = 0
    for row in iou:
        if len(row) and row.max() >= least:
            iou[:, row.argmax()] = 0
            found += 1
    return found


def f1(found: int, before: int, after: int) -> float:
    """The harmonic mean of both shares that match; 1 where there is nothing on either side."""
    return 2 * found / (before + after) if before + after else 1.0
