"""Evaluate shape arithmetic that gives the same result for all input shapes."""

from __future__ import annotations

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.weights import Weight
from onnxprune.passes.base import Pass, PassResult

_READS_SHAPES = frozenset({"Shape", "Size"})
# Only these make something fixed of what is not, by leaving the rest out. Whatever else gives the same result for both
# shapes that were tried (H > 500, min(H, 32)) gives another for a third.
_PICKS = frozenset({"Gather", "Slice", "Split"})


class FoldShapes(Pass):
    """Replace shape arithmetic that does not depend on the input shapes by its results.

    Exporters compute Reshape targets, Slice bounds and even scale factors from extents of tensors. Once channels are
    removed these would change with them, so what is fixed is fixed before.
    """

    name = "fold_shapes"

    def run(self, model: Model) -> PassResult:
        """Fold the nodes behind Shape whose values are known and static."""
        graph = model.derived(Graph)
        if _READS_SHAPES.isdisjoint(graph.kinds):
            return PassResult(model, modified=False)
        shapes = graph.shapes
        derived: set[str] = set()
        varying: set[str] = set()
        folded: set[int] = set()
        for index, node in enumerate(graph.nodes):
            reads_shape = not node.domain and node.op_type in _READS_SHAPES
            if not reads_shape and derived.isdisjoint(node.inputs):
                continue
            outputs = [name for name in node.outputs if name]
            derived.update(outputs)
            firm = reads_shape or (not node.domain and node.op_type in _PICKS) or varying.isdisjoint(node.inputs)
            if not firm or any(shapes.static_value(name) is None for name in outputs):
                varying.update(outputs)
            elif set(outputs).isdisjoint(graph.outputs):
                folded.add(index)
        if not folded:
            return PassResult(model, modified=False)
        kept_inputs = {name for i, node in enumerate(graph.nodes) if i not in folded for name in node.reads}
        draft = model.edit(without_nodes=folded)
        for index in sorted(folded):
            for name in graph.nodes[index].outputs:
                value = shapes.static_value(name) if name in kept_inputs else None
                if value is not None:
                    draft.add(Weight.from_array(name, value))
        return PassResult(draft.finish(), modified=True)
