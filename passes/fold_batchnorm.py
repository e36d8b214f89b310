"""Fold BatchNormalization into the layer before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, helper

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.weights import Array, Weight
from onnxprune.ops.normalization import BatchNormalization
from onnxprune.passes.base import Pass, PassResult

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


class FoldBatchnorm(Pass):
    """Fold BatchNormalization into the Conv, ConvTranspose or Gemm before it, which gets its bias.

    The layer must have no other reader. Train before folding: a folded layer has no statistics to learn from.
    """

    name = "fold_batchnorm"

    def __init__(self, only: Collection[str] | None = None) -> None:
        """Args:
        only: the outputs of the BatchNormalizations to fold; None folds all.
        """
        self._only = only

    def run(self, model: Model) -> PassResult:
        """Fold every BatchNormalization that can be folded."""
        graph = model.derived(Graph)
        layers = {graph.nodes[i].outputs[0]: i for kind in _LAYERS for i in graph.kinds.get(kind, ())}
        norms = graph.kinds.get("BatchNormalization", ())
        if self._only is not None:
            norms = [index for index in norms if graph.nodes[index].outputs[0] in self._only]
        found = [fold for index in norms if (fold := _fold(model, graph, index, layers)) is not None]
        if not found:
            return PassResult(model, modified=False)
        draft = model.edit()
        for fold in found:
            _apply(model, draft, graph, fold)
        dead = {fold.norm for fold in found}
        draft.remove_nodes(dead)
        draft.rename({graph.nodes[f.layer].outputs[0]: graph.nodes[f.norm].outputs[0] for f in found})
        _drop_unused(model, draft, graph, dead)
        return PassResult(draft.finish(), modified=True)


@dataclass(frozen=True)
class _Fold:
    """One BatchNormalization (``norm``) and the layer before it, as node indices.

    ``scale`` multiplies the layer's output channels, then ``shift`` is added.
    """

    norm: int
    layer: int
    scale: Array
    shift: Array


def _fold(model: Model, graph: Graph, norm: int, layers: Mapping[str, int]) -> _Fold | None:
    node = model.graph.node[norm]
    source = node.input[0]
    layer = layers.get(source)
    if layer is None or len(graph.slots[source]) != 1 or source in graph.fixed or not _normalises_channels(node):
        return None
    if any(name not in model.weights for name in node.input[1:5]):
        return None
    layer_node = model.graph.node[layer]
    operands = [name for name in layer_node.input[1:] if name]
    if any(name not in model.weights for name in operands) or not _has_plain_bias(layer_node):
        return None
    factor = BatchNormalization().affine(graph.nodes[norm]).gain()
    assert factor is not None, "it is the usual form"
    bias, mean = (model.weights[name].array.astype(np.float64) for name in node.input[2:4])
    return _Fold(norm, layer, factor, bias - mean * factor)


def _normalises_channels(node: NodeProto) -> bool:
    """Whether it is the usual form: fixed statistics, one per channel, one output."""
    outputs = [name for name in node.output if name]
    return len(outputs) == 1 and not _attribute(node, "training_mode", 0) and bool(_attribute(node, "spatial", 1))


def _has_plain_bias(layer: NodeProto) -> bool:
    return layer.op_type != "Gemm" or len(layer.input) < 3 or _attribute(layer, "beta", 1.0) == 1.0


def _attribute(node: NodeProto, name: str, default: float) -> float:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else float(helper.get_attribute_value(found))


def _apply(model: Model, draft: Draft, graph: Graph, fold: _Fold) -> None:
    node = draft.graph.node[fold.layer]
    weight = model.weights[node.input[1]]
    scaled = _scaled(node, weight.array.astype(np.float64), fold.scale)
    node.input[1] = _put(draft, graph, weight, scaled)
    if len(node.input) > 2 and node.input[2]:
        old = model.weights[node.input[2]]
        shift = fold.shift + old.array.astype(np.float64) * fold.scale
        node.input[2] = _put(draft, graph, old, np.broadcast_to(shift, np.broadcast_shapes(shift.shape, old.shape)))
    else:
        base = f"{weight.name.removesuffix('.weight')}.bias"
        bias = draft.add_weight(draft.unique_name(base), fold.shift.astype(weight.dtype))
        del node.input[2:]
        node.input.append(bias.name)


def _scaled(layer: NodeProto, weight: Array, factor: Array) -> Array:
    """The weight with each output channel multiplied."""
    if layer.op_type == "Conv":
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    if layer.op_type == "Gemm":
        return weight * (factor[:, None] if _attribute(layer, "transB", 0) else factor)
    # ConvTranspose holds (in, out / group, ...): each group of inputs has output channels of its own.
    groups = int(_attribute(layer, "group", 1))
    split = weight.reshape(groups, -1, *weight.shape[1:])
    product: Array = split * factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return product.reshape(weight.shape)


def _put(draft: Draft, graph: Graph, old: Weight, values: Array) -> str:
    """New values for a weight, under its name, or under another if others read it; returns the name."""
    array = np.ascontiguousarray(values.astype(old.dtype))
    if len(graph.slots[old.name]) == 1 and old.name not in graph.fixed:
        draft.weights[old.name] = old.with_array(array)
        return old.name
    return draft.add(old.with_array(array).renamed(draft.unique_name(old.name))).name


def _drop_unused(model: Model, draft: Draft, graph: Graph, dead: set[int]) -> None:
    """Remove the vectors that only removed nodes read."""
    used = {name for node in draft.graph.node for name in node.input}
    read = {name for index in dead for name in model.graph.node[index].input}
    draft.remove_weights({n for n in read if n in draft.weights and n not in used and n not in graph.fixed})
