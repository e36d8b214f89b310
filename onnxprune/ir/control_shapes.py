"""Shapes at the borders of control flow, in opened models (see ``control_flow``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from onnxprune.ir.control_flow import DOMAIN, ENTRY, border_number, border_operands
from onnxprune.ir.protos import integer

Extents = tuple[int, ...]
Carried = tuple[int, int]
"""A value that a Loop carries: the number of the Loop, and the place among its carried values."""


class BorderShapes:
    """Shapes of what bodies receive and return.

    Loops may change the shape of what they carry from one iteration to the next; those in ``varying`` are known to
    (see :func:`varying_values`), all others keep it.
    """

    def __init__(
        self,
        extents: Mapping[str, Extents],
        types: Mapping[str, int],
        value: Callable[[str], NDArray[Any] | None],
        varying: Collection[Carried],
    ) -> None:
        self._extents = extents
        self._types = types
        self._value = value
        self._varying = varying

    def infer(self, node: NodeProto) -> list[ValueInfoProto]:
        """What is known about the outputs of a node of the private domain."""
        rules = {
            "If": self._if,
            "Loop": self._loop,
            "Scan": self._scan,
            "Loop" + ENTRY: self._loop_entry,
            "Scan" + ENTRY: self._scan_entry,
        }
        found = []
        for output, (elem_type, shape) in zip(node.output, rules[node.op_type](node), strict=False):
            if output and elem_type and shape is not None:
                found.append(helper.make_tensor_value_info(output, elem_type, shape))
        return found

    def _like(self, name: str) -> tuple[int, Extents | None]:
        return self._types.get(name, 0), self._extents.get(name)

    def _if(self, node: NodeProto) -> Iterable[tuple[int, Extents | None]]:
        (condition,), branches = border_operands(node)
        taken = self._value(condition)
        for yes, no in zip(branches["then_branch"], branches["else_branch"], strict=True):
            if taken is not None:
                yield self._like(yes if bool(taken) else no)
            else:
                same = self._extents.get(yes) == self._extents.get(no)
                yield self._like(yes) if same else (0, None)

    def _carried(self, node: NodeProto, operands: list[str]) -> Iterable[tuple[int, Extents | None]]:
        number = border_number(node)
        for place, name in enumerate(operands[2:]):
            yield (0, None) if (number, place) in self._varying else self._like(name)

    def _loop_entry(self, node: NodeProto) -> Iterable[tuple[int, Extents | None]]:
        yield TensorProto.INT64, ()
        yield TensorProto.BOOL, ()
        yield from self._carried(node, list(node.input))

    def _loop(self, node: NodeProto) -> Iterable[tuple[int, Extents | None]]:
        # How often it runs is not known, nor, therefore, how much it collects.
        return self._carried(node, border_operands(node)[0])

    def _scan_entry(self, node: NodeProto) -> Iterable[tuple[int, Extents | None]]:
        states, scanned = _scan_operands(node, list(node.input))
        yield from map(self._like, states)
        for name, axis in zip(scanned, _axes(node, "scan_input_axes", len(scanned)), strict=True):
            elem_type, shape = self._like(name)
            if shape is not None:
                axis %= len(shape)
                shape = shape[:axis] + shape[axis + 1 :]
            yield elem_type, shape

    def _scan(self, node: NodeProto) -> Iterable[tuple[int, Extents | None]]:
        operands, results = border_operands(node)
        states, scanned = _scan_operands(node, operands)
        yield from map(self._like, states)
        first = self._extents.get(scanned[0])
        length = None if first is None else first[_axes(node, "scan_input_axes", len(scanned))[0]]
        collected = results["body"][len(states) :]
        for name, axis in zip(collected, _axes(node, "scan_output_axes", len(collected)), strict=True):
            elem_type, shape = self._like(name)
            if shape is not None and length is not None:
                axis %= len(shape) + 1
                yield elem_type, (*shape[:axis], length, *shape[axis:])
            else:
                yield 0, None


def varying_values(nodes: Iterable[NodeProto], extents: Mapping[str, Extents]) -> set[Carried]:
    """The values that Loops carry and whose shape one iteration changes, or may change."""
    found: set[Carried] = set()
    for node in nodes:
        if node.domain == DOMAIN and node.op_type == "Loop":
            operands, results = border_operands(node)
            for place, (before, after) in enumerate(zip(operands[2:], results["body"][1:], strict=False)):
                if extents.get(before) is None or extents.get(before) != extents.get(after):
                    found.add((border_number(node), place))
    return found


def _scan_operands(node: NodeProto, operands: list[str]) -> tuple[list[str], list[str]]:
    """State variables and scanned tensors."""
    count = integer(node, "num_scan_inputs", 0)
    return operands[: len(operands) - count], operands[len(operands) - count :]


def _axes(node: NodeProto, attribute: str, count: int) -> list[int]:
    found = next((list(a.ints) for a in node.attribute if a.name == attribute), None)
    return found or [0] * count
