"""Fold constant factors and shifts of channels into convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.weights import Array
from onnxprune.passes._layers import Fold, apply_fold, drop_unused, put
from onnxprune.passes.base import Pass, PassResult, until_settled

_LAYERS = ("Conv", "ConvTranspose")
_KINDS = ("Mul", "Div", "Add", "Sub")


class FoldAffine(Pass):
    """Fold Mul, Div, Add and Sub with constants into the Conv or ConvTranspose before or the Conv behind.

    Each has one reader, and its constant is a number, or one for each channel. Of two factors in a row one is left,
    and a shift goes into a Conv behind only where that pads nothing.
    """

    name = "fold_affine"

    def run(self, model: Model) -> PassResult:
        """Fold what can be folded, until nothing is left to fold."""
        return until_settled(model, _round)


@dataclass(frozen=True)
class _Affine:
    """A node that multiplies its operand ``source`` by ``scale`` and then adds ``shift``; both broadcast to it."""

    node: int
    source: str
    output: str
    scale: Array
    shift: Array


def _round(model: Model) -> Model | None:
    """The model with some of the nodes folded, no two of which touch; None if there are none."""
    graph = model.derived(Graph)
    draft, touched, dead, renamed = model.edit(), set[int](), set[int](), dict[str, str]()
    for affine in _affines(graph):
        before = graph.producer.get(affine.source, -1)
        behind = graph.slots.get(affine.output, ())
        alone = len(graph.slots[affine.source]) == 1 and affine.source not in graph.fixed
        if affine.node in touched:
            continue
        if alone and before not in touched and _into_before(model, draft, graph, affine, before):
            touched.update((affine.node, before))
            dead.add(affine.node)
            renamed[affine.source] = affine.output
        elif len(behind) == 1 and affine.output not in graph.fixed and behind[0][0] not in touched:
            reader, slot = behind[0]
            if _into_behind(model, draft, graph, affine, graph.nodes[reader], slot):
                touched.update((affine.node, reader, before))
                dead.add(affine.node)
                draft.graph.node[reader].input[slot] = affine.source
    if not dead:
        return None
    draft.remove_nodes(dead)
    draft.rename(renamed)
    # Where a factor takes another one in, its constant is another one, too.
    drop_unused(model, draft, graph, dead | touched)
    return draft.finish()


def _affines(graph: Graph) -> Iterator[_Affine]:
    for kind in _KINDS:
        for index in graph.kinds.get(kind, ()):
            node = graph.nodes[index]
            held = [at for at, name in enumerate(node.inputs) if name in graph.model.weights]
            if len(held) != 1 or (held[0] == 0 and kind in ("Div", "Sub")):
                continue
            weight = graph.model.weights[node.inputs[held[0]]]
            if weight.dtype.kind != "f":
                continue
            value = weight.array.astype(np.float64)
            if kind == "Div" and not value.all():
                continue
            scale = {"Mul": value, "Div": 1 / value if kind == "Div" else value}.get(kind, np.ones_like(value))
            shift = {"Add": value, "Sub": -value}.get(kind, np.zeros_like(value))
            yield _Affine(index, node.inputs[1 - held[0]], node.outputs[0], scale, shift)


def _per_channel(value: Array, rank: int, channels: int) -> Array | None:
    """What broadcasts over [N, C, ...] as a number for each channel [C]; None where it differs elsewhere, too."""
    if value.ndim > rank:
        return None
    extents: tuple[int, ...] = (1,) * (rank - value.ndim) + value.shape
    if value.size != extents[1] or extents[1] not in (1, channels):
        return None
    return np.broadcast_to(value.reshape(-1), (channels,))


def _into_before(model: Model, draft: Draft, graph: Graph, affine: _Affine, before: int) -> bool:
    """Let the layer that makes the operand do it. Says whether that can be."""
    if before < 0 or graph.nodes[before].op_type not in _LAYERS or graph.nodes[before].domain:
        return False
    layer = graph.nodes[before]
    if any(name and name not in model.weights for name in layer.inputs[1:]):
        return False
    shape = model.weights[layer.inputs[1]].shape
    channels = shape[0] if layer.op_type == "Conv" else shape[1] * int(layer.attr("group", 1))
    scale, shift = (_per_channel(value, len(shape), channels) for value in (affine.scale, affine.shift))
    if scale is None or shift is None:
        return False
    apply_fold(model, draft, graph, Fold(affine.node, before, scale, shift))
    return True


def _into_behind(model: Model, draft: Draft, graph: Graph, affine: _Affine, reader: Node, slot: int) -> bool:
    """Let what reads the result do it: a Conv, or another factor. Says whether that can be."""
    if reader.domain or (not affine.shift.any() and reader.op_type in ("Mul", "Div")):
        return not reader.domain and _into_factor(model, draft, graph, affine, reader, slot)
    if reader.op_type != "Conv" or slot or any(name and name not in model.weights for name in reader.inputs[1:]):
        return False
    held = model.weights[reader.inputs[1]]
    groups = int(reader.attr("group", 1))
    channels = held.shape[1] * groups
    scale, shift = (_per_channel(value, len(held.shape), channels) for value in (affine.scale, affine.shift))
    padded = any(reader.attr("pads", ())) or reader.attr("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if scale is None or shift is None or (padded and shift.any()):
        return False
    weight = held.array.astype(np.float64)
    # [group, filters, channels of the group, kernel]
    split = weight.reshape(groups, held.shape[0] // groups, held.shape[1], -1)
    added = (split.sum(axis=3) * shift.reshape(groups, 1, -1)).sum(axis=2).reshape(-1)
    factors = scale.reshape(groups, 1, -1, 1)
    node = draft.graph.node[reader.index]
    node.input[1] = put(draft, graph, held, (split * factors).reshape(held.shape))
    if added.any():
        if len(node.input) > 2 and node.input[2]:
            old = model.weights[node.input[2]]
            node.input[2] = put(draft, graph, old, old.array.astype(np.float64) + added)
        else:
            del node.input[2:]
            base = draft.unique_name(f"{held.name.removesuffix('.weight')}.bias")
            node.input.append(draft.add_weight(base, added.astype(held.dtype)).name)
    return True


def _into_factor(model: Model, draft: Draft, graph: Graph, affine: _Affine, reader: Node, slot: int) -> bool:
    """Let a Mul or Div by a constant do it."""
    other = reader.inputs[1 - slot]
    if other not in model.weights or (reader.op_type == "Div" and slot):
        return False
    held = model.weights[other]
    value = held.array.astype(np.float64)
    product = value * affine.scale if reader.op_type == "Mul" else value / affine.scale
    if product.shape not in (value.shape, affine.scale.shape) or not np.isfinite(product).all():
        return False
    weight = draft.add_weight(draft.unique_name(f"{other}_folded"), product.astype(held.dtype))
    draft.graph.node[reader.index].input[1 - slot] = weight.name
    return True
