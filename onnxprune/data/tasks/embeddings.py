"""Embeddings: directions, and who is whose neighbour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.data.tasks.base import Answers, FloatArray, IntArray, Judgement, Task, verdict_of

_LEAST_WIDTH = 16
_KEPT, _RUINED = 0.95, 0.8
_MOST = 2000
"""Neighbours are looked for among so many samples at most."""


class EmbeddingTask(Task):
    """Vectors, [N, D] or [N, T, D] (their mean over T): the mean cosine with the original's.

    ``nearest`` is the share of samples with the same nearest neighbour, ``rank`` the mean place (1 is best) of the
    original's nearest among all. Kept from a cosine of 0.95 on, ruined below 0.8.
    """

    name = "embeddings"
    takes = "[N, D] or [N, T, D]"

    def recognise(self, answers: Answers, *, asked: bool) -> Sequence[tuple[str, ...]]:
        found = []
        for name in answers.outputs:
            wide = answers.rank(name) in (1, 2) and answers.outputs[name][0].shape[-1] >= (1 if asked else _LEAST_WIDTH)
            # Rows of several vectors may be anything: they are embeddings where somebody says so.
            if wide and (asked or answers.rank(name) == 1):
                found.append((name,))
        return found

    def compare(self, before: Answers, after: Answers) -> Judgement:
        (name,) = before.outputs
        old, new = _vectors(before, name), _vectors(after, name)
        # Vectors of zeros, as of an untrained head, have no direction; where they are the same, nothing is lost.
        share = float(np.where((old == new).all(axis=1), 1.0, (_unit(old) * _unit(new)).sum(axis=1)).mean())
        figures = {"cosine": share}
        words = f"cosine {share:.4f} with the original's vectors for {len(old)} samples"
        if len(old) > 2:
            places = _places(old[:_MOST], new[:_MOST])
            figures |= {"nearest": float((places == 1).mean()), "rank": float(places.mean())}
            words += f", the same nearest neighbour for {figures['nearest']:.1%} (mean rank {figures['rank']:.1f})"
        return Judgement(self.name, (name,), share, verdict_of(share, _KEPT, _RUINED), words, figures)


def _vectors(answers: Answers, name: str) -> FloatArray:
    rows = [value.astype(np.float64) for value in answers.outputs[name]]
    return np.stack([row if row.ndim == 1 else row.reshape(-1, row.shape[-1]).mean(axis=0) for row in rows])


def _unit(rows: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0), dtype=np.float64)


def _places(old: FloatArray, new: FloatArray) -> IntArray:
    """For every sample the place that the original's nearest neighbour has among its neighbours now; 1 is first."""
    was, is_ = (_unit(rows) @ _unit(rows).T for rows in (old, new))
    np.fill_diagonal(was, -np.inf)
    np.fill_diagonal(is_, -np.inf)
    nearest = was.argmax(axis=1)
    return np.asarray((is_ > is_[np.arange(len(is_)), nearest][:, None]).sum(axis=1) + 1, dtype=np.int64)
