"""Who makes and who reads each tensor of a model's main graph; computed once per model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from onnx import NodeProto

from onnxprune.ir.model import Model
from onnxprune.ir.protos import STANDARD_DOMAINS, captured_names


class NodeWiring(NamedTuple):
    """The names at one node.

    Attributes:
        op_type: the operator, or None when it is not of the standard domain.
        inputs: operand names; "" where an optional one is left out.
        outputs: result names; "" where an optional one is left out.
        captured: tensors that the node's bodies (If, Loop, Scan) read from around them.
    """

    op_type: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Every tensor that the node needs."""
        return self.inputs + self.captured


@dataclass(frozen=True)
class Wiring:
    """The names of the main graph.

    Attributes:
        nodes: in the graph's order, which is topological.
        slots: tensor name -> the (node index, input number) pairs that read it.
        captured: tensors that some body reads from around it.
        kinds: standard operator -> node indices.
        outputs: the graph's outputs.
        inputs: the graph's inputs, weights that are listed there included.
        elsewhere: tensors that quantisation annotations and training graphs refer to.
    """

    nodes: tuple[NodeWiring, ...]
    slots: dict[str, list[tuple[int, int]]]
    captured: frozenset[str]
    kinds: dict[str, list[int]]
    outputs: frozenset[str]
    inputs: frozenset[str]
    elsewhere: frozenset[str]

    def is_fixed(self, name: str) -> bool:
        """Whether something other than a main-graph node's input refers to the tensor by name."""
        return name in self.outputs or name in self.captured or name in self.elsewhere


def wiring(model: Model) -> Wiring:
    """The wiring of a model."""
    return model.derived(_wire)


def _wire(model: Model) -> Wiring:
    graph = model.graph
    nodes = tuple(_node_wiring(node) for node in graph.node)
    slots: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(nodes):
        for number, name in enumerate(node.inputs):
            slots[name].append((index, number))
        if node.op_type is not None:
            kinds[node.op_type].append(index)
    slots.pop("", None)
    return Wiring(
        nodes,
        dict(slots),
        frozenset(name for node in nodes for name in node.captured),
        dict(kinds),
        frozenset(value.name for value in graph.output),
        frozenset(value.name for value in graph.input),
        frozenset(_names_elsewhere(model)),
    )


def _node_wiring(node: NodeProto) -> NodeWiring:
    op_type, standard = node.op_type, node.domain in STANDARD_DOMAINS
    return NodeWiring(op_type if standard else None, tuple(node.input), tuple(node.output), captured_names(node))


def _names_elsewhere(model: Model) -> Iterator[str]:
    for annotation in model.graph.quantization_annotation:
        yield annotation.tensor_name
        yield from (entry.value for entry in annotation.quant_parameter_tensor_names)
    for training in model.skeleton.training_info:
        for bindings in (training.initialization_binding, training.update_binding):
            yield from (entry.key for entry in bindings)
        for graph in (training.initialization, training.algorithm):
            for node in graph.node:
                yield from node.input
                yield from captured_names(node)
