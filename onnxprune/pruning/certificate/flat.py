"""A model as one list of steps, so that every tensor in it can be looked at, and every step run by itself.

The branches of an If become steps that are guarded by its condition. A Loop or Scan stays one step; in front of it
stand the steps of its body as they run in the first iteration. Names have to be unique in the whole model for that,
as they are in normalised models; where they are not, the node stays closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, helper, numpy_helper

from onnxprune.ir.model import Model
from onnxprune.ir.protos import STANDARD_DOMAINS, body_of, captured_names, standard_opset
from onnxprune.ir.weights import ExternalFiles, Weight

_LOOPS = frozenset({"Loop", "Scan"})
_FIRST_SCAN_WITHOUT_BATCH = 9


@dataclass(frozen=True)
class Step:
    """A node, and the conditions (tensor, value) under which it runs."""

    node: NodeProto
    guards: tuple[tuple[str, bool], ...] = ()

    @property
    def label(self) -> str:
        """The node's name, or that of its first output where it has none."""
        return self.node.name or next((name for name in self.node.output if name), self.node.op_type)

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Every tensor that the node reads, those that its bodies capture included."""
        return tuple(dict.fromkeys(name for name in (*self.node.input, *captured_names(self.node)) if name))

    @cached_property
    def makes(self) -> tuple[str, ...]:
        """Every tensor that the node makes."""
        return tuple(name for name in self.node.output if name)

    @cached_property
    def opaque(self) -> bool:
        """Whether the node has bodies of its own."""
        return any(a.HasField("g") or a.graphs for a in self.node.attribute)


@dataclass(frozen=True)
class FlatModel:
    """The steps of a model in an order in which they can run.

    ``weights`` holds those of opened bodies, too; ``entries`` are what the bodies of Loop and Scan receive, and
    ``iterated`` everything that is made in them.
    """

    model: Model
    steps: tuple[Step, ...]
    weights: Mapping[str, Weight]
    entries: frozenset[str] = frozenset()
    iterated: frozenset[str] = frozenset()

    @cached_property
    def producers(self) -> dict[str, tuple[int, ...]]:
        """The steps that make a tensor: one, or one for each branch of an If."""
        found: dict[str, tuple[int, ...]] = {}
        for index, step in enumerate(self.steps):
            for name in step.makes:
                found[name] = (*found.get(name, ()), index)
        return found

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The graph inputs that are no weights."""
        return tuple(value.name for value in self.model.graph.input if value.name not in self.model.weights)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The graph outputs."""
        return tuple(value.name for value in self.model.graph.output)

    @cached_property
    def data_free(self) -> frozenset[str]:
        """Tensors that follow from weights and extents alone, whatever the inputs hold: shape arithmetic, mostly."""
        free: set[str] = set(self.weights)
        for step in self.steps:
            if step.node.op_type in ("Shape", "Size") or all(name in free for name in step.reads):
                # What a body receives in the first iteration tells nothing of the others, and which branch an If
                # takes may depend on the inputs.
                free.update(n for n in step.makes if n not in self.entries and len(self.producers[n]) == 1)
        return frozenset(free - set(self.weights))


def flatten(model: Model) -> FlatModel:
    """The steps of a model."""
    return model.derived(_flatten)


def _flatten(model: Model) -> FlatModel:
    opener = _Opener(model)
    steps = tuple(opener.opened(model.graph, ()))
    return FlatModel(model, steps, opener.weights, frozenset(opener.entries), frozenset(opener.iterated))


class _Opener:
    def __init__(self, model: Model) -> None:
        self.weights: dict[str, Weight] = dict(model.weights)
        self.entries: set[str] = set()
        self.iterated: set[str] = set()
        self._defined: set[str] = set(model.weights)
        self._defined.update(value.name for value in model.graph.input)
        self._defined.update(name for node in model.graph.node for name in node.output)
        self._opset = standard_opset(model.skeleton)

    def opened(self, graph: GraphProto, guards: tuple[tuple[str, bool], ...]) -> Iterator[Step]:
        """The steps of one graph."""
        for node in graph.node:
            if node.domain in STANDARD_DOMAINS and node.op_type == "If":
                yield from self._branches(node, guards)
            elif node.domain in STANDARD_DOMAINS and node.op_type in _LOOPS:
                yield from self._first_iteration(node, guards)
                yield Step(node, guards)
            else:
                yield Step(node, guards)

    def _branches(self, node: NodeProto, guards: tuple[tuple[str, bool], ...]) -> Iterator[Step]:
        branches = {a.name: a.g for a in node.attribute if a.HasField("g")}
        if not self._enter(*branches.values()):
            yield Step(node, guards)
            return
        for name, body in branches.items():
            inside = (*guards, (node.input[0], name == "then_branch"))
            yield from self.opened(body, inside)
            for result, value in zip(node.output, body.output, strict=True):
                if result:
                    yield Step(helper.make_node("Identity", [value.name], [result], name=node.name), inside)

    def _first_iteration(self, node: NodeProto, guards: tuple[tuple[str, bool], ...]) -> Iterator[Step]:
        body = body_of(node, "body")
        if node.op_type == "Scan" and self._opset < _FIRST_SCAN_WITHOUT_BATCH:
            return
        if not self._enter(body):
            return
        self.entries.update(value.name for value in body.input)
        begin = self._loop_begins if node.op_type == "Loop" else self._scan_begins
        for start in begin(node, body):
            yield Step(start, guards)
        for step in self.opened(body, guards):
            self.iterated.update(step.makes)
            yield step

    def _loop_begins(self, node: NodeProto, body: GraphProto) -> Iterator[NodeProto]:
        number, condition, *carried = (value.name for value in body.input)
        yield _constant(number, np.array(0, dtype=np.int64))
        if len(node.input) > 1 and node.input[1]:
            yield helper.make_node("Identity", [node.input[1]], [condition])
        else:
            yield _constant(condition, np.array(True))
        for operand, name in zip(node.input[2:], carried, strict=True):
            yield helper.make_node("Identity", [operand], [name])

    def _scan_begins(self, node: NodeProto, body: GraphProto) -> Iterator[NodeProto]:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.type != AttributeProto.GRAPH}
        scanned = int(attributes["num_scan_inputs"])
        axes = attributes.get("scan_input_axes", [0] * scanned)
        backwards = attributes.get("scan_input_directions", [0] * scanned)
        first = len(node.input) - scanned
        for place, (operand, value) in enumerate(zip(node.input, body.input, strict=True)):
            if place < first:
                yield helper.make_node("Identity", [operand], [value.name])
                continue
            at = f"{value.name}|first"
            yield _constant(at, np.array(-1 if backwards[place - first] else 0, dtype=np.int64))
            yield helper.make_node("Gather", [operand, at], [value.name], axis=int(axes[place - first]))

    def _enter(self, *bodies: GraphProto) -> bool:
        """Take the names that bodies define; False, and nothing is taken, where one of them is in use."""
        names = [name for body in bodies for name in _defined_in(body)]
        if len(set(names)) < len(names) or not self._defined.isdisjoint(names):
            return False
        self._defined.update(names)
        external = ExternalFiles()
        for body in bodies:
            for tensor in body.initializer:
                self.weights[tensor.name] = Weight.from_proto(tensor, external)
        return True


def _defined_in(body: GraphProto) -> Iterable[str]:
    yield from (value.name for value in body.input)
    yield from (tensor.name for tensor in body.initializer)
    yield from (name for node in body.node for name in node.output if name)


def _constant(name: str, value: NDArray[Any]) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))
