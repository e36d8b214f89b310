"""Remove nodes and weights that no output depends on."""

from __future__ import annotations

from onnxprune.ir.model import Model
from onnxprune.passes._wiring import wiring
from onnxprune.passes.base import Pass, PassResult


class RemoveUnused(Pass):
    """Remove nodes and weights that no output depends on; the graph's inputs stay."""

    name = "remove_unused"

    def run(self, model: Model) -> PassResult:
        """Keep what outputs, annotations and training graphs reach backwards."""
        names = wiring(model)
        live = {*names.outputs, *names.elsewhere}
        dead_nodes = set()
        for index in reversed(range(len(names.nodes))):
            node = names.nodes[index]
            if live.isdisjoint(node.outputs):
                dead_nodes.add(index)
            else:
                live.update(node.reads)
                live.discard("")
        dead_weights = [name for name in model.weights if name not in live]
        if not dead_nodes and not dead_weights:
            return PassResult(model, modified=False)
        draft = model.edit(without_nodes=dead_nodes)
        for name in dead_weights:
            del draft.weights[name]
        # Left as an input, it would have to be fed.
        for index in reversed(range(len(draft.graph.input))):
            name = draft.graph.input[index].name
            if name in model.weights and name not in live:
                del draft.graph.input[index]
        return PassResult(draft.finish(), modified=True)
