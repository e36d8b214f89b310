"""Control flow, opened and closed again: the nodes of bodies in one list with those around them.

The analysis and the passes look at one flat list of nodes. :func:`open_bodies` writes a model so: every If, Loop and
Scan becomes a node of a private domain that reads, behind its own operands, the outputs of its bodies, whose nodes
come before it; what a Loop or Scan hands to its body is made by one more node, the body's *entry*. Tensors that
bodies capture need no mention: their readers are in the list. :func:`close_bodies` puts everything back.

An opened model has the data flow of the original, but is not valid ONNX, and nobody should run it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper

from onnxprune.ir.model import Draft, Model, tensor_names
from onnxprune.ir.protos import STANDARD_DOMAINS, bodies, integer, node_title, standard_opset
from onnxprune.ir.weights import Array, ExternalFiles, Weight

DOMAIN = "onnxprune.flow"
"""The domain of the nodes that stand for control flow in opened models: ``If``, ``Loop``, ``Scan`` and entries."""

ENTRY = "Body"
"""What the type of an entry ends with: ``LoopBody``, ``ScanBody``."""

_OPENED = frozenset({"If", "Loop", "Scan"})
_FIRST_SCAN_WITHOUT_BATCH = 9
# The bodies that a node lies in, outermost first: "2.then_branch/5.body/".
_SCOPE = "onnxprune.scope"


Way: TypeAlias = tuple[tuple[int, str], ...]
"""From the main graph into a body: indices of nodes in their graphs, and names of attributes."""


@dataclass(frozen=True)
class BodyWeight:
    """An initialiser of a body: the nodes and attributes on the way to it, and its position there."""

    path: Way
    position: int

    def find(self, graph: GraphProto) -> TensorProto:
        """The initialiser in the main graph that the way begins in."""
        for number, name in self.path:
            graph = next(attribute.g for attribute in graph.node[number].attribute if attribute.name == name)
        return graph.initializer[self.position]


def is_open(model: Model) -> bool:
    """Whether this is an opened model."""
    return any(entry.domain == DOMAIN for entry in model.skeleton.opset_import)


def open_bodies(model: Model) -> Model:
    """The model with the nodes of bodies in the main graph; the model itself where there are no bodies to open.

    Names stay where they are unique in the whole model; others become ``<node>/<attribute>:<name>``. Initialisers
    of bodies become weights. Bodies with sparse, external or quantised-annotated weights stay closed, as do those
    of other operators (SequenceMap); what they capture is for the analysis to pin.
    """
    return model.derived(_open)


def close_bodies(model: Model) -> Model:
    """The model that an opened one stands for; other models as they are."""
    return _Closer(model).run() if is_open(model) else model


def body_weights(model: Model) -> dict[str, BodyWeight]:
    """Where the weights are that bodies hold, by the names that they have in the opened model."""
    opset = standard_opset(model.skeleton)
    if not any(_can_open(node, opset) for node in model.graph.node):
        return {}
    opener = _Opener(model, opset)
    opener.run()
    return opener.weights


def set_body_weights(draft: Draft, arrays: Mapping[BodyWeight, Array]) -> None:
    """Give weights in bodies of a draft other values."""
    for weight, array in arrays.items():
        tensor = weight.find(draft.graph)
        tensor.CopyFrom(Weight.from_proto(tensor, ExternalFiles()).with_array(array).to_proto())


def insert_nodes(draft: Draft, before: Mapping[int, list[NodeProto]], after: Mapping[int, list[NodeProto]]) -> None:
    """Insert nodes before and after those of a draft, by index; they belong to the same bodies."""
    if not before and not after:
        return
    spliced: list[NodeProto] = []
    for index, node in enumerate(draft.graph.node):
        copy = NodeProto()
        copy.CopyFrom(node)
        group = (*before.get(index, ()), copy, *after.get(index, ()))
        scope = [entry for entry in node.metadata_props if entry.key == _SCOPE]
        for inserted in group:
            if inserted is not copy:
                inserted.metadata_props.extend(scope)
        spliced.extend(group)
    del draft.graph.node[:]
    draft.graph.node.extend(spliced)


def border_operands(node: NodeProto) -> tuple[list[str], dict[str, list[str]]]:
    """What a node for If, Loop or Scan reads: its own operands, and the outputs of its bodies by attribute."""
    original = _original(node)
    operands, rest = list(node.input[: len(original.input)]), list(node.input[len(original.input) :])
    outputs: dict[str, list[str]] = {}
    for name, body in _bodies_by_name(original).items():
        outputs[name], rest = rest[: len(body.output)], rest[len(body.output) :]
    return operands, outputs


def border_number(node: NodeProto) -> int:
    """What tells the borders of one If, Loop or Scan from those of others."""
    return integer(node, "number", -1)


def scope_of(node: NodeProto) -> str:
    """The bodies that a node of an opened model lies in, outermost first, each as number.attribute/; empty for none."""
    return next((entry.value for entry in node.metadata_props if entry.key == _SCOPE), "")


def body_scope(border: NodeProto, attribute: str) -> str:
    """What ``scope_of`` says of the nodes in one body of an If, Loop or Scan."""
    return f"{scope_of(border)}{border_number(border)}.{attribute}/"


def _original(node: NodeProto) -> NodeProto:
    """The node that a border stands for, its bodies without nodes and weights."""
    return NodeProto.FromString(next(attribute.s for attribute in node.attribute if attribute.name == "original"))


def _bodies_by_name(node: NodeProto) -> dict[str, GraphProto]:
    return {attribute.name: attribute.g for attribute in node.attribute if attribute.HasField("g")}


def _can_open(node: NodeProto, opset: int) -> bool:
    if node.op_type not in _OPENED or node.domain not in STANDARD_DOMAINS:
        return False
    if node.op_type == "Scan" and opset < _FIRST_SCAN_WITHOUT_BATCH:
        return False
    return all(_is_plain(body, opset) for body in bodies(node))


def _is_plain(body: GraphProto, opset: int) -> bool:
    """Whether a body has nothing that would be lost or misunderstood outside of it."""
    if body.sparse_initializer or body.quantization_annotation:
        return False
    inputs = {value.name for value in body.input}
    if any(t.data_location == TensorProto.EXTERNAL or t.name in inputs for t in body.initializer):
        return False
    return all(_can_open(node, opset) for node in body.node if any(bodies(node)))


def _open(model: Model) -> Model:
    opset = standard_opset(model.skeleton)
    if is_open(model) or not any(_can_open(node, opset) for node in model.graph.node):
        return model
    return _Opener(model, opset).run()


class _Opener:
    """Opens one model; ``weights`` are those of bodies."""

    def __init__(self, model: Model, opset: int) -> None:
        self.weights: dict[str, BodyWeight] = {}
        self._draft: Draft = model.edit()
        self._opset = opset
        self._count = 0
        self._nodes: list[NodeProto] = []
        self._taken = set(model.weights)
        graph = model.graph
        self._taken.update(value.name for values in (graph.input, graph.output, graph.value_info) for value in values)
        for node in graph.node:
            self._taken.update(node.output)
            if not _can_open(node, opset):
                self._taken.update(name for body in bodies(node) for name in tensor_names(body))

    def run(self) -> Model:
        nodes = list(self._draft.graph.node)
        self._add(nodes, "", {}, ())
        del self._draft.graph.node[:]
        self._draft.graph.node.extend(self._nodes)
        self._draft.skeleton.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        return self._draft.finish()

    def _add(self, nodes: Iterable[NodeProto], scope: str, names: Mapping[str, str], path: Way) -> None:
        """Add the nodes of one graph; ``names`` maps those tensors to new names that got one."""
        for index, node in enumerate(nodes):
            if _can_open(node, self._opset):
                self._add_control(index, node, scope, names, path)
                continue
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [names.get(name, name) for name in node.input]
            copy.output[:] = [names.get(name, name) for name in node.output]
            self._append(copy, scope)

    def _add_control(self, index: int, node: NodeProto, scope: str, names: Mapping[str, str], path: Way) -> None:
        number = self._count
        self._count += 1
        label = node_title(node)
        operands = [names.get(name, name) for name in node.input]
        attributes = [a for a in node.attribute if not a.HasField("g")]
        attributes.append(helper.make_attribute("number", number))
        results: list[str] = []
        for attribute in node.attribute:
            if not attribute.HasField("g"):
                continue
            body = attribute.g
            inner = {**names, **self._names(body, f"{label}/{attribute.name}")}
            way = (*path, (index, attribute.name))
            for position, tensor in enumerate(body.initializer):
                self._draft.add(Weight.from_proto(tensor, ExternalFiles()).renamed(inner[tensor.name]))
                self.weights[inner[tensor.name]] = BodyWeight(way, position)
            if body.input:
                received = [inner[value.name] for value in body.input]
                self._append(_border(node.op_type + ENTRY, label, operands, received, attributes), scope)
            self._add(body.node, f"{scope}{number}.{attribute.name}/", inner, way)
            results += [inner.get(value.name, value.name) for value in body.output]
        attributes.append(helper.make_attribute("original", _emptied(node).SerializeToString()))
        made = [names.get(name, name) for name in node.output]
        self._append(_border(node.op_type, label, [*operands, *results], made, attributes), scope)

    def _names(self, body: GraphProto, prefix: str) -> dict[str, str]:
        """A name for every tensor that a body defines, unique in the model."""
        defined = [value.name for value in body.input]
        defined += [tensor.name for tensor in body.initializer]
        defined += [name for node in body.node for name in node.output if name]
        found: dict[str, str] = {}
        for name in defined:
            free, number = name, 0
            while free in self._taken:
                free = f"{prefix}:{name}" if number == 0 else f"{prefix}:{name}_{number}"
                number += 1
            self._taken.add(free)
            found[name] = free
        return found

    def _append(self, node: NodeProto, scope: str) -> None:
        if scope:
            node.metadata_props.add(key=_SCOPE, value=scope)
        self._nodes.append(node)


def _border(
    op_type: str, name: str, inputs: Iterable[str], outputs: Iterable[str], attributes: Iterable[AttributeProto]
) -> NodeProto:
    return NodeProto(op_type=op_type, domain=DOMAIN, name=name, input=inputs, output=outputs, attribute=attributes)


def _emptied(node: NodeProto) -> NodeProto:
    """A copy of the node, its bodies without nodes and weights."""
    copy = NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if attribute.HasField("g"):
            for field in ("node", "initializer", "value_info"):
                attribute.g.ClearField(field)
    return copy


class _Closer:
    """Closes one opened model."""

    def __init__(self, model: Model) -> None:
        self._draft: Draft = model.edit()
        self._entries: dict[int, NodeProto] = {}
        self._alive: set[int] = set()
        self._contents: dict[tuple[int, str] | None, list[NodeProto]] = {}

    def run(self) -> Model:
        graph = self._draft.graph
        nodes = list(graph.node)
        for node in nodes:
            if node.domain == DOMAIN:
                if node.op_type.endswith(ENTRY):
                    self._entries[border_number(node)] = node
                else:
                    self._alive.add(border_number(node))
        for node in nodes:
            home = self._home(node)
            if node.domain != DOMAIN or not node.op_type.endswith(ENTRY):
                self._contents.setdefault(home, []).append(node)
        closed = self._closed(None)
        del graph.node[:]
        graph.node.extend(closed)
        imports = [entry for entry in self._draft.skeleton.opset_import if entry.domain != DOMAIN]
        del self._draft.skeleton.opset_import[:]
        self._draft.skeleton.opset_import.extend(imports)
        return self._draft.finish()

    def _home(self, node: NodeProto) -> tuple[int, str] | None:
        """The innermost body around a node that is still there, as (number, attribute); forgets the node's scope."""
        for place, entry in enumerate(node.metadata_props):
            if entry.key == _SCOPE:
                path = entry.value.rstrip("/").split("/")
                del node.metadata_props[place]
                break
        else:
            return None
        for part in reversed(path):
            number, _, attribute = part.partition(".")
            if int(number) in self._alive:
                return int(number), attribute
        return None

    def _closed(self, home: tuple[int, str] | None) -> list[NodeProto]:
        nodes = self._contents.get(home, [])
        return [self._restored(node) if node.domain == DOMAIN else node for node in nodes]

    def _restored(self, border: NodeProto) -> NodeProto:
        operands, results = border_operands(border)
        number = border_number(border)
        node = _original(border)
        node.input[:] = operands
        node.output[:] = border.output
        for name, body in _bodies_by_name(node).items():
            body.node.extend(self._closed((number, name)))
            entry = self._entries.get(number)
            for place, value in enumerate(body.input):
                # Without an entry nobody reads them.
                value.name = entry.output[place] if entry is not None else self._draft.unique_name(value.name)
            self._report(body, results[name])
        return node

    def _report(self, body: GraphProto, results: Iterable[str]) -> None:
        """Name the outputs of a body; runtimes want them to be made in it, each by itself."""
        made = {name for node in body.node for name in node.output}
        for value, result in zip(body.output, results, strict=True):
            if result in made:
                made.remove(result)
                value.name = result
                continue
            value.name = self._draft.unique_name(f"{result}_out")
            body.node.append(helper.make_node("Identity", [result], [value.name], name=value.name))
