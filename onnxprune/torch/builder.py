"""Building the PyTorch graph: operands, weights and submodules for the converters."""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from onnxprune.errors import ConversionError
from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.values import READS_EXTENTS
from onnxprune.ir.weights import Array, Weight
from onnxprune.torch.host import as_tensor, scalar, to_host
from onnxprune.torch.layouts import AsIs, Held, Layout
from onnxprune.torch.paths import Paths, place
from onnxprune.torch.tensors import FLOATS, to_tensor, torch_dtype

_HUGE = 1e30
"""Weights of this magnitude are masks and limits, which no training changes."""


class Builder:
    """The PyTorch graph under construction.

    A value of the ONNX graph is an fx node that computes a tensor, or, for shapes and what follows from them, a
    *host* value: a Python number or a tuple of numbers. ``tensor`` and ``host`` give an operand in the form that the
    caller wants, whatever it is.

    The body of an If has a graph and a builder of its own (see ``inner``).

    Attributes:
        graph: the ONNX graph.
        root: the module that owns parameters and submodules.
        fx: the PyTorch graph.
        names: where the initialisers are.
        received: what the PyTorch graph takes as arguments, in their order.
        origins: for each node of the PyTorch graph, the ONNX node that it is there for.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Sequence[str] | None = None,
        *,
        host: Container[str] = (),
        weights: Container[str] | None = None,
    ) -> None:
        """Start a graph.

        Args:
            graph: the ONNX graph.
            inputs: the values that come as arguments; those of the ONNX graph if not given.
            host: those among them that are host values.
            weights: the initialisers that this graph owns, all if not given; others become arguments when used.
        """
        self.graph = graph
        self.root = nn.Module()
        self.fx = fx.Graph()
        self.names: dict[str, Held] = {}
        self.received: list[str] = []
        self.origins: dict[fx.Node, Node] = {}
        self._own = graph.model.weights if weights is None else weights
        self._paths = Paths()
        self._values: dict[str, fx.Node] = {}
        self._host: set[str] = set()
        self._as_tensor: dict[str, fx.Node] = {}
        self._parameters: dict[str, tuple[nn.Parameter, Layout]] = {}
        self._anchor: fx.Node | None = None
        self._last_argument: fx.Node | None = None
        for name in graph.inputs if inputs is None else inputs:
            self._values[name] = self._argument(name)
            if name in host:
                self._host.add(name)
            else:
                self._anchor = self._anchor or self._values[name]

    def inner(self, inputs: Sequence[str], weights: Container[str]) -> Builder:
        """A builder for a body of the ONNX graph, which reads values of this one and owns some of the weights."""
        return Builder(self.graph, inputs, host=self._host, weights=weights)

    def argument(self, name: str) -> fx.Node:
        """What a body gets as an argument: a tensor, or a host value as it is."""
        return self._values[name] if name in self._host else self.value(name)

    # Operands

    def has(self, node: Node, index: int) -> bool:
        """Whether the optional operand is there."""
        return node.has_input(index)

    def constant(self, node: Node, index: int) -> Array | None:
        """The values of a constant operand, else None (also if it is absent)."""
        if not node.has_input(index):
            return None
        weight = self.graph.model.weights.get(node.inputs[index])
        return None if weight is None else weight.array

    def tensor(self, node: Node, index: int) -> fx.Node:
        """An operand as a tensor."""
        return self.value(node.inputs[index])

    def tensors(self, node: Node) -> list[fx.Node]:
        """All operands as tensors; absent optional ones must not be there."""
        return [self.value(name) for name in node.inputs]

    def optional(self, node: Node, index: int) -> fx.Node | None:
        """An operand as a tensor, or None if it is absent."""
        return self.tensor(node, index) if node.has_input(index) else None

    def value(self, name: str) -> fx.Node:
        """A value of the ONNX graph as a tensor."""
        if name in self.graph.model.weights:
            return self._weight_node(name)
        if name not in self._host:
            return self._values[name]
        if name not in self._as_tensor:
            # Shape inference leaves types open now and then; shapes are int64.
            dtype = self.dtype(name) or torch.int64
            self._as_tensor[name] = self.call(as_tensor, self._values[name], dtype, self._anchor)
        return self._as_tensor[name]

    def host(self, node: Node, index: int) -> Any:
        """An operand as Python numbers: a literal if it is constant, else an fx node; None if it is absent."""
        if not node.has_input(index):
            return None
        array = self.constant(node, index)
        if array is not None:
            return literal(array)
        name = node.inputs[index]
        return self._values[name] if name in self._host else self.call(to_host, self._values[name])

    def number(self, node: Node, index: int) -> Any:
        """The same where the file has a number or a vector of one: that number."""
        value = self.host(node, index)
        return self.call(scalar, value) if isinstance(value, fx.Node) else scalar(value)

    def is_shape_arithmetic(self, node: Node) -> bool:
        """Whether all operands are shapes or short constants, and so is the result."""
        present = [name for name in node.inputs if name]
        hosts = [name for name in present if name in self._host]
        weights = self.graph.model.weights
        if node.op_type in READS_EXTENTS:
            return True
        if not hosts or any(name not in self._host and not _is_short(weights.get(name)) for name in present):
            return False
        shape = self.graph.shapes.extents.get(node.outputs[0])
        return shape is not None and len(shape) <= 1

    def ints(self, node: Node, index: int | None, attribute: str | None = None) -> Any:
        """A list of integers, which older opsets have in an attribute: a tuple, an fx node, or None if absent."""
        value = node.attr(attribute) if attribute is not None else None
        if value is not None:
            return tuple(int(v) for v in value)
        if index is None:
            return None
        array = self.constant(node, index)
        if array is not None:
            return tuple(int(v) for v in array.ravel())
        return self.host(node, index)

    def dtype(self, name: str) -> torch.dtype | None:
        """The type of a value, or None where it is not known."""
        weight = self.graph.model.weights.get(name)
        elem_type = weight.elem_type if weight is not None else self.graph.shapes.elem_types.get(name, 0)
        return torch_dtype(elem_type)

    def rank(self, node: Node, index: int = 0) -> int | None:
        """The number of dimensions of an operand, or None where it is not known."""
        name = node.inputs[index]
        weight = self.graph.model.weights.get(name)
        if weight is not None:
            return len(weight.shape)
        shape = self.graph.shapes.extents.get(name)
        return None if shape is None else len(shape)

    def is_host(self, value: fx.Node) -> bool:
        """Whether a node computes numbers for shape arithmetic, and no tensor."""
        return any(self._values.get(name) is value for name in self._host)

    @property
    def anchor(self) -> fx.Node | None:
        """The first graph input, on whose device new tensors are made; None if the graph has no inputs."""
        return self._anchor

    # Nodes

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """A call of a function."""
        return self.fx.call_function(function, args, kwargs)

    def item(self, values: fx.Node, index: int) -> fx.Node:
        """One element of a tuple."""
        return self.fx.call_function(operator.getitem, (values, index))

    def module(
        self,
        node: Node,
        module: nn.Module,
        *args: Any,
        weights: Mapping[str, tuple[str, Layout]] | None = None,
    ) -> fx.Node:
        """A call of a submodule.

        Args:
            node: what it is made for; names it if there are no weights.
            module: without values; it gets those of the initialisers.
            args: what it is called with.
            weights: parameter or buffer of the module -> (initialiser, layout of one tensor).
        """
        weights = weights or {}
        base = next((name.removesuffix(f".{a}") for a, (name, _) in weights.items()), None)
        path = self._paths.claim(base if base is not None else re.sub(r"[./]", "_", node.name.strip("/")))
        for attribute, (name, layout) in weights.items():
            self._fill(module, attribute, name, layout, f"{path}.{attribute}")
        place(self.root, path, module)
        return self.fx.call_module(path, args)

    def attach(self, module: nn.Module, path: str, attributes: Sequence[str], name: str, layout: Layout) -> None:
        """Give an initialiser's values to parameters of a module whose path is claimed (see ``claim``)."""
        for attribute, part in zip(attributes, layout.to_torch(self._array(name)), strict=True):
            setattr(module, attribute, nn.Parameter(to_tensor(part)))
        self.names[name] = Held(tuple(f"{path}.{attribute}" for attribute in attributes), layout)

    def claim(self, name: str, module: nn.Module) -> str:
        """Put a module at a path near to ``name``; returns the path, to be used with ``fx.call_module``."""
        path = self._paths.claim(name)
        place(self.root, path, module)
        return path

    def fits(self, node: Node, index: int, layout: Layout) -> bool:
        """Whether an operand is a floating-point initialiser that a module can hold in this layout."""
        if not node.has_input(index):
            return False
        name = node.inputs[index]
        weight = self.graph.model.weights.get(name)
        if weight is None or weight.elem_type not in FLOATS or name not in self._own:
            return False
        held = self._parameters.get(name)
        if held is not None:
            return held[1] == layout
        # What is tied is held as it is, so that all its users can share one parameter.
        return name not in self.names and (isinstance(layout, AsIs) or not self.is_shared(name))

    def is_shared(self, name: str) -> bool:
        """Whether more than one operand is this initialiser."""
        readers = self.graph.consumers.get(name, [])
        return sum(list(self.graph.nodes[i].inputs).count(name) for i in readers) > 1 or name in self.graph.outputs

    def set_outputs(self, node: Node, outputs: fx.Node | Sequence[fx.Node], *, host: bool = False) -> None:
        """Say what computes a node's outputs."""
        values = [outputs] if isinstance(outputs, fx.Node) else list(outputs)
        for name, value in zip(node.outputs, values, strict=False):
            if name:
                self._values[name] = value
                if host:
                    self._host.add(name)
        for made in reversed(self.fx.nodes):
            if made in self.origins or made.op == "placeholder":
                break
            self.origins[made] = node
        missing = [name for name in node.outputs if name and name not in self._values]
        if missing:
            raise ConversionError(f"{node} has an output '{missing[0]}' that no PyTorch operator gives")

    # Weights

    def _array(self, name: str) -> Array:
        return self.graph.model.weights[name].array

    def _fill(self, module: nn.Module, attribute: str, name: str, layout: Layout, key: str) -> None:
        if attribute in module._buffers:
            (part,) = layout.to_torch(self._array(name))
            module.register_buffer(attribute, to_tensor(part))
            self.names.setdefault(name, Held((key,), layout))
            return
        if name not in self._parameters:
            (part,) = layout.to_torch(self._array(name))
            self._parameters[name] = nn.Parameter(to_tensor(part)), layout
            self.names[name] = Held((key,), layout)
        module.register_parameter(attribute, self._parameters[name][0])

    def _weight_node(self, name: str) -> fx.Node:
        """A read of an initialiser: of a parameter if it can be trained, of a buffer if not."""
        if name not in self._values and name not in self._own:
            self._values[name] = self._argument(name)
        if name not in self._values:
            if name in self._parameters:
                path = self.names[name].keys[0]
            else:
                path = self._paths.claim(name)
                tensor = to_tensor(self._array(name))
                if self._is_trainable(name):
                    parameter = nn.Parameter(tensor)
                    place(self.root, path, parameter)
                    self._parameters[name] = parameter, AsIs()
                    self.names[name] = Held((path,), AsIs())
                else:
                    place(self.root, path, tensor)
            self._values[name] = self.fx.get_attr(path)
        return self._values[name]

    def _argument(self, name: str) -> fx.Node:
        """One more argument of the PyTorch graph, behind those that it has."""
        self.received.append(name)
        last = self._last_argument
        with self.fx.inserting_before() if last is None else self.fx.inserting_after(last):
            self._last_argument = self.fx.placeholder(_identifiers(self.received)[-1])
        return self._last_argument

    def _is_trainable(self, name: str) -> bool:
        weight = self.graph.model.weights[name]
        # A number without dimensions is a part of a formula: an epsilon, an exponent, a bound.
        if weight.elem_type not in FLOATS or not weight.shape or not weight.size:
            return False
        return bool(np.abs(weight.array.astype(np.float64)).max() < _HUGE)


def _is_short(weight: Weight | None) -> bool:
    return weight is not None and len(weight.shape) <= 1


def literal(array: Array) -> Any:
    """Values as Python numbers, in tuples where there is more than one dimension."""
    return _tuples(array.tolist())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _identifiers(names: Sequence[str]) -> list[str]:
    """Argument names for graph inputs."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name)
        if not plain or plain[0].isdigit() or keyword.iskeyword(plain):
            plain = f"_{plain}"
        unique, number = plain, 0
        while unique in found:
            number += 1
            unique = f"{plain}_{number}"
        found.append(unique)
    return found
