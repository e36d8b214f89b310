"""Letting regions of a graph give way to something cheaper, as a plan names them.

The new layers hold random weights, always the same for the same plan: what they should be is fitted later, like all
that compensation fits, or trained. Nothing else changes: every other node and every name stays.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper

from onnxprune.errors import PlanError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.regions import Regions
from onnxprune.ops.layers import linear_layer
from onnxprune.ops.substitutes import RESIZED, Substitute, factors, is_sum, substitute
from onnxprune.passes.remove_unused import RemoveUnused
from onnxprune.pruning.plan import Replacement
from onnxprune.pruning.resizing import resized


@dataclass(frozen=True)
class Place:
    """A replacement in a graph: its nodes, the layers that come instead, and what is read instead.

    ``reads`` maps a tensor that is not made any more to the one that is read in its place.
    """

    replacement: Replacement
    nodes: tuple[int, ...]
    layers: tuple[Substitute, ...]
    reads: Mapping[str, str]


def place(graph: Graph, regions: Regions, replacement: Replacement) -> Place:
    """See what a replacement means for a graph.

    Raises:
        PlanError: there is no such region, or nothing of the kind can stand for it.
    """
    entry, exit, kind = replacement.entry, replacement.exit, replacement.kind
    nodes = regions.between(entry, exit)
    extents = graph.shapes.extents
    if entry not in extents or exit not in extents:
        raise PlanError(f"region {replacement}: the shape of its ends is not known")
    if extents[exit][:1] != extents[entry][:1]:
        raise PlanError(f"region {replacement}: its ends have different numbers of samples")
    if kind == "nothing":
        return _ended(graph, replacement, nodes)
    types = {graph.shapes.elem_types.get(name) for name in (entry, exit)}
    if kind == "identity":
        if extents[entry] != extents[exit] or exit in graph.fixed or len(types) > 1:
            raise PlanError(
                f"region {replacement}: the entry cannot stand for the exit, which has another shape or name"
            )
        return Place(replacement, nodes, (), {exit: entry})
    if not types <= {TensorProto.FLOAT, TensorProto.FLOAT16}:
        raise PlanError(f"region {replacement}: a layer stands between floats, and its ends are none")
    dims = channel_dims(graph, nodes)
    known = (d for d in range(len(extents[entry])) if (entry, d) in graph.shapes.dynamic)
    layers: tuple[Substitute, ...] | None = None
    if dims is not None:
        ends = extents[entry], extents[exit], dims, replacement.kernel
        if kind == "factors":
            layers = factors(*ends, replacement.rank, replacement.inner, frozenset(known))
        elif kind != RESIZED and (one := substitute(kind, *ends, frozenset(known))) is not None:
            layers = (one,)
    if layers is None:
        raise PlanError(
            f"region {replacement}: no such layer makes {list(extents[exit])} of {list(extents[entry])}; "
            "take another kind"
        )
    return Place(replacement, nodes, layers, {})


def channel_dims(graph: Graph, nodes: Sequence[int]) -> tuple[int, int] | None:
    """The dimensions that hold channels at the entry and exit of a region, as its first and last layers say."""
    layers = [layer for index in nodes if (layer := linear_layer(graph.nodes[index])) is not None]
    return (layers[0].in_dim, layers[-1].out_dim) if layers else None


def _ended(graph: Graph, replacement: Replacement, nodes: tuple[int, ...]) -> Place:
    """A branch that ends: what it is added to goes on alone."""
    exit = replacement.exit
    readers = graph.consumers.get(exit, [])
    reader = graph.nodes[readers[0]] if len(readers) == 1 and exit not in graph.fixed else None
    others = [] if reader is None else [name for name in reader.inputs if name != exit]
    extents = graph.shapes.extents
    if reader is None or not is_sum(reader) or others[0] in graph.constants:
        raise PlanError(f"region {replacement}: the branch is not added to another one, which could go on alone")
    made = reader.outputs[0]
    if extents.get(others[0]) != extents.get(made) or made in graph.fixed:
        raise PlanError(f"region {replacement}: '{others[0]}' cannot go on alone as '{made}'")
    return Place(replacement, (*nodes, reader.index), (), {made: others[0]})


def replaced(model: Model, replacements: Sequence[Replacement]) -> Model:
    """A normalised model in which these regions have given way; it is returned as it is if there are none.

    Those that compute on maps of other extents do so first; what is in them may give way then.

    Raises:
        PlanError: a region is not there, two of them overlap, or nothing of the kind can stand for one.
    """
    for one in replacements:
        if one.kind == RESIZED:
            model = resized(model, one)
    replacements = [one for one in replacements if one.kind != RESIZED]
    if not replacements:
        return model
    graph = model.derived(Graph)
    regions = Regions(graph)
    places = [place(graph, regions, one) for one in replacements]
    owner: dict[int, Replacement] = {}
    for found in places:
        for index in found.nodes:
            if index in owner:
                raise PlanError(f"regions {owner[index]} and {found.replacement} overlap; give one of them")
            owner[index] = found.replacement
    draft = model.edit()
    protos = list(draft.graph.node)
    new: dict[int, list[NodeProto]] = {}
    for found in places:
        if found.layers:
            new[graph.producer[found.replacement.exit]] = _nodes(draft, model, found.replacement, found.layers)
    kept = [
        one
        for index, proto in enumerate(protos)
        if index in new or index not in owner
        for one in new.get(index, [proto])
    ]
    reads = {gone: instead for found in places for gone, instead in found.reads.items()}
    for proto in kept:
        for number, name in enumerate(proto.input):
            while name in reads:
                name = reads[name]
            proto.input[number] = name
    made = {name for proto in kept for name in proto.output}
    lost = {name for index in owner for name in protos[index].output} - made
    values = [value for value in draft.graph.value_info if value.name not in lost]
    draft.set_nodes(kept)
    del draft.graph.value_info[:]
    draft.graph.value_info.extend(values)
    return RemoveUnused().run(draft.finish()).model


def _nodes(draft: Draft, model: Model, replacement: Replacement, layers: Sequence[Substitute]) -> list[NodeProto]:
    """The layers with random weights whose outputs are about as large as their inputs."""
    base = f"{replacement.exit}_replaced"
    rng = np.random.default_rng(zlib.crc32(str(replacement).encode()))
    dtype = helper.tensor_dtype_to_np_dtype(model.derived(Graph).shapes.elem_types[replacement.entry]).type
    made, reads = [], replacement.entry
    for number, layer in enumerate(layers, 1):
        last = number == len(layers)
        name = base if last else draft.unique_name(f"{base}_{number}")
        weight = (rng.standard_normal(layer.weight) / math.sqrt(layer.fan_in)).astype(dtype)
        held = draft.add_weight(draft.unique_name(f"{name}_weight"), weight).name
        bias = ""
        if layer.bias is not None:
            values = (rng.standard_normal(layer.bias) / 10).astype(dtype)
            bias = draft.add_weight(draft.unique_name(f"{name}_bias"), values).name
        gives = replacement.exit if last else name
        made.append(layer.node(name, reads, gives, held, bias))
        reads = gives
    return made
