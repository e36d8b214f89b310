"""Plain values, of which nothing is known: how much of their variance is left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.data.tasks.base import Answers, FloatArray, Judgement, Task, percentage, verdict_of


class ValueTask(Task):
    """Any output of fixed extents: one less the squared error over the variance of the original's, at least 0."""

    name = "values"
    takes = "any shape that is the same for all samples"

    def recognise(self, answers: Answers, *, asked: bool) -> Sequence[tuple[str, ...]]:
        return [(name,) for name in answers.outputs if answers.stacked(name) is not None]

    def compare(self, before: Answers, after: Answers) -> Judgement:
        (name,) = before.outputs
        old, new = before.stacked(name), after.stacked(name)
        assert old is not None
        if new is None or old.shape != new.shape:
            return Judgement(self.name, (name,), 0.0, "ruined", "other extents than the original's", {})
        gap = float(np.square(old - new).mean())
        variance = float(np.square(old - old.mean(axis=0)).mean()) or 1.0
        share = max(1 - gap / variance, 0.0)
        words = f"{percentage(share)} of the variance of the original's values for {len(old)} samples"
        return Judgement(self.name, (name,), share, verdict_of(share), words, {"explained": share})

    def losses(self, before: Answers, after: Answers) -> FloatArray:
        """The squared error over the original's squared values, at most 1: a sample alone has no variance."""
        (name,) = before.outputs
        pairs = zip(before.outputs[name], after.outputs[name], strict=True)
        return np.array([_lost(old.astype(np.float64), new.astype(np.float64)) for old, new in pairs])


def _lost(old: FloatArray, new: FloatArray) -> float:
    if old.shape != new.shape:
        return 1.0
    gap, size = float(np.square(old - new).sum()), float(np.square(old).sum())
    return min(gap / size, 1.0) if size else float(gap > 0)
