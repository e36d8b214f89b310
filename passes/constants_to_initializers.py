"""Turn Constant nodes into initialisers."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.weights import ExternalFiles, Weight
from onnxprune.passes.base import Pass, PassResult


class ConstantsToInitializers(Pass):
    """Turn Constant nodes into initialisers.

    Paddle's exporter writes every weight as a Constant node. Strings, sparse values, constants inside
    bodies of control flow and those that are graph outputs stay.
    """

    name = "constants_to_initializers"

    def run(self, model: Model) -> PassResult:
        """Move the values of every Constant node of the main graph to the weights."""
        graph = model.derived(Graph)
        found: dict[int, Weight] = {}
        for index in graph.kinds.get("Constant", ()):
            if graph.nodes[index].outputs[0] not in graph.outputs:
                weight = _value(graph.nodes[index].proto)
                if weight is not None:
                    found[index] = weight
        if not found:
            return PassResult(model, modified=False)
        draft = model.edit(without_nodes=found)
        for weight in found.values():
            draft.add(weight)
        return PassResult(draft.finish(), modified=True)


def _value(node: NodeProto) -> Weight | None:
    """The value of a Constant node as a weight of its output's name; None for what stays a node."""
    output = node.output[0]
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            return None
        if attribute.name == "value" and attribute.type == AttributeProto.TENSOR:
            tensor = attribute.t
            if tensor.data_type == TensorProto.STRING or tensor.data_location == TensorProto.EXTERNAL:
                return None
            weight = Weight.from_proto(tensor, ExternalFiles())
            return weight if weight.name == output else weight.renamed(output)
        if attribute.name == "value_float":
            return Weight.from_array(output, np.array(attribute.f, np.float32))
        if attribute.name == "value_floats":
            return Weight.from_array(output, np.array(attribute.floats, np.float32))
        if attribute.name == "value_int":
            return Weight.from_array(output, np.array(attribute.i, np.int64))
        if attribute.name == "value_ints":
            return Weight.from_array(output, np.array(attribute.ints, np.int64))
    return None
