"""Criteria that look at weights alone. An atom's score adds over all producers that carry it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis.coupling import Coupling
from onnxprune.errors import UsageError
from onnxprune.ir.values import Values
from onnxprune.ir.weights import Weight
from onnxprune.ops.layers import affine
from onnxprune.pruning.criteria.base import FloatArray, Scoring, completed, merged


class RandomCriterion:
    """No ranking at all, as in the paper: channels are drawn."""

    name = "random"
    comparable = False

    def scores(self, scoring: Scoring) -> FloatArray:
        return scoring.rng.random(scoring.count)


class NormCriterion:
    """The l1 or l2 norm of a channel's filters."""

    comparable = False

    def __init__(self, order: int) -> None:
        self.name = f"l{order}"
        self._order = order

    def scores(self, scoring: Scoring) -> FloatArray:
        parts = ((labels, _norms(filters, self._order)) for filters, labels in _filters(scoring.coupling))
        return np.nan_to_num(merged(scoring.count, parts))


class FpgmCriterion:
    """The sum of a filter's distances to all filters of its layer: what lies in the middle is the most replaceable.

    "Filter Pruning via Geometric Median", He et al., CVPR 2019.
    """

    name = "fpgm"
    comparable = False

    def scores(self, scoring: Scoring) -> FloatArray:
        parts = ((labels, _distances(filters)) for filters, labels in _filters(scoring.coupling))
        return np.nan_to_num(merged(scoring.count, parts))


class LampCriterion:
    """A filter's squared norm over the sum of those of its layer that are not smaller.

    "Layer-adaptive sparsity for the Magnitude-based Pruning", Lee et al., ICLR 2021, for whole filters.
    """

    name = "lamp"
    comparable = True

    def scores(self, scoring: Scoring) -> FloatArray:
        parts = ((labels, _lamp(filters)) for filters, labels in _filters(scoring.coupling))
        return np.nan_to_num(merged(scoring.count, parts))


class BatchNormScaleCriterion:
    """The magnitude of a channel's scale in BatchNormalization ("Network Slimming", Liu et al., ICCV 2017)."""

    name = "bn_scale"
    comparable = False

    def scores(self, scoring: Scoring) -> FloatArray:
        found = merged(scoring.count, self._parts(scoring))
        atoms = [group.atoms for group in scoring.coupling.groups]
        if not atoms or np.isnan(found[np.concatenate(atoms)]).all():
            raise UsageError(
                "criterion 'bn_scale' needs BatchNormalization, and this model has none behind its prunable layers "
                "(exporters fold it into convolutions); choose another one, or pass 'restore_batchnorm' first"
            )
        return completed(found, scoring, NormCriterion(2).scores)

    def _parts(self, scoring: Scoring) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
        coupling = scoring.coupling
        graph, axes = coupling.graph, coupling.axes
        for node in graph.nodes:
            normalised = affine(node, scoring.analysis.registry)
            if normalised is None or not normalised.held(normalised.scale):
                continue
            scale = node.inputs[normalised.scale]
            owner = coupling.class_of.get(axes.id(scale, 0))
            if owner is not None:
                yield coupling.class_labels(owner), np.abs(graph.model.weights[scale].array.astype(np.float64))


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


def _filters(coupling: Coupling) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    """The filters of every producer as [before, filters, behind], and the component of each."""
    for read, dim, labels in producer_weights(coupling):
        array = read()
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
        yield array.reshape(math.prod(array.shape[:dim]), array.shape[dim], -1), labels


def _norms(view: NDArray[Any], order: int) -> FloatArray:
    norms: FloatArray = (
        np.abs(view).sum(axis=(0, 2), dtype=np.float64)
        if order == 1
        else np.sqrt(np.einsum("ijk,ijk->j", view, view), dtype=np.float64)
    )
    return norms


def _distances(view: NDArray[Any]) -> FloatArray:
    rows = np.moveaxis(view, 1, 0).reshape(view.shape[1], -1).astype(np.float64)
    squares = np.square(rows).sum(axis=1)
    # Of differences, not by the cosine rule alone, would take memory for all pairs; rounding can leave tiny negatives.
    pairs = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0)
    np.fill_diagonal(pairs, 0.0)
    distances: FloatArray = np.sqrt(pairs).sum(axis=1)
    return distances


def _lamp(view: NDArray[Any]) -> FloatArray:
    squares = np.square(_norms(view, 2))
    order = np.argsort(squares, kind="stable")
    above = np.cumsum(squares[order][::-1])[::-1]
    shares = np.empty_like(squares)
    shares[order] = squares[order] / np.where(above > 0, above, 1.0)
    return shares
