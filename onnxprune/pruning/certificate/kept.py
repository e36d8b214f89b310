"""What a plan leaves of every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ops.relations import IntArray


class Kept:
    """The positions that a plan keeps, by tensor and dimension; the certificate's own way to cut tensors."""

    def __init__(self, analysis: Analysis, removed: Sequence[IntArray]) -> None:
        self._analysis = analysis
        self.removed = removed
        self._coupling = analysis.coupling

    def classes(self, tensor: str) -> dict[int, int]:
        """The class of every dimension of a tensor that has one."""
        axes, extents = self._coupling.axes, self._analysis.graph.shapes.extents
        if tensor not in axes:
            return {}
        ids = axes.axes_of(tensor, len(extents[tensor]))
        return {dim: self._coupling.class_of[a] for dim, a in enumerate(ids) if a in self._coupling.class_of}

    def along(self, tensor: str) -> dict[int, IntArray]:
        """The kept positions of the dimensions that lose some."""
        extents = self._analysis.graph.shapes.extents
        return {
            dim: np.delete(np.arange(extents[tensor][dim]), self.removed[owner])
            for dim, owner in self.classes(tensor).items()
            if len(self.removed[owner])
        }

    def cut(self, tensor: str, value: Any) -> Any:
        """What is left of a tensor's value."""
        if not isinstance(value, np.ndarray):
            return value
        for dim, positions in self.along(tensor).items():
            value = value.take(positions, axis=dim)
        return value

    def channel(self, tensor: str) -> int | None:
        """The dimension by whose positions a tensor is compared, or None: one that loses some rather than others."""
        classes = self.classes(tensor)
        losing = [dim for dim, owner in classes.items() if len(self.removed[owner])]
        return next(iter([*losing, *classes]), None)

    def shrunk(self, tensor: str) -> bool:
        """Whether a tensor loses positions."""
        return any(len(self.removed[owner]) for owner in self.classes(tensor).values())
