"""Layers whose output is added to another branch: what they can make good for that branch.

Where a residual stream already differs from the original's, the layer that adds to it can take up the difference:
its target becomes the original's sum less the pruned model's other branch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.ir.graph import Graph, Node
from onnxprune.ops.layers import LinearLayer, affine_of
from onnxprune.ops.substitutes import is_sum

_LEAST_GAIN = 1e-3
"""What is multiplied by less cannot make good for anything."""


@dataclass(frozen=True)
class OtherBranch:
    """The tensor added to a layer's output; ``gain`` [N] is what a BatchNormalization between multiplies by.

    ``branch`` is what it is added to and ``total`` the sum, by which the original's other branch is found.
    """

    tensor: str
    branch: str
    total: str
    gain: NDArray[np.float64] | None


def other_branch(graph: Graph, layer: LinearLayer) -> OtherBranch | None:
    """The other operand of the addition behind a layer, if it is computed before the layer; else None."""
    gain: NDArray[np.float64] | None = None
    tensor = layer.output
    reader = only_reader(graph, tensor)
    normalised = affine_of(reader, layer)
    if reader is not None and normalised is not None:
        gain = normalised.gain()
        if gain is None or not (np.abs(gain) > _LEAST_GAIN).all():
            return None
        tensor = reader.outputs[0]
        reader = only_reader(graph, tensor)
    if reader is None or not is_sum(reader):
        return None
    other = next(name for name in reader.inputs if name != tensor)
    extents = graph.shapes.extents
    if other in graph.constants or extents.get(other) != extents.get(tensor) or other not in extents:
        return None
    return OtherBranch(other, tensor, reader.outputs[0], gain) if graph.producer.get(other, -1) < layer.node else None


def only_reader(graph: Graph, tensor: str) -> Node | None:
    """The node that reads a tensor, if no other and no output of the graph does."""
    readers = graph.consumers.get(tensor, [])
    return graph.nodes[readers[0]] if len(readers) == 1 and tensor not in graph.outputs else None
