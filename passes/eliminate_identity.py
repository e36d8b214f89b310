"""Remove Identity nodes."""

from __future__ import annotations

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.passes.base import Pass, PassResult


class EliminateIdentity(Pass):
    """Remove Identity nodes; their users refer to the original tensor or initialiser.

    Graph outputs keep their names. An Identity stays where both its tensors have names that must not change.
    """

    name = "eliminate_identity"

    def run(self, model: Model) -> PassResult:
        """Remove every Identity of the main graph that can go."""
        graph = model.derived(Graph)
        dead, renamed = _decide(graph)
        if not dead:
            return PassResult(model, modified=False)
        draft = model.edit(without_nodes=dead)
        draft.rename({name: _now(name, renamed) for name in renamed})
        return PassResult(draft.finish(), modified=True)


def _decide(graph: Graph) -> tuple[list[int], dict[str, str]]:
    """The Identity nodes that go, and for each name that goes with them the one that takes its place."""
    dead: list[int] = []
    renamed: dict[str, str] = {}
    identities = graph.kinds.get("Identity", ())
    made = {output for node in graph.nodes for output in node.outputs} if identities else set()
    for index in identities:
        source, result = _now(graph.nodes[index].inputs[0], renamed), graph.nodes[index].outputs[0]
        if result not in graph.fixed:
            renamed[result] = source
        elif source in made and source not in graph.fixed:
            renamed[source] = result
        else:
            continue
        dead.append(index)
    return dead, renamed


def _now(name: str, renamed: dict[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name
