"""Give every user of a shared vector a copy of its own."""

from __future__ import annotations

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.passes.base import Pass, PassResult


class UnshareVectors(Pass):
    """Give every user of a shared vector (a bias, a scale, a Reshape target) a copy of its own.

    Exporters share equal vectors between layers that have nothing to do with each other, which would couple
    them. Scalars and matrices stay shared: those were tied on purpose.
    """

    name = "unshare_vectors"

    def run(self, model: Model) -> PassResult:
        """Copy each shared vector for all users but the first, who keeps the name."""
        graph = model.derived(Graph)
        shared = {}
        for name, weight in model.weights.items():
            # What bodies, outputs and annotations refer to by name is used before any node's input.
            slots = graph.slots.get(name, []) if name in graph.fixed else graph.slots.get(name, [])[1:]
            if slots and weight.size > 1 and sum(extent > 1 for extent in weight.shape) == 1:
                shared[name] = slots
        if not shared:
            return PassResult(model, modified=False)
        draft = model.edit()
        for name, slots in shared.items():
            for node, slot in slots:
                copy = draft.add(model.weights[name].renamed(draft.unique_name(name)))
                draft.graph.node[node].input[slot] = copy.name
        return PassResult(draft.finish(), modified=True)
