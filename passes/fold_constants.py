"""Evaluate what depends on constants only."""

from __future__ import annotations

from onnx import TensorProto

from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.model import Model
from onnxprune.ir.protos import integer
from onnxprune.ir.weights import Weight
from onnxprune.ops import default_registry
from onnxprune.passes.base import Pass, PassResult

_NEVER = frozenset(
    {
        # Different in training.
        "Dropout",
        # Quantised weights stay quantised.
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
        # Bodies, and values that are not tensors.
        *("If", "Loop", "Scan", "SequenceMap", "SequenceEmpty", "SequenceConstruct", "SplitToSequence"),
        *("Optional", "OptionalHasElement", "OptionalGetElement"),
        # Another pass removes it, without a copy.
        "Identity",
    }
)
_FLOAT_BITS: dict[int, int] = {
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT: 32,
    TensorProto.DOUBLE: 64,
}


class FoldConstants(Pass):
    """Replace nodes that depend on constants only by their results.

    Caffe2 exports weights as ConstantOfShape nodes, others compute them (weight standardisation, weight
    normalisation). Left alone is what would make the model larger, untie shared matrices, undo
    quantisation or half precision, or is different at every run.
    """

    name = "fold_constants"

    def run(self, model: Model) -> PassResult:
        """Evaluate all such nodes in one onnxruntime session and keep the results that are worth it."""
        graph = model.derived(Graph)
        candidates = _candidates(model, graph)
        if not candidates:
            return PassResult(model, modified=False)
        from onnxprune.passes import _folding  # slow to import, and most graphs do not get here

        candidates = _folding.promising(model, graph, candidates)
        values = _folding.evaluate(model, graph, candidates) if candidates else {}
        known = [index for index in candidates if all(name in values for name in graph.nodes[index].outputs if name)]
        folded = _folding.worthwhile(model, graph, known, {name: value.nbytes for name, value in values.items()})
        if not folded:
            return PassResult(model, modified=False)
        draft = model.edit(without_nodes=folded)
        for index in sorted(folded):
            for name in graph.nodes[index].outputs:
                if name and _folding.is_read_outside(name, graph, folded):
                    draft.add(Weight.from_array(name, values[name]))
        return PassResult(draft.finish(), modified=True)


def _candidates(model: Model, graph: Graph) -> list[int]:
    """The nodes all of whose inputs are constants, in topological order."""
    # Initialisers that are listed as inputs are defaults, which the caller may replace (not so up to IR 3).
    defaults = {value.name for value in model.graph.input} if model.skeleton.ir_version >= 4 else ()
    constants = {name for name in model.weights if name not in defaults}
    constants.add("")
    found = []
    for index, node in enumerate(graph.nodes):
        if (
            not node.domain
            and node.op_type not in _NEVER
            and not _is_drawn(node)
            and any(node.inputs)
            and constants.issuperset(node.inputs)
            and set(node.outputs).isdisjoint(graph.outputs)
            and not (node.op_type == "Cast" and _widens(model, index))
        ):
            found.append(index)
            constants.update(node.outputs)
    return found


def _widens(model: Model, index: int) -> bool:
    """Whether a Cast makes a half-precision weight wider, which would double it."""
    node = model.graph.node[index]
    weight = model.weights.get(node.input[0])
    to = integer(node, "to", 0)
    return weight is not None and weight.size > 1 and _FLOAT_BITS.get(weight.elem_type, 64) < _FLOAT_BITS.get(to, 0)


def _is_drawn(node: Node) -> bool:
    """Whether its results are others in every run."""
    operator = default_registry().find(node)
    return operator is not None and node.op_type in operator.draws
