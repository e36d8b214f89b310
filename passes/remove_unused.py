"""Remove nodes and weights that no output depends on."""

from __future__ import annotations

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.passes.base import Pass, PassResult


class RemoveUnused(Pass):
    """Remove nodes and weights that no output depends on; the graph's inputs stay."""

    name = "remove_unused"

    def run(self, model: Model) -> PassResult:
        """Keep what outputs, annotations and training graphs reach backwards."""
        graph = model.derived(Graph)
        live = set(graph.referred)
        dead_nodes = set()
        for node in reversed(graph.nodes):
            if live.isdisjoint(node.outputs):
                dead_nodes.add(node.index)
            else:
                live.update(node.reads)
                live.discard("")
        dead_weights = {name: None for name in model.weights if name not in live}
        if not dead_nodes and not dead_weights:
            return PassResult(model, modified=False)
        draft = model.edit(without_nodes=dead_nodes)
        draft.remove_weights(dead_weights)
        return PassResult(draft.finish(), modified=True)
