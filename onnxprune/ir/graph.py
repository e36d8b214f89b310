"""A read-only view of a normalised graph, as the operators and the analysis see it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.ir.control_flow import DOMAIN
from onnxprune.ir.model import Model
from onnxprune.ir.protos import captured_names
from onnxprune.ir.shapes import Shapes, infer_shapes


class UnknownShapeError(Exception):
    """Raised inside an operator when a tensor it needs has no shape; the analysis then pins the node."""


class Node:
    """One node: its proto, its attributes as Python values, and the shapes and constants of its operands."""

    __slots__ = (
        "_attributes",
        "domain",
        "graph",
        "index",
        "inputs",
        "op_type",
        "outputs",
        "proto",
        "version",
    )

    def __init__(self, index: int, proto: onnx.NodeProto, version: int, graph: Graph) -> None:
        self.index = index
        self.proto = proto
        self.op_type: str = proto.op_type
        self.domain: str = "" if proto.domain == "ai.onnx" else proto.domain
        self.version = version
        self.inputs: tuple[str, ...] = tuple(proto.input)
        self.outputs: tuple[str, ...] = tuple(proto.output)
        self.graph = graph
        self._attributes: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """The node's name, or the name of its first output where it has none."""
        return self.proto.name or next((o for o in self.outputs if o), f"node {self.index}")

    def __str__(self) -> str:
        return f"{self.op_type} '{self.name}'"

    @property
    def reads(self) -> tuple[str, ...]:
        """Every tensor that the node needs: its operands, and what its bodies read from around them."""
        return self.inputs + self.graph.captured.get(self.index, ())

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute (strings as str), or ``default``."""
        if self._attributes is None:
            self._attributes = {
                a.name: onnx.helper.get_attribute_value(a)
                for a in self.proto.attribute
                if a.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
            }
        value = self._attributes.get(name, default)
        # What is not UTF-8 is no value that an operator knows, and so no value that is taken for another.
        return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value

    def has_input(self, index: int) -> bool:
        """Whether the optional input is there."""
        return index < len(self.inputs) and bool(self.inputs[index])

    def has_output(self, index: int) -> bool:
        """Whether the optional output is there."""
        return index < len(self.outputs) and bool(self.outputs[index])

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The extents of one of the node's tensors; UnknownShapeError if they are not known."""
        try:
            return self.graph.shapes.extents[tensor]
        except KeyError:
            raise UnknownShapeError(tensor) from None

    def in_shape(self, index: int) -> tuple[int, ...]:
        """The extents of input ``index``."""
        return self.shape(self.inputs[index])

    def out_shape(self, index: int = 0) -> tuple[int, ...]:
        """The extents of output ``index``."""
        return self.shape(self.outputs[index])

    def value(self, index: int) -> NDArray[Any] | None:
        """The value of input ``index`` if it depends on constants and shapes only, else None (also if absent)."""
        return self.graph.shapes.value(self.inputs[index]) if self.has_input(index) else None

    def ints(self, index: int, attribute: str) -> list[int] | None:
        """A list of integers that older opsets hold in an attribute and newer ones in input ``index``."""
        value = self.attr(attribute)
        if value is not None:
            return [int(v) for v in value]
        if not self.has_input(index):
            return None
        operand = self.value(index)
        return None if operand is None else [int(v) for v in np.ravel(operand)]

    def is_constant(self, index: int) -> bool:
        """Whether input ``index`` is a weight, or computed from weights only."""
        return self.has_input(index) and self.inputs[index] in self.graph.constants


class Graph:
    """Nodes in topological order, who makes and who reads each tensor, and which tensors are constants.

    ``model`` may be an opened one (see ``onnxprune.ir.control_flow``): then the nodes of bodies are among the others.
    ``shapes`` are inferred at first use if they are not given. ``model.derived(Graph)`` makes one per model.
    """

    def __init__(self, model: Model, shapes: Shapes | None = None) -> None:
        self.model = model
        self._shapes = shapes
        opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.skeleton.opset_import}
        self.nodes: list[Node] = []
        self.producer: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = {}
        self.captured: dict[int, tuple[str, ...]] = {}
        self.constants: set[str] = set(model.weights)
        for index, proto in enumerate(model.graph.node):
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            node = Node(index, proto, opsets.get(domain, 1), self)
            self.nodes.append(node)
            captured = captured_names(proto)
            if captured:
                self.captured[index] = captured
            reads = dict.fromkeys((*node.inputs, *captured))
            reads.pop("", None)
            for name in reads:
                self.consumers.setdefault(name, []).append(index)
            for name in node.outputs:
                if name:
                    self.producer[name] = index
            # What a Loop hands to its body changes, even if all that it starts from is constant.
            opaque = captured or node.domain == DOMAIN
            if node.inputs and not opaque and self.constants.issuperset(reads):
                self.constants.update(o for o in node.outputs if o)
        self.inputs: tuple[str, ...] = tuple(i.name for i in model.graph.input if i.name not in model.weights)
        self.outputs: tuple[str, ...] = tuple(o.name for o in model.graph.output)

    @property
    def shapes(self) -> Shapes:
        """The extents and constants of tensors."""
        if self._shapes is None:
            self._shapes = infer_shapes(self.model)
        return self._shapes

    @cached_property
    def slots(self) -> dict[str, list[tuple[int, int]]]:
        """For each tensor the (node index, input number) pairs that read it."""
        found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for node in self.nodes:
            for number, name in enumerate(node.inputs):
                found[name].append((node.index, number))
        found.pop("", None)
        return dict(found)

    @cached_property
    def kinds(self) -> dict[str, list[int]]:
        """The nodes of each standard operator."""
        found: dict[str, list[int]] = {}
        for node in self.nodes:
            if not node.domain:
                found.setdefault(node.op_type, []).append(node.index)
        return found

    @cached_property
    def referred(self) -> frozenset[str]:
        """The tensors that outlive all nodes: graph outputs, and what annotations and training graphs refer to."""
        return frozenset(self.outputs).union(_names_elsewhere(self.model))

    @cached_property
    def fixed(self) -> frozenset[str]:
        """The tensors to which something other than a node's input refers by name: ``referred`` ones, captured ones."""
        return self.referred.union(*self.captured.values())

    def touching(self, tensor: str) -> list[int]:
        """The nodes that make or read a tensor, in topological order."""
        readers = self.consumers.get(tensor, [])
        maker = self.producer.get(tensor)
        return readers if maker is None else [maker, *readers]

    def weight_behind(self, tensor: str) -> str | None:
        """The single float weight that a constant tensor is computed from (through Cast, Transpose, ...)."""
        while tensor not in self.model.weights:
            index = self.producer.get(tensor)
            if index is None or not self.nodes[index].inputs:
                return None
            tensor = self.nodes[index].inputs[0]
        return tensor


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
