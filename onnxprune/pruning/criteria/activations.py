"""Criteria that weigh activations with the weights that read them.

Of every consumer, a channel has a share in what reaches its outputs; shares of one consumer add up to 1 (or less,
where a bias counts), so that they compare between layers. An atom's score adds over all consumers that read it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.data.statistics import ChannelStatistics
from onnxprune.pruning.criteria.base import FloatArray, Scoring, completed, merged
from onnxprune.pruning.criteria.consumers import Consumer, consumers, input_statistics
from onnxprune.pruning.criteria.weights import NormCriterion

Share = Callable[[Consumer, ChannelStatistics], FloatArray]


class ActivationCriterion:
    """Shares of the channels in their consumers, as a function of weights and statistics says."""

    comparable = True

    def __init__(self, name: str, share: Share) -> None:
        self.name = name
        self._share = share

    def scores(self, scoring: Scoring) -> FloatArray:
        found = list(consumers(scoring))
        statistics = input_statistics(scoring, self.name, found)
        parts = [
            (consumer.labels, self._share(consumer, statistics[consumer.layer.input]))
            for consumer in found
            if consumer.layer.input in statistics
        ]
        return completed(merged(scoring.count, parts), scoring, NormCriterion(2).scores)


def magnitude_share(consumer: Consumer, statistics: ChannelStatistics) -> FloatArray:
    """Mean magnitude times the norm of the weights that read it."""
    return _normalised(statistics.magnitude * np.sqrt(np.square(consumer.matrix).sum(axis=1)))


def variance_share(consumer: Consumer, statistics: ChannelStatistics) -> FloatArray:
    """Variance times the squared norm of the weights: the share in the output's variance, were channels independent.

    A constant channel has none: a bias does its work.
    """
    return _normalised(statistics.variance * np.square(consumer.matrix).sum(axis=1))


def relief_share(consumer: Consumer, statistics: ChannelStatistics) -> FloatArray:
    """The share of a connection in the mean magnitude of what its neuron receives, averaged over neurons.

    "Neural Network Relief: A Pruning Algorithm Based on Neural Activity", Dekhovich et al., 2021. For a convolution
    the magnitudes of a kernel add up, as every element of the channel meets each of them.
    """
    filters = int(consumer.outputs.max()) + 1
    weights = np.abs(consumer.matrix).reshape(len(consumer.labels), -1, filters).sum(axis=1)
    signals = statistics.magnitude[:, None] * weights
    if consumer.layer.groups > 1:
        signals = signals.reshape(consumer.layer.groups, -1, filters)
        received = signals.sum(axis=1, keepdims=True)
    else:
        received = signals.sum(axis=0, keepdims=True)
    if consumer.bias is not None and consumer.bias.size == received.size:
        received = received + np.abs(consumer.bias).reshape(received.shape)
    shares = signals / np.where(received > 0, received, 1.0)
    found: FloatArray = shares.reshape(len(consumer.labels), filters).sum(axis=1)
    return found / (filters * consumer.layer.groups)


def _normalised(values: FloatArray) -> FloatArray:
    total = values.sum()
    return values / total if total > 0 else values


CRITERIA = (
    ActivationCriterion("activation", magnitude_share),
    ActivationCriterion("variance", variance_share),
    ActivationCriterion("relief", relief_share),
)
