"""Criteria by the error that a removal brings to the outputs of the layers that read the channels.

Both are greedy: what goes first is what adds the least error given what has gone. Errors are squared, relative to the
variance of the reading layer's output, and add over readers, so that they compare between layers. Means do not count
(a bias makes them good). For convolutions, positions within a kernel are taken as uncorrelated, which leaves matrices
of channels, not of channels times kernel elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from onnxprune.analysis.atoms import Group
from onnxprune.data.statistics import ChannelStatistics
from onnxprune.pruning.criteria.base import FloatArray, Scoring, completed
from onnxprune.pruning.criteria.consumers import Consumer, consumers, input_statistics
from onnxprune.pruning.criteria.weights import NormCriterion

#: Groups are emptied in so many steps at most.
_STEPS = 64
#: Ridge of covariances, as a share of the mean variance: what a refit cannot make use of.
_RIDGE = 1e-2


@dataclass
class _Input:
    """A tensor that consumers read: the components of its channels, their statistics, and the weights' products.

    Of tensors whose covariance is not known, products are those of each channel with itself, [C]; else [C, C].
    """

    labels: NDArray[np.int64]
    statistics: ChannelStatistics
    products: FloatArray


class ReconstructionCriterion:
    """The error of the consumers' outputs with the weights as they are, or with the best weights for what stays."""

    comparable = True

    def __init__(self, name: str, *, refitted: bool) -> None:
        self.name = name
        self._refitted = refitted

    def scores(self, scoring: Scoring) -> FloatArray:
        found = list(consumers(scoring))
        statistics = input_statistics(scoring, self.name, found, covariances=True)
        inputs = _inputs(found, statistics)
        scores = np.full(scoring.count, np.nan)
        for group in scoring.coupling.groups:
            own = [read for read in inputs if np.isin(read.labels, group.atoms).any()]
            if own:
                order = _refitted_order if self._refitted else _plain_order
                scores[group.atoms] = order(group, own)
        return completed(scores, scoring, NormCriterion(2).scores)


def _inputs(found: list[Consumer], statistics: dict[str, ChannelStatistics]) -> list[_Input]:
    """By tensor read: consumers of one tensor share its covariance, and their weights' products add up."""
    inputs: dict[str, _Input] = {}
    for consumer in found:
        name = consumer.layer.input
        if name not in statistics:
            continue
        known = statistics[name]
        covariance = known.covariance
        if covariance is None:
            products = np.einsum("cm,cm->c", consumer.matrix, consumer.matrix, dtype=np.float64)
            energy = float(known.variance @ products)
        else:
            products = (consumer.matrix @ consumer.matrix.T).astype(np.float64)
            if consumer.layer.groups > 1:
                # Channels of different groups never meet in an output.
                group_of = np.arange(len(products)) // (len(products) // consumer.layer.groups)
                products *= group_of[:, None] == group_of
            energy = float((covariance * products).sum())
        if energy <= 0:
            continue
        if name in inputs:
            inputs[name].products += products / energy
        else:
            inputs[name] = _Input(consumer.labels, known, products / energy)
    return list(inputs.values())


def _plain_order(group: Group, inputs: list[_Input]) -> FloatArray:
    """Scores of the group's atoms: the error that each adds when it goes after those with lower scores."""
    count = len(group.atoms)
    errors = np.zeros((count, count))
    for read in inputs:
        place = _places(group, read)
        inside = np.flatnonzero(place >= 0)
        covariance = read.statistics.covariance
        if covariance is None:
            np.fill_diagonal(errors, errors.diagonal() + _apart(place, read, count))
            continue
        form = (covariance * read.products)[np.ix_(inside, inside)]
        collected = np.zeros((count, len(inside)))
        np.add.at(collected, place[inside], form)
        np.add.at(errors.T, place[inside], collected.T)
    added = np.diag(errors).copy()
    scores, left, highest = np.empty(count), np.ones(count, dtype=bool), 0.0
    for _ in range(count):
        atom = int(np.argmin(np.where(left, added, np.inf)))
        highest = scores[atom] = max(added[atom], highest * (1 + 1e-12))
        left[atom] = False
        added += 2 * errors[atom]
    return scores


def _refitted_order(group: Group, inputs: list[_Input]) -> FloatArray:
    """The same where the weights of what stays are always the best (Optimal Brain Surgeon, for whole channels).

    With the inverse covariance U and the products M of the best weights, channels B add ``tr(U_BB⁻¹ M_BB)``; then
    both lose what B explains.
    """
    count = len(group.atoms)
    apart = np.zeros(count)
    states = []
    for read in inputs:
        place, covariance = _places(group, read), read.statistics.covariance
        if covariance is None:
            apart += _apart(place, read, count)
        else:
            states.append((place, _damped_inverse(covariance), read.products.copy()))
    scores, left, highest = np.full(count, np.inf), np.ones(count, dtype=bool), 0.0
    step = max(1, -(-count // _STEPS))
    while left.any():
        cost = apart.copy()
        for place, inverse, products in states:
            inside = place >= 0
            single = np.diag(products)[inside] / np.maximum(np.diag(inverse)[inside], 1e-300)
            np.add.at(cost, place[inside], single)
        cost[~left] = np.inf
        gone = np.argsort(cost, kind="stable")[: min(step, int(left.sum()))]
        exact = float(apart[gone].sum())
        for index, (place, inverse, products) in enumerate(states):
            channels = np.flatnonzero(np.isin(place, gone))
            if len(channels):
                error, *after = _without(inverse, products, channels)
                states[index] = (place, after[0], after[1])
                exact += error
        estimated = float(cost[gone].sum())
        for atom in gone:
            share = cost[atom] / estimated if estimated > 0 else 1 / len(gone)
            highest = scores[atom] = max(exact * share, highest * (1 + 1e-12))
        left[gone] = False
    return scores


def _without(
    inverse: FloatArray, products: FloatArray, channels: NDArray[np.int64]
) -> tuple[float, FloatArray, FloatArray]:
    """The error that these channels add, and both matrices after them (their rows and columns are nothing then)."""
    block = inverse[np.ix_(channels, channels)]
    own = products[np.ix_(channels, channels)]
    scale = max(float(np.trace(block)) / len(channels), 1e-300)
    try:
        factor = cho_factor(block + 1e-9 * scale * np.eye(len(channels)), check_finite=False)
        explained = cho_solve(factor, inverse[channels], check_finite=False).T
        error = float(np.trace(cho_solve(factor, own, check_finite=False)))
    except LinAlgError:
        solved = np.linalg.pinv(block)
        explained, error = (solved @ inverse[channels]).T, float(np.trace(solved @ own))
    inverse = inverse - explained @ inverse[channels]
    cross = explained @ products[channels]
    products = products - cross - cross.T + explained @ own @ explained.T
    inverse[channels] = inverse[:, channels] = 0.0
    products[channels] = products[:, channels] = 0.0
    return max(error, 0.0), inverse, products


def _apart(place: NDArray[np.int64], read: _Input, count: int) -> FloatArray:
    """The error of each of ``count`` atoms where channels are taken as uncorrelated."""
    inside = place >= 0
    alone = (read.statistics.variance * read.products)[inside]
    return np.bincount(place[inside], alone, minlength=count).astype(np.float64)


def _damped_inverse(covariance: FloatArray) -> FloatArray:
    mean = max(float(np.trace(covariance)) / len(covariance), 1e-30)
    damped = covariance + _RIDGE * mean * np.eye(len(covariance))
    return np.asarray(np.linalg.inv(damped), dtype=np.float64)


def _places(group: Group, read: _Input) -> NDArray[np.int64]:
    """For every channel the place of its atom in the group, or -1."""
    order = np.argsort(group.atoms)
    at = np.minimum(np.searchsorted(group.atoms[order], read.labels), len(order) - 1)
    return np.where(group.atoms[order[at]] == read.labels, order[at], -1)


CRITERIA = (
    ReconstructionCriterion("reconstruction", refitted=False),
    ReconstructionCriterion("refit", refitted=True),
)
