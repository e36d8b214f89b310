"""Fold BatchNormalization into the layer before it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from onnx import NodeProto

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ops.normalization import BatchNormalization
from onnxprune.passes._layers import Fold, apply_fold, attribute, drop_unused
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
            apply_fold(model, draft, graph, fold)
        dead = {fold.norm for fold in found}
        draft.remove_nodes(dead)
        draft.rename({graph.nodes[f.layer].outputs[0]: graph.nodes[f.norm].outputs[0] for f in found})
        drop_unused(model, draft, graph, dead)
        return PassResult(draft.finish(), modified=True)


def _fold(model: Model, graph: Graph, norm: int, layers: Mapping[str, int]) -> Fold | None:
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
    return Fold(norm, layer, factor, bias - mean * factor)


def _normalises_channels(node: NodeProto) -> bool:
    """Whether it is the usual form: fixed statistics, one per channel, one output."""
    outputs = [name for name in node.output if name]
    return len(outputs) == 1 and not attribute(node, "training_mode", 0) and bool(attribute(node, "spatial", 1))


def _has_plain_bias(layer: NodeProto) -> bool:
    return layer.op_type != "Gemm" or len(layer.input) < 3 or attribute(layer, "beta", 1.0) == 1.0
