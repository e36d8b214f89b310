"""Compensation by BatchNormalization: from its statistics where there is no data at all, and its statistics anew.

A BatchNormalization says what its outputs are like without a single sample: mean beta, standard deviation gamma.
Drawing them from normal distributions and running what lies between there and the next layers (activations, pooling,
additions, concatenations) gives the mean of every removed channel, whatever the operators are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from scipy.special import ndtri

from onnxprune.errors import VerificationError
from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.session import Session
from onnxprune.ir.shapes import infer_shapes
from onnxprune.ops.layers import Affine, LinearLayer, affine, linear_layer
from onnxprune.pruning.compensation.biases import add_to_bias, bias_place
from onnxprune.pruning.compensation.gathering import Walk
from onnxprune.pruning.plan import Removed

FloatArray = NDArray[np.float64]

#: A drawn channel has at least so many values, if the batch is open.
_FEWEST_VALUES = 256


def removed_means(model: Model, removed: Removed, *, seed: int = 0) -> dict[str, FloatArray]:
    """Mean activations [C] of the tensors that layers read and that lose channels, from statistics alone.

    Tensors are left out whose values do not come from BatchNormalization alone (another layer lies between, or the
    exporter has folded it away).
    """
    graph = Graph(model, infer_shapes(model))
    wanted = {layer.input: layer.in_dim for layer in _layers(graph) if layer.in_dim in removed.get(layer.input, {})}
    drawn = {node.outputs[0]: node for node in graph.nodes if _is_constant_normalisation(graph, node)}
    known: set[str] = set(drawn)
    nodes: list[int] = []
    for node in graph.nodes:
        reads = [name for name in node.inputs if name and name not in graph.constants]
        inner = node.index in graph.captured or linear_layer(node) is not None
        if reads and not inner and node.outputs[0] not in drawn and known.issuperset(reads):
            known.update(name for name in node.outputs if name)
            nodes.append(node.index)
    outputs = [name for name in wanted if name in known]
    if not outputs:
        return {}
    feeds = {name: _draw(graph, node, seed + node.index) for name, node in drawn.items()}
    results = Session(_between(model, graph, nodes, list(feeds), outputs), "a piece of the model").run(feeds)
    return {
        name: np.moveaxis(results[name], wanted[name], -1)
        .reshape(-1, results[name].shape[wanted[name]])
        .mean(axis=0, dtype=np.float64)
        for name in outputs
    }


def fold_means(pruned: Model, original: Model, removed: Removed) -> tuple[Model, tuple[str, ...], dict[str, str]]:
    """Add what the removed channels contributed on average to the biases of the layers that read them.

    Padding with zeros makes border positions receive less; the bias is right for the interior.

    Returns:
        The model, the names of the layers that changed, and why others did not.
    """
    means = removed_means(original, removed)
    before = Graph(original, infer_shapes(original))
    layers = {layer.output: layer for layer in _layers(before)}
    graph = Graph(pruned, infer_shapes(pruned))
    draft: Draft = pruned.edit()
    changed: list[str] = []
    skipped: dict[str, str] = {}
    for layer in _layers(graph):
        gone = removed.get(layer.input, {}).get(layer.in_dim)
        was = layers.get(layer.output)
        if gone is None or was is None or layer.groups > 1:
            continue
        place = bias_place(graph, layer)
        if layer.input not in means or place is None:
            skipped[layer.name] = (
                "it has no place for a bias" if place is None else "no BatchNormalization tells what it reads"
            )
            continue
        weight = original.weights[was.weight].array
        lost = np.isin(was.feature_channels(weight)[0], gone)
        features = np.where(lost, means[layer.input][was.feature_channels(weight)[0]], 0.0)
        kept = np.delete(np.arange(was.matrix(weight).shape[2]), removed.get(layer.output, {}).get(layer.out_dim, ()))
        change = (features @ was.matrix(weight)[0].astype(np.float64))[kept]
        add_to_bias(draft, place, change, weight.dtype, layer.weight)
        changed.append(layer.name)
    return draft.finish(), tuple(changed), skipped


def _layers(graph: Graph) -> Iterator[LinearLayer]:
    for node in graph.nodes:
        layer = linear_layer(node)
        # Elements of a transposed kernel do not all reach every position: no single mean is right.
        if layer is not None and layer.uniform:
            yield layer


def _is_constant_normalisation(graph: Graph, node: Node) -> bool:
    found = affine(node)
    return (
        found is not None
        and found.fixed
        and found.held(found.scale, found.shift, found.mean, found.variance)
        and node.outputs[0] in graph.shapes.extents
    )


def _affine(node: Node) -> Affine:
    found = affine(node)
    assert found is not None, "is_reestimable has seen to it"
    return found


def _draw(graph: Graph, node: Node, seed: int) -> NDArray[np.float32]:
    """The output of a BatchNormalization: per channel, quantiles of the normal distribution in random order."""
    shape = list(node.shape(node.outputs[0]))
    open_batch = all((name, 0) in graph.shapes.dynamic for name in graph.inputs)
    values = int(np.prod(shape[2:]))
    if open_batch:
        shape[0] = max(1, -(-_FEWEST_VALUES // max(values, 1)))
    count = shape[0] * values
    quantiles = ndtri((np.arange(count) + 0.5) / count)
    if count > 1:
        quantiles /= quantiles.std()
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.broadcast_to(quantiles, (shape[1], count)), axis=1)
    found = _affine(node)
    scale, shift = (graph.model.weights[node.inputs[i]].array.astype(np.float64) for i in (found.scale, found.shift))
    drawn = shift[:, None] + np.abs(scale)[:, None] * order
    return np.asarray(np.moveaxis(drawn.reshape(shape[1], shape[0], *shape[2:]), 0, 1), dtype=np.float32)


def _between(model: Model, graph: Graph, nodes: list[int], inputs: list[str], outputs: list[str]) -> Model:
    """What lies between the normalisations and the layers, as a model of its own."""
    needed, chosen = set(outputs), []
    for index in reversed(nodes):
        node = graph.nodes[index]
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            chosen.append(index)
    constant = [n for n in graph.nodes if n.outputs and n.outputs[0] in graph.constants and n.outputs[0] in needed]
    if constant:
        raise VerificationError(f"{constant[0]} computes a constant; normalise the model first")
    ranks = {name: len(graph.shapes.extents[name]) for name in inputs}
    return model.piece(
        [graph.nodes[index].proto for index in chosen[::-1]],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * rank) for name, rank in ranks.items()],
        [helper.make_tensor_value_info(name, graph.shapes.elem_types[name], None) for name in outputs],
        {name: weight for name, weight in model.weights.items() if name in needed},
    )


def reestimate(walk: Walk, node: Node) -> None:
    """Set a BatchNormalization's mean and variance to what its input has on the samples.

    A constant input keeps the variance it had: nothing would be known about its scale.
    """
    source = node.inputs[0]
    walk.pruned.advance(node.index, (source,))
    values = walk.pruned.values(source)
    channels = values[0].shape[1]
    rows = [np.moveaxis(value, 1, -1).reshape(-1, channels).astype(np.float64) for value in values]
    count = sum(len(row) for row in rows)
    mean = sum(row.sum(axis=0) for row in rows) / count
    variance = sum(np.square(row - mean).sum(axis=0) for row in rows) / count
    walk.pruned.drop(source)
    proto = walk.draft.graph.node[node.index]
    found = _affine(node)
    for place, value in ((found.mean, mean), (found.variance, variance)):
        name = proto.input[place]
        weight = walk.draft.weights[name]
        if place == found.variance:
            value = np.where(variance > 0, variance, weight.array)
        array = np.asarray(value).astype(weight.dtype)
        if sum(list(other.input).count(name) for other in walk.draft.graph.node) > 1:
            proto.input[place] = walk.draft.add_weight(walk.draft.unique_name(name), array).name
        else:
            walk.draft.weights[name] = weight.with_array(array)


def is_reestimable(graph: Graph, node: Node) -> bool:
    """Whether a node is a BatchNormalization with constant statistics."""
    return _is_constant_normalisation(graph, node)
