"""Drop the recorded shapes of intermediate tensors."""

from __future__ import annotations

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.passes.base import Pass, PassResult


class DropStaleValueInfo(Pass):
    """Drop the recorded shapes of intermediate tensors, which a smaller model makes wrong.

    They are inferred again. Those of operators outside the ONNX standard, which nobody can infer, and
    those in bodies of control flow stay: neither is ever made smaller.
    """

    name = "drop_stale_value_info"

    def run(self, model: Model) -> PassResult:
        """Clear the main graph's value_info."""
        values = model.graph.value_info
        if not values:
            return PassResult(model, modified=False)
        kept_names = {name for node in model.derived(Graph).nodes if node.domain for name in node.outputs}
        kept = [value for value in values if value.name in kept_names]
        if len(kept) == len(values):
            return PassResult(model, modified=False)
        draft = model.edit()
        draft.graph.ClearField("value_info")
        draft.graph.value_info.extend(kept)
        return PassResult(draft.finish(), modified=True)
