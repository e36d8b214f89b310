"""Scales moved from layers to those that read them, so that the channels of a tensor use its range alike.

A tensor has one scale for all its channels. Where nothing between two layers minds positive factors (Relu, pooling,
sums of tensors with the same factors), a layer may give a channel times 1/s and its readers take it times s (Nagel et
al., Data-Free Quantization, 2019, which this follows; the ranges here are of samples). The factors are powers of two:
the model computes the same numbers to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.data.samples import Samples
from onnxprune.data.statistics import channel_statistics
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ops import default_registry
from onnxprune.ops.layers import LinearLayer, linear_layer
from onnxprune.pruning.compensation.biases import BiasPlace, add_to_bias, bias_of_layer, bias_place

FloatArray = NDArray[np.float64]

#: Powers of two that a factor may have at most: float32 has room for many more, and no channel needs them.
_MOST = 6


@dataclass(frozen=True)
class Stretch:
    """Tensors between layers whose channels may take any positive factors.

    Attributes:
        writers: the layers that give them, each with the place of its bias (None where it has none).
        readers: the layers that take them.
    """

    writers: tuple[tuple[LinearLayer, BiasPlace | None], ...]
    readers: tuple[LinearLayer, ...]


def with_equalised_channels(prepared: Model, samples: Samples) -> tuple[Model, int]:
    """The model with other factors between layers, and in how many stretches; it computes what it did.

    Args:
        prepared: the float model.
        samples: what the channels' magnitudes are measured on.
    """
    analysis = analyze(prepared)
    prepared, found = analysis.model, [*stretches(analysis)]
    tensors = {layer.input: layer.in_dim for stretch in found for layer in stretch.readers}
    known = channel_statistics(prepared, samples, tensors) if found else {}
    sizes = {name: np.sqrt(np.square(one.mean) + one.variance) for name, one in known.items()}
    draft, count = prepared.edit(), 0
    for stretch in found:
        factors = _factors(draft, stretch, sizes)
        if (factors != 1).any():
            count += 1
            _scale(draft, analysis.graph, stretch, factors)
    return draft.finish(), count


def stretches(analysis: Analysis) -> Iterator[Stretch]:
    """All stretches between the layers of a model."""
    layers = {node.index: layer for node in analysis.graph.nodes if (layer := linear_layer(node)) is not None}
    seen: set[str] = set()
    for layer in layers.values():
        if layer.output not in seen:
            stretch = _Walk(analysis, layers, seen).stretch(layer)
            if stretch is not None:
                yield stretch


class _Walk:
    """Looking for all that has the channels of a layer's output, until layers and nothing else bound it."""

    def __init__(self, analysis: Analysis, layers: dict[int, LinearLayer], seen: set[str]) -> None:
        self._analysis, self._graph, self._layers, self._seen = analysis, analysis.graph, layers, seen
        self._uses: dict[str, int] = {}
        for node in analysis.graph.nodes:
            for name in node.reads:
                self._uses[name] = self._uses.get(name, 0) + 1

    def stretch(self, first: LinearLayer) -> Stretch | None:
        """The stretch behind a layer; None where something in it minds."""
        channels = self._class(first.output, first.out_dim)
        writers: dict[int, LinearLayer] = {}
        readers: dict[int, LinearLayer] = {}
        waiting, fine = [first.output], channels is not None
        while waiting:
            name = waiting.pop()
            if name in self._seen:
                continue
            self._seen.add(name)
            maker = self._graph.producer.get(name)
            fine = fine and maker is not None and name not in self._graph.outputs
            for index, reads in [(maker, False), *((reader, True) for reader in self._graph.consumers.get(name, []))]:
                if index is None:
                    continue
                layer = self._layers.get(index)
                if layer is None:
                    more = self._indifferent(index)
                    fine = fine and bool(more)
                    waiting += more
                elif reads:
                    fine = fine and name == layer.input and self._class(name, layer.in_dim) == channels
                    readers[index] = layer
                else:
                    fine = fine and self._class(name, layer.out_dim) == channels
                    writers[index] = layer
        if not fine or not readers or any(self._uses[one.weight] > 1 for one in (*writers.values(), *readers.values())):
            return None
        places = {index: bias_place(self._graph, one) for index, one in writers.items()}
        if any(place is not None and not place.own for place in places.values()):
            return None  # What is added behind a layer is an operand, which would need the factors, too.
        return Stretch(tuple((one, places[index]) for index, one in writers.items()), tuple(readers.values()))

    def _class(self, name: str, dim: int) -> int | None:
        axes, rank = self._analysis.coupling.axes, len(self._graph.shapes.extents.get(name, ()))
        return self._analysis.coupling.class_of.get(axes.axes_of(name, rank)[dim]) if name in axes and rank else None

    def _indifferent(self, index: int) -> list[str]:
        """The tensors of a node that does not mind factors of channels, if all of them have the same."""
        node = self._graph.nodes[index]
        operator = default_registry().find(node)
        if operator is None or node.op_type not in operator.homogeneous:
            return []
        inputs = [name for name in node.inputs if name] if node.op_type in operator.joining else [node.inputs[0]]
        return [] if any(name in self._graph.constants for name in inputs) else [*inputs, node.outputs[0]]


def _factors(draft: Draft, stretch: Stretch, sizes: dict[str, FloatArray]) -> FloatArray:
    """What the writers divide each channel by, and the readers multiply it with, [C]."""
    known = [sizes[layer.input] for layer in stretch.readers if layer.input in sizes]
    channels = max((len(size) for size in known), default=1)
    size, weight = np.zeros(channels), np.zeros(channels)
    for one in known:
        size = np.maximum(size, one)
    for layer in stretch.readers:
        held = draft.weights[layer.weight].array
        matrix, at = np.abs(layer.matrix(held)), layer.feature_channels(held)
        # Scales of weights are per filter: where a filter reads one channel, factors cost it nothing.
        if any((row != row[0]).any() for row in at):
            np.maximum.at(weight, at.reshape(-1), matrix.max(axis=2).reshape(-1))
    wanted = np.sqrt(size / np.where(weight > 0, weight, 1.0)) if weight.any() else size
    alive = wanted > 0
    if not alive.any():
        return np.ones(channels)
    exponents = np.round(np.log2(np.where(alive, wanted, 1.0) / np.median(wanted[alive])))
    return np.asarray(np.where(alive, np.exp2(np.clip(exponents, -_MOST, _MOST)), 1.0), dtype=np.float64)


def _scale(draft: Draft, graph: Graph, stretch: Stretch, factors: FloatArray) -> None:
    for layer, place in stretch.writers:
        weight = draft.weights[layer.weight]
        matrix = layer.matrix(weight.array)
        part = factors.reshape(layer.groups, 1, -1)
        bias = bias_of_layer(graph, layer, place, len(factors))
        if place is not None and bias.any():
            add_to_bias(draft, place, bias / factors - bias, weight.array.dtype, layer.name)
        draft.weights[layer.weight] = weight.with_array(layer.weights(matrix / part, weight.array))
    for layer in stretch.readers:
        weight = draft.weights[layer.weight]
        at = layer.feature_channels(weight.array)
        matrix = layer.matrix(weight.array) * factors[at][:, :, None]
        draft.weights[layer.weight] = weight.with_array(layer.weights(matrix, weight.array))
