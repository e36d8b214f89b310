"""Replace control flow whose way is known by the nodes of its bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, ValueInfoProto, helper

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.protos import body_of, node_title, standard_opset
from onnxprune.ir.weights import ExternalFiles, Weight
from onnxprune.passes.base import Pass, PassResult

_MOST_TURNS = 64
_FIRST_WITH_INPUTS = 13
"""Since this opset, Unsqueeze takes its axes as an operand."""


class ResolveControlFlow(Pass):
    """Replace If of a constant condition by its branch, and short loops over sequences by their turns.

    What crosses the border of control flow has to stay, and what a loop puts into a sequence is not known. Exporters
    write both for what is decided once the input's rank is (a choice by rank, the parts of a tensor); then neither has
    to be. Loops have to have a constant number of turns (at most 64) and no condition of their own; loops that carry
    tensors only stay, for they are much smaller than their turns.
    """

    name = "resolve_control_flow"

    def run(self, model: Model) -> PassResult:
        """Replace what can be replaced in the main graph, bodies inside bodies in later runs."""
        graph = model.derived(Graph)
        if not graph.kinds.keys() & {"If", "Loop"}:
            return PassResult(model, modified=False)
        resolver = _Resolver(model, graph)
        fresh: dict[int, list[NodeProto]] = {}
        for op_type, resolve in (("If", resolver.branch), ("Loop", resolver.turns)):
            for index in graph.kinds.get(op_type, ()):
                nodes = resolve(model.graph.node[index])
                if nodes is not None:
                    fresh[index] = nodes
        return PassResult(resolver.replaced(fresh), modified=True) if fresh else PassResult(model, modified=False)


class _Resolver:
    """Writes bodies of one model into its main graph."""

    def __init__(self, model: Model, graph: Graph) -> None:
        self._model = model
        self._draft: Draft = model.edit()
        self._opset = standard_opset(model.skeleton)
        self._constants = {
            model.graph.node[index].output[0]: model.graph.node[index] for index in graph.kinds.get("Constant", ())
        }
        self._taken = {name for node in graph.nodes for name in node.outputs} | set(model.weights)
        self._taken.update(value.name for value in (*model.graph.input, *model.graph.output))

    def replaced(self, fresh: Mapping[int, Sequence[NodeProto]]) -> Model:
        """The model with these nodes in place of those."""
        nodes = [inner for index, node in enumerate(self._draft.graph.node) for inner in fresh.get(index, (node,))]
        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._draft.graph.node[:]
        self._draft.graph.node.extend(copies)
        return self._draft.finish()

    def branch(self, node: NodeProto) -> list[NodeProto] | None:
        """The nodes of the branch that an If always takes; None if that is not known."""
        condition = self._constant(node.input[0])
        if condition is None or condition.size != 1:
            return None
        body = body_of(node, "then_branch" if condition.item() else "else_branch")
        nodes, results = self._written(body, {}, node_title(node))
        return [*nodes, *self._named(nodes, results, node.output)]

    def turns(self, node: NodeProto) -> list[NodeProto] | None:
        """The nodes of all turns of a Loop; None where they are not known, or where it is better left alone."""
        body = body_of(node, "body")
        count = self._constant(node.input[0]) if node.input[0] else None
        condition = self._constant(node.input[1]) if len(node.input) > 1 and node.input[1] else np.array(True)
        if count is None or condition is None or not condition.item() or not 1 <= count.item() <= _MOST_TURNS:
            return None
        if not any(value.type.HasField("sequence_type") for value in body.input) or not self._goes_on(body):
            return None
        carried = list(node.input[2:])
        stacked: list[list[str]] = [[] for _ in body.output[1 + len(carried) :]]
        label = node_title(node)
        scopes: list[dict[str, str]] = []
        nodes: list[NodeProto] = []
        for turn in range(int(count.item())):
            given = [self._scalar(body.input[0], np.int64(turn)), self._scalar(body.input[1], np.bool_(True)), *carried]
            scopes.append(dict(zip((value.name for value in body.input), given, strict=True)))
            written, results = self._written(body, scopes[-1], f"{label}/{turn}")
            nodes += written
            carried = results[1 : 1 + len(carried)]
            for parts, part in zip(stacked, results[1 + len(carried) :], strict=True):
                parts.append(part)
        nodes += self._named(nodes, carried, node.output[: len(carried)])
        for parts, name in zip(stacked, node.output[len(carried) :], strict=False):
            nodes += self._stack(parts, name) if name else []
        return nodes

    def _goes_on(self, body: GraphProto) -> bool:
        """Whether the condition that a body returns is always true, or the one that it was given."""
        makers = {name: node for node in body.node for name in node.output}
        name = body.output[0].name
        while name in makers and makers[name].op_type == "Identity":
            name = makers[name].input[0]
        if name == body.input[1].name:
            return True
        if name in makers:
            value = _constant_of(makers[name])
        else:
            own = next((t for t in body.initializer if t.name == name), None)
            value = self._constant(name) if own is None else Weight.from_proto(own, ExternalFiles()).array
        return value is not None and value.size == 1 and bool(value.item())

    def _constant(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
        weight = self._model.weights.get(name)
        if weight is not None:
            return weight.array if weight.size == 1 else None
        return _constant_of(self._constants[name]) if name in self._constants else None

    def _scalar(self, declared: ValueInfoProto, value: np.generic) -> str:
        """A constant in place of the turn's number or condition; files may declare them with one dimension."""
        rank = len(declared.type.tensor_type.shape.dim)
        base = self._unique(declared.name)
        return self._draft.add_weight(base, np.array(value).reshape((1,) * rank)).name

    def _written(self, body: GraphProto, names: Mapping[str, str], label: str) -> tuple[list[NodeProto], list[str]]:
        """The nodes of a body for the main graph, and the names of its results there."""
        names = dict(names)
        for tensor in body.initializer:
            names[tensor.name] = self._unique(tensor.name, label)
            self._draft.add(Weight.from_proto(tensor, ExternalFiles()).renamed(names[tensor.name]))
        nodes = []
        for node in body.node:
            names.update((name, self._unique(name, label)) for name in node.output if name)
            nodes.append(_renamed(node, names))
        return nodes, [names.get(value.name, value.name) for value in body.output]

    def _named(self, nodes: Sequence[NodeProto], results: Sequence[str], wanted: Iterable[str]) -> list[NodeProto]:
        """Let nodes make their results under the names by which others know them."""
        aliases = []
        for result, name in zip(results, wanted, strict=True):
            if name:
                aliases.append(helper.make_node("Identity", [result], [name], name=name))
        made = {name: node for node in nodes for name in node.output}
        rest = []
        for alias in aliases:
            maker = made.pop(alias.input[0], None)
            if maker is None:
                rest.append(alias)
                continue
            now = {alias.input[0]: alias.output[0]}
            for node in nodes:
                node.CopyFrom(_renamed(node, now))
            for other in (*aliases, *rest):
                other.input[0] = now.get(other.input[0], other.input[0])
        return rest

    def _stack(self, parts: Sequence[str], name: str) -> list[NodeProto]:
        nodes = []
        for part in parts:
            result = self._unique(f"{part}_unsqueezed")
            if self._opset < _FIRST_WITH_INPUTS:
                nodes.append(helper.make_node("Unsqueeze", [part], [result], name=result, axes=[0]))
            else:
                axes = self._draft.add_weight(self._unique(f"{result}_axes"), np.zeros(1, dtype=np.int64)).name
                nodes.append(helper.make_node("Unsqueeze", [part, axes], [result], name=result))
        nodes.append(helper.make_node("Concat", [node.output[0] for node in nodes], [name], name=name, axis=0))
        return nodes

    def _unique(self, name: str, label: str = "") -> str:
        """The name itself where nothing else has it."""
        free, number = name, 0
        while free in self._taken:
            free = f"{label or name}:{name}_{number}" if number else f"{label or name}:{name}"
            number += 1
        self._taken.add(free)
        return free


def _constant_of(node: NodeProto) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
    """The value of a Constant node that holds a tensor; None for other nodes."""
    tensor = next((a.t for a in node.attribute if a.name == "value"), None) if node.op_type == "Constant" else None
    return None if tensor is None else Weight.from_proto(tensor, ExternalFiles()).array


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    """A copy of a node under other names, in its bodies, too."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for attribute in copy.attribute:
        for body in (*([attribute.g] if attribute.type == AttributeProto.GRAPH else []), *attribute.graphs):
            _rename_captured(body, names)
    return copy


def _rename_captured(body: GraphProto, names: Mapping[str, str]) -> None:
    """Rename what a body reads from around it."""
    own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer}
    own.update(name for node in body.node for name in node.output)
    outer = {name: fresh for name, fresh in names.items() if name not in own}
    for node in body.node:
        node.CopyFrom(_renamed(node, outer))
    for value in body.output:
        value.name = outer.get(value.name, value.name)
