"""Criteria by the error that a removal brings to the outputs of the layers that read the channels.

Both are greedy: what goes first is what adds the least error given what has gone. Errors are squared, relative to the
variance of the reading layer's output, times what such an error does to the model's outputs (``data.influence``), and
add over readers, so that they compare between layers. Those of a refit are what to expect on samples that it has not
seen. Means do not count (a bias makes them good). For convolutions, positions within a kernel are taken as
uncorrelated, which leaves matrices of channels, not of channels times kernel elements.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, block_diag, cho_factor, cho_solve

from onnxprune.analysis.atoms import Group
from onnxprune.data.pairs import Pair, meetings
from onnxprune.data.statistics import MOST_ROWS, ChannelStatistics
from onnxprune.pruning.criteria.base import FloatArray, Scoring, completed
from onnxprune.pruning.criteria.consumers import Consumer, consumers, contracted, input_statistics
from onnxprune.pruning.criteria.weights import NormCriterion

#: Groups are emptied in so many steps at most.
_STEPS = 64
#: Ridge of covariances, as a share of the mean variance: what a refit cannot make use of.
_RIDGE = 1e-2
#: With fewer rows than so many per channel, one of these takes its place.
_ROWS_PER_CHANNEL = 16
_SHARES = (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 1e1, 3e1, 1e2)
#: Rows count by this factor: positions of one sample, and samples in series, tell much of the same. (Of 1, 1/4 and 1/20
#: the best on MobileNetV2 with pictures, and on the reference models with training images that nothing was fitted to.)
_INDEPENDENT = 0.25
#: Multiply-accumulates that measuring influences may take.
_MOST_MACS = 1.5e12
#: As a share of the usual influence: no layer is free.
_LEAST_INFLUENCE = 1e-3
#: A fit with as many degrees of freedom as rows says nothing; it counts as if this share of the rows were left.
_LEAST_LEFT = 0.02


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
        products = list(contracted(scoring))
        outputs = {consumer.layer.output: consumer.layer.out_dim for consumer in found}
        influence = _influences(scoring, {**outputs, **{pair.output: 1 for pair in products}})
        inputs = [*_inputs(found, statistics, influence), *_products(scoring, products, influence)]
        scores = np.full(scoring.count, np.nan)
        for group in scoring.coupling.groups:
            own = [read for read in inputs if np.isin(read.labels, group.atoms).any()]
            if own:
                order = _refitted_order if self._refitted else _plain_order
                scores[group.atoms] = order(group, own)
        return completed(scores, scoring, NormCriterion(2).scores)


def _influences(scoring: Scoring, outputs: dict[str, int]) -> dict[str, float]:
    """What a relative error in each of these tensors does to the model's outputs; of all, where it can be measured."""
    if scoring.samples is None:
        return {}
    # Every layer costs half a run on average.
    run = max(scoring.analysis.totals["flops"] * max(len(outputs), 1) / 2, 1.0)
    from onnxprune.data.influence import MOST_SAMPLES, Influences  # with all that compares answers

    few = scoring.samples.first(max(min(MOST_SAMPLES, int(_MOST_MACS / run)), 2))
    known = scoring.analysis.model.derived(Influences(few.digest(), tuple(outputs.items()), few))
    usual = float(np.median(list(known.values()) or [1.0]))
    return {name: max(known.get(name, usual), _LEAST_INFLUENCE * usual) for name in outputs}


def _inputs(
    found: list[Consumer], statistics: dict[str, ChannelStatistics], influence: dict[str, float]
) -> list[_Input]:
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
        energy /= influence.get(consumer.layer.output, 1.0) or 1.0
        if name in inputs:
            inputs[name].products += products / energy
        else:
            inputs[name] = _Input(consumer.labels, known, products / energy)
    return list(inputs.values())


def _products(scoring: Scoring, found: list[Pair], influence: dict[str, float]) -> list[_Input]:
    """The operands of products of activations: what meets them takes the place of weights, head by head."""
    coupling = scoring.coupling
    inputs: list[_Input] = []
    if not found:
        return inputs
    for pair, met in meetings(scoring.analysis.model, scoring.data("refit"), found).items():
        heads, width = met.products.shape[:2]
        labels = np.tile(coupling.class_labels(coupling.class_of[coupling.axes.id(pair.tensor, pair.dim)]), heads)
        covariance, products = block_diag(*met.covariance), block_diag(*met.products)
        energy = float((covariance * products).sum()) / (influence.get(pair.output, 1.0) or 1.0)
        if energy > 0 and len(labels) == len(covariance) == heads * width:
            nothing = np.zeros(len(covariance))
            known = ChannelStatistics(met.rows, nothing, nothing, covariance.diagonal(), covariance)
            inputs.append(_Input(labels, known, products / energy))
    return inputs


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
    both lose what B explains. Errors are those to expect on samples that the fit has not seen (see ``_Refit``).
    """
    count = len(group.atoms)
    apart = np.zeros(count)
    states: list[_Refit] = []
    for read in inputs:
        place = _places(group, read)
        if read.statistics.covariance is None:
            apart += _apart(place, read, count)
        else:
            states.append(_Refit.of(read, place))
    scores, left, highest = np.full(count, np.inf), np.ones(count, dtype=bool), 0.0
    step = max(1, -(-count // _STEPS))
    while left.any():
        cost = apart.copy()
        for state in states:
            inside = state.place >= 0
            single = np.diag(state.products)[inside] / np.maximum(np.diag(state.inverse)[inside], 1e-300)
            np.add.at(cost, state.place[inside], single * state.optimism())
        cost[~left] = np.inf
        gone = np.argsort(cost, kind="stable")[: min(step, int(left.sum()))]
        exact = float(apart[gone].sum())
        for state in states:
            channels = np.flatnonzero(np.isin(state.place, gone))
            if len(channels):
                exact += state.remove(channels)
        estimated = float(cost[gone].sum())
        for atom in gone:
            share = cost[atom] / estimated if estimated > 0 else 1 / len(gone)
            highest = scores[atom] = max(exact * share, highest * (1 + 1e-12))
        left[gone] = False
    return scores


@dataclass
class _Refit:
    """The fit of one input's channels to what its consumers gave with all of them, while channels go.

    ``inverse`` is that of the kept channels' covariance with ``ridge`` on its diagonal, ``products`` those of the best
    weights; ``place`` tells the atom of each channel. ``error`` is what the fit errs on its ``rows``.
    """

    place: NDArray[np.int64]
    inverse: FloatArray
    products: FloatArray
    ridge: float
    rows: int
    error: float = 0.0

    @classmethod
    def of(cls, read: _Input, place: NDArray[np.int64]) -> _Refit:
        """With all channels. The ridge is the one that a removal of half of them generalises best with."""
        covariance = read.statistics.covariance
        assert covariance is not None
        mean = max(float(np.trace(covariance)) / len(covariance), 1e-30)
        rows = max(int(min(read.statistics.count, MOST_ROWS) * _INDEPENDENT), 2)
        ridge = mean * _share(covariance, read.products, rows, place)
        inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
        return cls(place, np.asarray(inverse, dtype=np.float64), read.products.copy(), ridge, rows)

    def optimism(self) -> float:
        """What the error on other samples is of that on these rows (generalised cross-validation)."""
        kept = int(np.count_nonzero(self.inverse.diagonal()))
        return _optimism(kept - self.ridge * float(np.trace(self.inverse)), self.rows)

    def remove(self, channels: NDArray[np.int64]) -> float:
        """Let these channels go; what that adds to the error on other samples."""
        before = self.error * self.optimism()
        error, self.inverse, self.products = _without(self.inverse, self.products, channels)
        self.error += error
        return max(self.error * self.optimism() - before, 0.0)


def _optimism(freedom: float, rows: int) -> float:
    # One more for the bias.
    return float(1 / max(1 - (freedom + 1) / rows, _LEAST_LEFT) ** 2)


def _share(covariance: FloatArray, products: FloatArray, rows: int, place: NDArray[np.int64]) -> float:
    """The ridge, as a share of the mean variance."""
    if rows > _ROWS_PER_CHANNEL * len(covariance):
        return _RIDGE
    kept = np.arange(len(covariance)) % 2 == 0
    gone = ~kept
    values, vectors = np.linalg.eigh(covariance[np.ix_(kept, kept)])
    values = np.maximum(values, 0.0)
    cross = vectors.T @ covariance[np.ix_(kept, gone)]
    # Errors of the ridge regression of what is gone on what is kept, by eigenvector of what is kept.
    explained = np.einsum("ec,cd,ed->e", cross, products[np.ix_(gone, gone)], cross)
    total = float((covariance * products)[np.ix_(gone, gone)].sum())
    mean = max(float(np.trace(covariance)) / len(covariance), 1e-30)
    best, least = _RIDGE, np.inf
    for share in _SHARES:
        damped = values + share * mean
        error = total - float((explained * (values + 2 * share * mean) / damped**2).sum())
        expected = max(error, 0.0) * _optimism(float((values / damped).sum()), rows)
        if expected < least:
            best, least = share, expected
    return best


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


def _places(group: Group, read: _Input) -> NDArray[np.int64]:
    """For every channel the place of its atom in the group, or -1."""
    order = np.argsort(group.atoms)
    at = np.minimum(np.searchsorted(group.atoms[order], read.labels), len(order) - 1)
    return np.where(group.atoms[order[at]] == read.labels, order[at], -1)


CRITERIA = (
    ReconstructionCriterion("reconstruction", refitted=False),
    ReconstructionCriterion("refit", refitted=True),
)
