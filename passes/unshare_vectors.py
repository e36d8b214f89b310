"""Give every user of a shared vector a copy of its own."""

from __future__ import annotations

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes.base import Pass, PassResult


class UnshareVectors(Pass):
    """Give every layer that shares a vector (a bias, a scale, a Reshape target) a copy of its own.

    Exporters share equal vectors between layers that have nothing to do with each other, which would couple
    them. Scalars and matrices stay shared: those were tied on purpose. So does the bias of a layer that is applied
    several times, unrolled over time, say: of nodes that have the same matrix.
    """

    name = "unshare_vectors"

    def run(self, model: Model) -> PassResult:
        """Copy each shared vector for all layers but the first, which keeps the name."""
        graph = model.derived(Graph)
        copied: dict[str, list[tuple[str, int, int]]] = {}
        for name, weight in model.weights.items():
            slots = graph.slots.get(name, [])
            if len(slots) <= (name not in graph.fixed) or weight.size <= 1 or _long_axes(weight) != 1:
                continue
            layers = [_layer(graph, node, slot) for node, slot in slots]
            # What bodies, outputs and annotations refer to by name is used before any node's input.
            first = None if name in graph.fixed else layers[0]
            copied[name] = [(str(layer), *place) for layer, place in zip(layers, slots, strict=True) if layer != first]
        copied = {name: uses for name, uses in copied.items() if uses}
        if not copied:
            return PassResult(model, modified=False)
        draft = model.edit()
        for name, uses in copied.items():
            copies: dict[str, str] = {}
            for layer, node, slot in uses:
                if layer not in copies:
                    copies[layer] = draft.add(model.weights[name].renamed(draft.unique_name(name))).name
                draft.graph.node[node].input[slot] = copies[layer]
        return PassResult(draft.finish(), modified=True)


def _long_axes(weight: Weight) -> int:
    return sum(extent > 1 for extent in weight.shape)


def _layer(graph: Graph, index: int, slot: int) -> object:
    """What uses a vector in a slot: the operator and its weights if there is a matrix among them, else the node."""
    node, weights = graph.nodes[index], graph.model.weights
    fixed = tuple((place, name) for place, name in enumerate(node.inputs) if name in weights)
    scaled = tuple((place, name) for place, name in enumerate(node.inputs) if place and _has_matrix(graph, name))
    if scaled or any(_long_axes(weights[name]) > 1 for _, name in fixed):
        return node.domain, node.op_type, fixed, scaled, slot
    return index, slot


def _has_matrix(graph: Graph, name: str) -> bool:
    """Whether a tensor is computed from a matrix that is a weight, as one times a mask is."""
    maker = graph.producer.get(name)
    weights = graph.model.weights
    return maker is not None and any(
        name in weights and _long_axes(weights[name]) > 1 for name in graph.nodes[maker].inputs
    )
