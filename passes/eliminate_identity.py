"""Remove Identity nodes."""

from __future__ import annotations

from onnxprune.ir.model import Model
from onnxprune.passes._wiring import Wiring, wiring
from onnxprune.passes.base import Pass, PassResult


class EliminateIdentity(Pass):
    """Remove Identity nodes; their users refer to the original tensor or initialiser.

    Graph outputs keep their names. An Identity stays where both its tensors have names that must not change.
    """

    name = "eliminate_identity"

    def run(self, model: Model) -> PassResult:
        """Remove every Identity of the main graph that can go."""
        names = wiring(model)
        dead, renamed = _decide(names)
        if not dead:
            return PassResult(model, modified=False)
        draft = model.edit()
        nodes = draft.graph.node
        for index, node in enumerate(names.nodes):
            for number, name in enumerate(node.inputs):
                if name in renamed:
                    nodes[index].input[number] = _now(name, renamed)
            for number, name in enumerate(node.outputs):
                if name in renamed:
                    nodes[index].output[number] = _now(name, renamed)
        for index in reversed(dead):
            del nodes[index]
        kept = [value for value in model.graph.value_info if value.name not in renamed]
        draft.graph.ClearField("value_info")
        draft.graph.value_info.extend(kept)
        return PassResult(draft.finish(), modified=True)


def _decide(names: Wiring) -> tuple[list[int], dict[str, str]]:
    """The Identity nodes that go, and for each name that goes with them the one that takes its place."""
    dead: list[int] = []
    renamed: dict[str, str] = {}
    identities = names.kinds.get("Identity", ())
    made = {output for node in names.nodes for output in node.outputs} if identities else set()
    for index in identities:
        source, result = _now(names.nodes[index].inputs[0], renamed), names.nodes[index].outputs[0]
        if not names.is_fixed(result):
            renamed[result] = source
        elif source in made and not names.is_fixed(source):
            renamed[source] = result
        else:
            continue
        dead.append(index)
    return dead, renamed


def _now(name: str, renamed: dict[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name
