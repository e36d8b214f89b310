"""Branches that join where nobody reads what they bring: they go, and all that only fed them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.model import Model
from onnxprune.ir.shapes import Shapes, infer_shapes
from onnxprune.passes.eliminate_identity import EliminateIdentity
from onnxprune.passes.remove_unused import RemoveUnused

PassesOn = Callable[[Node, Shapes, int], bool]
"""Whether a node of one operand gives for every position of an axis what it makes of that position."""


def without_unread(model: Model, chosen: str, passes_on: PassesOn) -> tuple[Model, int]:
    """The model without the branches of which a Gather picks nothing, and how many positions went with them.

    Args:
        model: with a Gather by constant positions.
        chosen: what it makes.
        passes_on: what may stand between the Gather and the Concat that joins the branches.
    """
    graph, shapes = model.derived(Graph), infer_shapes(model)
    gather = graph.nodes[graph.producer[chosen]]
    axis = int(gather.attr("axis", 0))
    if len(gather.inputs) != 2 or gather.inputs[1] not in model.weights:
        return model, 0
    name = gather.inputs[0]
    while len(graph.consumers.get(name, ())) == 1 and name not in graph.outputs and name in graph.producer:
        node = graph.nodes[graph.producer[name]]
        if node.op_type == "Concat" and not node.domain:
            return _trimmed(model, shapes, gather, node, axis)
        if not passes_on(node, shapes, axis):
            break
        name = node.inputs[0]
    return model, 0


def _trimmed(model: Model, shapes: Shapes, gather: Node, concat: Node, axis: int) -> tuple[Model, int]:
    """With those inputs of the Concat alone that the Gather picks from."""
    extents = [shapes.extents.get(name) for name in concat.inputs]
    rank = len(shapes.extents[concat.outputs[0]])
    if int(concat.attr("axis")) % rank != axis or any(shape is None for shape in extents):
        return model, 0
    if not all(shapes.is_static(name, axis) for name in concat.inputs):
        return model, 0
    weight = model.weights[gather.inputs[1]]
    widths = np.array([shape[axis] for shape in extents if shape is not None])
    ends = np.cumsum(widths)
    branch = np.searchsorted(ends, weight.array, side="right")
    read = np.isin(np.arange(len(widths)), branch)
    if read.all():
        return model, 0
    before = np.concatenate([[0], np.cumsum(np.where(read, widths, 0))])
    positions: NDArray[np.int64] = weight.array - (ends - widths)[branch] + before[branch]
    draft = model.edit()
    index = draft.add_weight(draft.unique_name(f"{gather.outputs[0]}_positions"), positions)
    draft.graph.node[gather.index].input[1] = index.name
    inputs = [name for name, wanted in zip(concat.inputs, read, strict=True) if wanted]
    proto = draft.graph.node[concat.index]
    if len(inputs) > 1:
        del proto.input[:]
        proto.input.extend(inputs)
    else:
        proto.CopyFrom(helper.make_node("Identity", inputs, [concat.outputs[0]], name=proto.name))
    del draft.graph.value_info[:]
    return EliminateIdentity()(RemoveUnused()(draft.finish()).model).model, int(widths[~read].sum())
