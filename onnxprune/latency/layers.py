"""Layers by themselves: one node with its operands, at any width, to be timed alone.

A layer's *roles* are the classes of axes that may lose channels: input and output channels of a Conv, one for a
depthwise one. Its *signature* is everything else that its time depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.graph import Node, UnknownShapeError
from onnxprune.ops.relations import IntArray

#: Times are measured over this many roles; in further ones a layer's time is taken to be proportional.
MOST_ROLES = 2

Widths = tuple[int, ...]


class NotMeasurable(Exception):  # noqa: N818  # it is an answer, not a failure
    """A layer that cannot be cut out and shrunk by itself; its time is estimated from its multiply-accumulates."""


@dataclass(frozen=True)
class Extent:
    """An extent of an operand: fixed, or the width of a role divided by ``blocks``."""

    fixed: int
    role: int = -1
    blocks: int = 1

    def at(self, widths: Widths) -> int:
        """The extent at these widths."""
        return self.fixed if self.role < 0 else max(widths[self.role] // self.blocks, 1)


@dataclass(frozen=True)
class Operand:
    """An input of the node: the extents, the element type, and the value if it is a weight."""

    extents: tuple[Extent, ...]
    elem_type: int
    value: NDArray[Any] | None = field(compare=False)

    def shape(self, widths: Widths) -> tuple[int, ...]:
        """The shape at these widths."""
        return tuple(extent.at(widths) for extent in self.extents)


@dataclass(frozen=True)
class LayerCase:
    """A layer that can be timed at any width.

    ``classes`` are those of its roles (the first ``MOST_ROLES`` are measured), ``full`` their unpruned widths.
    """

    node: Node
    operands: tuple[Operand | None, ...]
    classes: tuple[int, ...]
    full: Widths
    signature: str
    _analysis: Analysis = field(repr=False)

    @property
    def key(self) -> str:
        """The signature in few characters; layers that share it take equal times at equal widths."""
        return hashlib.sha256(self.signature.encode()).hexdigest()[:24]

    @property
    def kind(self) -> str:
        """The signature and the unpruned widths in few characters."""
        return f"{self.key}-{'x'.join(map(str, self.full))}"

    @property
    def measured_full(self) -> Widths:
        """Unpruned widths of the roles that are measured."""
        return self.full[:MOST_ROLES]

    def complete(self, widths: Widths) -> Widths:
        """Widths of all roles: those beyond the measured ones stay unpruned."""
        return widths + self.full[len(widths) :]

    def proto(self, name: str, widths: Widths, inputs: Sequence[str], outputs: Sequence[str]) -> NodeProto:
        """The node at these widths. Raises NotMeasurable where more than attributes would have to change."""
        proto = NodeProto()
        proto.CopyFrom(self.node.proto)
        proto.name = name
        del proto.input[:], proto.output[:]
        proto.input.extend(inputs)
        proto.output.extend(outputs)
        operator = self._analysis.registry.find(self.node)
        if operator is not None and widths != self.full:
            try:
                operator.shrink(self.node, _Attributes(self, widths, proto))
            except (UnknownShapeError, ValueError, IndexError) as error:
                raise NotMeasurable(str(error)) from error
        return proto


def layer_cases(analysis: Analysis) -> tuple[LayerCase | None, ...]:
    """For every layer, how to time it alone; None where that cannot be done."""
    removable = frozenset(int(c) for group in analysis.coupling.groups for c in group.classes)
    return tuple(_case(analysis, layer.node, removable) for layer in analysis.costs.layers)


def _case(analysis: Analysis, index: int, removable: frozenset[int]) -> LayerCase | None:
    node = analysis.graph.nodes[index]
    if node.domain not in ("", "com.microsoft") or node.index in analysis.graph.captured:
        return None
    roles: dict[int, int] = {}
    operands: list[Operand | None] = []
    try:
        for at, name in enumerate(node.inputs):
            operands.append(_operand(analysis, node, at, removable, roles) if name else None)
    except (UnknownShapeError, NotMeasurable):
        return None
    for name in node.outputs:
        _extents(analysis, name, removable, roles)
    if not operands or operands[0] is None:
        return None
    classes = tuple(roles)
    full = tuple(int(analysis.coupling.extents[c]) for c in classes)
    return LayerCase(node, tuple(operands), classes, full, _signature(node, operands, len(classes)), analysis)


def _operand(analysis: Analysis, node: Node, at: int, removable: frozenset[int], roles: dict[int, int]) -> Operand:
    name, graph = node.inputs[at], analysis.graph
    extents = _extents(analysis, name, removable, roles)
    weight = graph.model.weights.get(name)
    if weight is None and name in graph.constants:
        raise NotMeasurable(f"{name} is computed from weights")
    elem_type = weight.elem_type if weight is not None else graph.shapes.elem_types[name]
    return Operand(extents, elem_type, None if weight is None else weight.array)


def _extents(analysis: Analysis, name: str, removable: frozenset[int], roles: dict[int, int]) -> tuple[Extent, ...]:
    coupling = analysis.coupling
    shape = analysis.graph.shapes.extents.get(name)
    if shape is None:
        raise UnknownShapeError(name)
    found = []
    for axis, extent in zip(coupling.axes.axes_of(name, len(shape)), shape, strict=True):
        owner, blocks = coupling.relative.get(axis, (coupling.class_of.get(axis, -1), 1))
        # A dimension of length 1 whose class may shrink is not there (per-group counts of depthwise layers).
        found.append(
            Extent(extent, roles.setdefault(owner, len(roles)), blocks) if owner in removable else Extent(extent)
        )
    return tuple(found)


def _signature(node: Node, operands: Sequence[Operand | None], roles: int) -> str:
    """All that the time depends on besides the widths. Values of weights do not count, those of integers do."""
    described: list[Any] = []
    for operand in operands:
        if operand is None:
            described.append(None)
            continue
        shape = [e.fixed if e.role < 0 else f"r{e.role}/{e.blocks}" for e in operand.extents]
        described.append([shape, operand.elem_type, operand.value is not None])
    attributes = {a.name: str(onnx.helper.get_attribute_value(a)) for a in node.proto.attribute}
    if "group" in attributes and attributes["group"] != "1":
        # A depthwise layer's groups are its width.
        attributes["group"] = "many" if node.attr("group") == node.in_shape(0)[1] else attributes["group"]
    whole = [node.domain, node.op_type, node.version, sorted(attributes.items()), described, roles]
    return json.dumps(whole, separators=(",", ":"))


class _Attributes:
    """The fix-ups of a single shrunk node: attributes only."""

    exact_norm = False

    def __init__(self, case: LayerCase, widths: Widths, proto: NodeProto) -> None:
        self._case, self._widths, self._proto = case, widths, proto
        self._roles = {owner: role for role, owner in enumerate(case.classes)}
        self._coupling = case._analysis.coupling

    def kept(self, tensor: str, dim: int) -> IntArray | None:
        axis = self._coupling.axes.id(tensor, dim)
        owner, blocks = self._coupling.relative.get(axis, (self._coupling.class_of.get(axis, -1), 1))
        role = self._roles.get(owner, -1)
        if role < 0 or self._widths[role] == self._case.full[role]:
            return None
        count, full = self._widths[role] // blocks, self._case.full[role] // blocks
        # Spread over the axis: every group of a grouped convolution keeps its part.
        return np.arange(count, dtype=np.int64) * full // max(count, 1)

    def extent(self, tensor: str, dim: int) -> int:
        kept = self.kept(tensor, dim)
        return len(kept) if kept is not None else self._case.node.shape(tensor)[dim]

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        kept = [attribute for attribute in self._proto.attribute if attribute.name != name]
        del self._proto.attribute[:]
        self._proto.attribute.extend([*kept, helper.make_attribute(name, value)])

    def set_operand(self, node: Node, index: int, value: NDArray[Any]) -> None:
        raise NotMeasurable("an operand holds extents")

    def set_elements(self, node: Node, index: int, elements: Mapping[int, int]) -> None:
        raise NotMeasurable("an operand holds extents")

    def pick(self, node: Node, index: int, dim: int, positions: IntArray) -> None:
        raise NotMeasurable("an operand is picked from")

    def pad(self, node: Node, index: int, counts: Mapping[int, int]) -> None:
        raise NotMeasurable("an operand is padded")

    def spread(self, node: Node, index: int, dim: int) -> None:
        raise NotMeasurable("an operand is spread")

    def pick_result(self, node: Node, index: int, picked: Mapping[int, IntArray]) -> None:
        raise NotMeasurable("a result is picked from")

    def scale_result(self, node: Node, index: int, factor: float) -> None:
        raise NotMeasurable("a result is scaled")

    def constant(self, node: Node, index: int) -> NDArray[Any] | None:
        raise NotMeasurable("a weight is asked for")

    def keep_reporting(self, node: Node, shape: tuple[int, ...]) -> None:
        raise NotMeasurable("a shape is reported")

    def add_constant(self, base: str, value: NDArray[Any]) -> str:
        raise NotMeasurable("a constant is added")
