"""Which layers read what, and what their inputs are like: shared by the criteria that look at data."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.pairs import Pair, pairs
from onnxprune.data.statistics import ChannelStatistics, channel_statistics
from onnxprune.ir.control_flow import is_open
from onnxprune.ops.layers import LinearLayer, linear_layer
from onnxprune.pruning.criteria.base import FloatArray, Scoring


@dataclass(frozen=True)
class Consumer:
    """A layer that contracts over prunable channels.

    ``labels`` [C] are the components of its input channels; ``matrix`` [C, M] holds, per channel, all weights that
    multiply it; ``outputs`` [M] the output channel that each of these belongs to.
    """

    layer: LinearLayer
    labels: NDArray[np.int64]
    matrix: NDArray[np.floating[Any]]
    outputs: NDArray[np.int64]
    bias: FloatArray | None


def consumers(scoring: Scoring) -> Iterator[Consumer]:
    """The layers whose input channels may go. Depthwise ones keep channels apart: they contract over nothing."""
    coupling = scoring.coupling
    graph, axes = coupling.graph, coupling.axes
    for node in graph.nodes:
        layer = linear_layer(node, scoring.analysis.registry)
        if layer is None or layer.input not in axes:
            continue
        owner = coupling.class_of.get(axes.id(layer.input, layer.in_dim))
        weight = graph.model.weights[layer.weight].array
        if owner is None or (layer.groups > 1 and layer.groups == node.shape(layer.input)[layer.in_dim]):
            continue
        blocks = np.asarray(layer.matrix(weight), dtype=np.promote_types(weight.dtype, np.float32))
        groups, features, filters = blocks.shape
        channels = node.shape(layer.input)[layer.in_dim] // groups
        matrix = blocks.reshape(groups * channels, -1)
        outputs = np.tile(np.arange(filters), features // channels)
        bias = None
        if layer.bias >= 0 and node.has_input(layer.bias) and node.inputs[layer.bias] in graph.model.weights:
            bias = np.ravel(graph.model.weights[node.inputs[layer.bias]].array).astype(np.float64)
        yield Consumer(layer, coupling.class_labels(owner), matrix, outputs, bias)


def contracted(scoring: Scoring) -> Iterator[Pair]:
    """One operand of every product of two activations whose contracted positions may go (queries with keys)."""
    coupling = scoring.coupling
    removable = np.concatenate([group.atoms for group in coupling.groups] or [np.zeros(0, dtype=np.int64)])
    outside = {name for node in scoring.analysis.model.graph.node for name in node.output}
    last = -1
    for pair in sorted(
        pairs(coupling.graph, scoring.analysis.registry), key=lambda pair: (pair.node, not pair.centred)
    ):
        owner = None if pair.tensor not in coupling.axes else coupling.axes.id(pair.tensor, pair.dim)
        owner = None if owner is None else coupling.class_of.get(owner)
        if pair.node == last or owner is None or pair.output not in outside:
            continue
        if np.isin(coupling.class_labels(owner), removable).any():
            last = pair.node
            yield pair


def input_statistics(
    scoring: Scoring, criterion: str, found: Collection[Consumer], *, covariances: bool = False
) -> dict[str, ChannelStatistics]:
    """Statistics of what these layers read. Raises UsageError where there are no calibration samples."""
    samples = scoring.data(criterion)
    tensors = {consumer.layer.input: consumer.layer.in_dim for consumer in found}
    model = scoring.analysis.model
    if is_open(scoring.analysis.graph.model):
        # Tensors inside bodies cannot be looked at from outside.
        outside = {name for node in model.graph.node for name in node.output}
        tensors = {name: dim for name, dim in tensors.items() if name in outside}
    return channel_statistics(model, samples, tensors, covariances=tensors if covariances else ())
