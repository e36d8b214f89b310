"""Biases that make good what rounding the weights adds to a layer's outputs on average."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.samples import Samples
from onnxprune.data.statistics import channel_statistics
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ops.layers import linear_layer
from onnxprune.pruning.compensation.biases import add_to_bias, bias_place

#: Samples that means are taken of, and how many at once.
_MOST, _STEP = 16, 4


def with_corrected_biases(prepared: Model, quantised: Model, samples: Samples) -> Model:
    """The float model with other biases, for weights that are rounded as in the quantised one.

    Of a layer whose weights W are rounded to W', the outputs are off by (W' - W) E[x] on average; the bias takes that
    back. No data but the means of what layers read is needed, and no layer depends on what another one gets.

    Args:
        prepared: the float model.
        quantised: what was made of it.
        samples: what the means are taken of.
    """
    graph, rounded = prepared.derived(Graph), rounded_weights(quantised)
    layers = [layer for node in graph.nodes if node.name in rounded and (layer := linear_layer(node)) is not None]
    some = samples if samples.fixed else replace(samples.part(0, _MOST), step=_STEP)
    means = channel_statistics(prepared, some, {layer.input: layer.in_dim for layer in layers})
    draft = prepared.edit()
    for layer in layers:
        place = bias_place(graph, layer)
        weight = prepared.weights[layer.weight].array
        if place is None or not place.own or layer.input not in means:
            continue
        error = layer.matrix(rounded[graph.nodes[layer.node].name]) - layer.matrix(weight.astype(np.float64))
        features = means[layer.input].mean[layer.feature_channels(weight)]
        shift = np.einsum("gkn,gk->gn", error, features).reshape(-1)
        add_to_bias(draft, place, -shift, weight.dtype, layer.name)
    return draft.finish()


def rounded_weights(quantised: Model) -> Mapping[str, NDArray[np.float64]]:
    """The numbers that the integers of layers' weights stand for, by the name of the node."""
    makers = {name: node for node in quantised.graph.node for name in node.output}
    found: dict[str, Any] = {}
    for node in quantised.graph.node:
        maker = makers.get(node.input[1]) if len(node.input) > 1 else None
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in quantised.weights:
            continue
        values, scale, zero = (quantised.weights[name].array.astype(np.float64) for name in maker.input)
        axis = next((a.i for a in maker.attribute if a.name == "axis"), 1) % max(values.ndim, 1)
        shape = [-1 if dim == axis else 1 for dim in range(values.ndim)] if scale.size > 1 else []
        found[node.name] = (values - zero.reshape(shape)) * scale.reshape(shape)
    return found
