"""Merge linear layers that follow each other or add up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.model import Draft, Model
from onnxprune.ops.convolution import ConvLayer, ConvTransposeLayer
from onnxprune.ops.layers import affine, linear_layer
from onnxprune.ops.linear import LinearLayer, MatrixLayer
from onnxprune.ops.substitutes import is_sum
from onnxprune.passes._kernels import FloatArray, Kernel, identity, in_parallel, in_series, macs, scaling
from onnxprune.passes._layers import drop_unused
from onnxprune.passes.base import Pass, PassResult, until_settled

_SINGLE = 4
"""Bytes of a number, at least: products of half precision would be rounded otherwise than one after another."""


class MergeLinear(Pass):
    """Merge Conv after Conv, product after product, and sums of such layers of one input, where that is cheaper.

    With nothing between but constant shifts and normalisations by constants; an input that is added to what a layer
    makes of it (a skip) goes into the layer's weights. Nothing is merged that takes more products than its parts, or
    that zeros at the edges would change. Train before merging: merged layers have no normalisations to learn from.
    """

    name = "merge_linear"

    def run(self, model: Model) -> PassResult:
        """Merge until nothing is left to merge."""
        return until_settled(model, _round)


@dataclass(frozen=True)
class _Part:
    """Nodes that together are one linear layer, from ``source`` to ``output``; none is the identity.

    ``products`` are those of one run. The kernel is made where it is asked for: most layers have no linear neighbour.
    """

    nodes: tuple[int, ...]
    source: str
    output: str
    products: int
    make: Callable[[], Kernel | None]


def _round(model: Model) -> Model | None:
    """The model with some of the layers merged, no two of which touch; None if there are none."""
    graph = model.derived(Graph)
    draft, dead, new = model.edit(), set[int](), dict[int, list[NodeProto]]()
    for part, kernel in _merged(graph):
        if dead.isdisjoint(part.nodes):
            dead.update(part.nodes)
            new[max(part.nodes)] = _nodes(draft, graph, part, kernel)
    if not new:
        return None
    nodes: list[NodeProto] = []
    for index, proto in enumerate(draft.graph.node):
        if index in new or index not in dead:
            for one in new.get(index, [proto]):
                kept = NodeProto()
                kept.CopyFrom(one)
                nodes.append(kept)
    del draft.graph.node[:]
    draft.graph.node.extend(nodes)
    made = {name for one in nodes for name in one.output}
    gone = {name for index in dead for name in graph.nodes[index].outputs} - made
    values = [value for value in draft.graph.value_info if value.name not in gone]
    del draft.graph.value_info[:]
    draft.graph.value_info.extend(values)
    drop_unused(model, draft, graph, dead)
    return draft.finish()


def _merged(graph: Graph) -> Iterator[tuple[_Part, Kernel]]:
    """Single layers that can stand for what is there, and are no dearer; the longest chains first."""
    parts = {part.output: part for node in graph.nodes if (part := _part(graph, node)) is not None}
    for node in reversed(graph.nodes):
        found = _sum(graph, node, parts) if is_sum(node) else None
        if found is None and node.outputs and node.outputs[0] in parts:
            found = _chain(graph, parts[node.outputs[0]], parts)
        if found is not None:
            yield found


def _part(graph: Graph, node: Node) -> _Part | None:
    """What a node is as a linear layer; with a constant shift, what the two are."""
    if not node.outputs or graph.shapes.extents.get(node.outputs[0]) is None:
        return None
    if node.op_type == "Add" and not node.domain:
        return _shifted(graph, node)
    made = graph.shapes.extents[node.outputs[0]]
    layer = linear_layer(node)
    if layer is not None:
        weight = graph.model.weights[layer.weight]
        # A transposed convolution is no convolution of the same weight.
        convolves = isinstance(layer, ConvLayer) and not isinstance(layer, ConvTransposeLayer)
        unpadded = isinstance(layer, ConvLayer) and layer.pads is None
        if not (isinstance(layer, MatrixLayer) or convolves) or unpadded or weight.dtype.itemsize < _SINGLE:
            return None
        products = math.prod(made) // made[layer.out_dim] * weight.array.size
        return _Part((node.index,), layer.input, layer.output, products, partial(_layer, graph, node, layer))
    # Statistics may be of another type than what is normalised.
    held = [graph.model.weights[name] for name in node.inputs[1:] if name in graph.model.weights]
    types = {weight.elem_type for weight in held} | {graph.shapes.elem_types.get(node.outputs[0])}
    if affine(node) is None or len(made) < 3 or len(types) > 1 or any(w.dtype.itemsize < _SINGLE for w in held):
        return None
    return _Part((node.index,), node.inputs[0], node.outputs[0], math.prod(made), partial(_normalising, graph, node))


def _layer(graph: Graph, node: Node, layer: LinearLayer) -> Kernel | None:
    """A layer whose bias, if it has one, is constant."""
    value = graph.model.weights[layer.weight].array.astype(np.float64)
    filters = graph.shapes.extents[layer.output][layer.out_dim]
    bias: FloatArray | None = np.zeros(filters)
    if layer.bias >= 0 and node.has_input(layer.bias):
        bias = _vector(graph, node.inputs[layer.bias], filters)
    if bias is None:
        return None
    bias = bias * float(node.attr("beta", 1.0))
    if isinstance(layer, MatrixLayer):
        return Kernel(np.swapaxes(layer.matrix(value), 1, 2), bias, (), (), ())
    assert isinstance(layer, ConvLayer)
    assert layer.pads is not None
    rank = len(layer.kernel)
    both = tuple(zip(layer.pads[:rank], layer.pads[rank:], strict=True))
    weight = value.reshape(layer.groups, -1, *value.shape[1:])
    return Kernel(weight, bias, layer.strides, layer.dilations, both)


def _vector(graph: Graph, name: str, extent: int) -> FloatArray | None:
    """A constant that has a number for each position of a last dimension of this extent; None where it has not."""
    held = graph.model.weights.get(name)
    if held is None or held.dtype.kind != "f" or held.shape[-1:] != (extent,) or held.array.size != extent:
        return None
    found: FloatArray = held.array.astype(np.float64).reshape(-1)
    return found


def _shifted(graph: Graph, node: Node) -> _Part | None:
    """A product of matrices and a constant that is added to it."""
    held = [name for name in node.inputs if name in graph.model.weights]
    if len(held) != 1:
        return None
    other = next(name for name in node.inputs if name != held[0])
    before = _only(graph, other)
    layer = None if before is None else linear_layer(before)
    part = _part(graph, before) if before is not None and isinstance(layer, MatrixLayer) else None
    values = _vector(graph, held[0], graph.shapes.extents[node.outputs[0]][-1])
    if part is None or values is None or graph.shapes.extents.get(other) != graph.shapes.extents[node.outputs[0]]:
        return None

    def make() -> Kernel | None:
        kernel = part.make()
        return None if kernel is None else replace(kernel, bias=kernel.bias + values)

    return _Part((*part.nodes, node.index), part.source, node.outputs[0], part.products, make)


def _normalising(graph: Graph, node: Node) -> Kernel | None:
    """A normalisation by constants, over maps."""
    found = affine(node)
    gain = None if found is None else found.gain()
    if found is None or gain is None or not found.held(found.shift, found.mean):
        return None
    shift, mean = (graph.model.weights[node.inputs[at]].array.astype(np.float64) for at in (found.shift, found.mean))
    return scaling(gain, shift - mean * gain, len(node.out_shape()) - 2)


def _only(graph: Graph, name: str) -> Node | None:
    """The node that makes a tensor which is read once."""
    if name not in graph.producer or name in graph.fixed or len(graph.slots[name]) != 1:
        return None
    return graph.nodes[graph.producer[name]]


def _chain(graph: Graph, second: _Part, parts: Mapping[str, _Part]) -> tuple[_Part, Kernel] | None:
    """A layer and the one before it as one."""
    first = parts.get(second.source) if _only(graph, second.source) is not None else None
    return None if first is None else _cheaper(graph, first, second, in_series, (), second.output)


def _sum(graph: Graph, node: Node, parts: Mapping[str, _Part]) -> tuple[_Part, Kernel] | None:
    """Two layers of the same input whose outputs are added, or a layer whose input is added to its output, as one."""
    output = node.outputs[0]
    if any(graph.shapes.extents.get(name) != graph.shapes.extents.get(output) for name in node.inputs):
        return None
    found = {name: parts[name] for name in node.inputs if name in parts and _only(graph, name) is not None}
    for name, part in found.items():
        other = next(other for other in node.inputs if other != name)
        if other == part.source:
            # A skip: what is added is the identity of what the layer reads.
            skip = _Part((), other, other, 0, lambda: None)
            return _cheaper(graph, part, skip, in_parallel, (node.index,), output)
        if other in found and found[other].source == part.source:
            return _cheaper(graph, part, found[other], in_parallel, (node.index,), output)
    return None


def _cheaper(
    graph: Graph,
    first: _Part,
    second: _Part,
    join: Callable[[Kernel, Kernel], Kernel | None],
    more: tuple[int, ...],
    output: str,
) -> tuple[_Part, Kernel] | None:
    """Both as one, where that takes no more products than they do."""
    made = graph.shapes.extents[output]
    kernel = first.make()
    if kernel is None:
        return None
    other = second.make() if second.nodes else identity(kernel)
    if other is None or len(kernel.window) != len(other.window):
        return None
    joint = join(kernel, other)
    if joint is None or macs(joint, made) > first.products + second.products:
        return None
    nodes = (*first.nodes, *second.nodes, *more)
    return _Part(nodes, first.source, output, macs(joint, made), lambda: joint), joint


def _nodes(draft: Draft, graph: Graph, part: _Part, kernel: Kernel) -> list[NodeProto]:
    """The nodes of a merged layer."""
    output = part.output
    last = graph.nodes[max(part.nodes)]
    dtype = next(
        graph.model.weights[name].dtype
        for index in part.nodes
        for name in graph.nodes[index].inputs
        if name in graph.model.weights
    )
    name = last.proto.name or output
    bias = ""
    if kernel.bias.any():
        bias = draft.add_weight(draft.unique_name(f"{output}_bias"), kernel.bias.astype(dtype)).name
    if kernel.window:
        weight = kernel.weight.reshape(kernel.filters, *kernel.weight.shape[2:])
        held = draft.add_weight(draft.unique_name(f"{output}_weight"), np.ascontiguousarray(weight, dtype)).name
        pads = [pad for side in (0, 1) for pad in (both[side] for both in kernel.pads)]
        how: dict[str, Any] = {
            "strides": kernel.strides,
            "dilations": kernel.dilations,
            "pads": pads,
            "group": kernel.groups,
        }
        inputs = [part.source, held, *([bias] if bias else [])]
        return [helper.make_node("Conv", inputs, [output], name=name, **how)]
    matrix = np.ascontiguousarray(kernel.weight[0].T, dtype)
    held = draft.add_weight(draft.unique_name(f"{output}_weight"), matrix).name
    if len(graph.shapes.extents[part.source]) == 2 and bias:
        return [helper.make_node("Gemm", [part.source, held, bias], [output], name=name)]
    if not bias:
        return [helper.make_node("MatMul", [part.source, held], [output], name=name)]
    between = draft.unique_name(f"{output}_product")
    return [
        helper.make_node("MatMul", [part.source, held], [between], name=draft.unique_name(f"{name}_product")),
        helper.make_node("Add", [between, bias], [output], name=name),
    ]
