"""Criteria: which channels of a layer go first. The lowest scores go."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling import Coupling
from onnxprune.errors import UsageError
from onnxprune.values import Values
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
        norms = np.concatenate([self._norms(read(), dim) for read, dim, _ in found])
        return np.bincount(labels, weights=norms, minlength=count).astype(np.float64, copy=False)

    def _norms(self, array: NDArray[Any], dim: int) -> FloatArray:
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
        view = array.reshape(math.prod(array.shape[:dim]), array.shape[dim], -1)
        norms: FloatArray = (
            np.abs(view).sum(axis=(0, 2), dtype=np.float64)
            if self._order == 1
            else np.sqrt(np.einsum("ijk,ijk->j", view, view), dtype=np.float64)
        )
        return norms


def producer_weights(coupling: Coupling) -> list[tuple[Callable[[], NDArray[Any]], int, NDArray[np.int64]]]:
    """For every producer axis a way to its weight's values, its dimension, and the components along it.

    Values are read one weight at a time. A weight that comes through other nodes (Cast, DequantizeLinear, ...) has
    the values that the layer sees, so that scales and zero points count.
    """
    graph, axes = coupling.graph, coupling.axes
    computed = Values(graph.model, graph.shapes.extents, most_elements=sys.maxsize)
    found: dict[int, tuple[Callable[[], NDArray[Any]], int, NDArray[np.int64]]] = {}
    for producer in coupling.relations.producers:
        owner = coupling.class_of.get(producer.axis)
        tensor, dim = axes.axis(producer.axis)
        if owner is None or tensor not in graph.constants:
            continue
        weight = graph.model.weights.get(tensor)
        value = None if weight is not None else computed.value(tensor)
        if weight is not None or value is not None:
            found[producer.axis] = (partial(_read, weight, value), dim, coupling.class_labels(owner))
    return list(found.values())


def _read(weight: Weight | None, value: NDArray[Any] | None) -> NDArray[Any]:
    return weight.array if weight is not None else np.asarray(value)


def criterion(name: str) -> Criterion:
    """The built-in criterion of that name. Raises UsageError for an unknown one."""
    known: dict[str, Criterion] = {c.name: c for c in (RandomCriterion(), NormCriterion(1), NormCriterion(2))}
    if name not in known:
        raise UsageError(f"criterion '{name}' is not known; choose one of {', '.join(known)}")
    return known[name]
