"""Criteria: which channels of a layer go first. The lowest scores go."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling import Coupling
from onnxprune.errors import UsageError
from onnxprune.weights import Weight

FloatArray = NDArray[np.float64]


class Criterion(Protocol):
    """Scores every component of positions; an atom's score adds over all producers that carry it."""

    name: str

    def scores(self, coupling: Coupling, rng: np.random.Generator) -> FloatArray:
        """One score per component label of ``coupling``."""


class RandomCriterion:
    """No ranking at all, as in the paper: channels are drawn."""

    name = "random"

    def scores(self, coupling: Coupling, rng: np.random.Generator) -> FloatArray:
        return rng.random(len(coupling.pin_of))


class NormCriterion:
    """The l1 or l2 norm of a channel's filters."""

    def __init__(self, order: int) -> None:
        self.name = f"l{order}"
        self._order = order

    def scores(self, coupling: Coupling, rng: np.random.Generator) -> FloatArray:
        count = len(coupling.pin_of)
        found = producer_weights(coupling)
        if not found:
            return np.zeros(count)
        labels = np.concatenate([labels for _, _, labels in found])
        norms = np.concatenate([self._norms(weight, dim) for weight, dim, _ in found])
        return np.bincount(labels, weights=norms, minlength=count).astype(np.float64, copy=False)

    def _norms(self, weight: Weight, dim: int) -> FloatArray:
        array = weight.array
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
        view = array.reshape(math.prod(weight.shape[:dim]), weight.shape[dim], -1)
        norms: FloatArray = (
            np.abs(view).sum(axis=(0, 2), dtype=np.float64)
            if self._order == 1
            else np.sqrt(np.einsum("ijk,ijk->j", view, view), dtype=np.float64)
        )
        return norms


def producer_weights(coupling: Coupling) -> list[tuple[Weight, int, NDArray[np.int64]]]:
    """Every weight that produces channels, its producer dimension, and the components along it."""
    graph, axes = coupling.graph, coupling.axes
    found: dict[tuple[str, int], NDArray[np.int64]] = {}
    for producer in coupling.relations.producers:
        owner = coupling.class_of.get(producer.axis)
        tensor, dim = axes.axis(producer.axis)
        name = graph.weight_behind(tensor) if tensor in graph.constants else None
        if owner is None or name is None:
            continue
        if name == tensor:
            found[name, dim] = coupling.class_labels(owner)
            continue
        # The weight comes through Cast, Transpose or the like: its axis is the one with the same components.
        wanted = coupling.class_labels(owner)
        for own in range(len(graph.model.weights[name].shape)):
            behind = coupling.class_of.get(axes.id(name, own))
            if behind is not None and np.isin(coupling.class_labels(behind), wanted).all():
                found[name, own] = coupling.class_labels(behind)
    return [(graph.model.weights[name], dim, labels) for (name, dim), labels in found.items()]


def criterion(name: str) -> Criterion:
    """The built-in criterion of that name. Raises UsageError for an unknown one."""
    known: dict[str, Criterion] = {c.name: c for c in (RandomCriterion(), NormCriterion(1), NormCriterion(2))}
    if name not in known:
        raise UsageError(f"criterion '{name}' is not known; choose one of {', '.join(known)}")
    return known[name]
