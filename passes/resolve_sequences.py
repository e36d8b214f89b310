"""Replace sequences and optionals of known content by what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from onnxprune.ir.control_flow import insert_nodes
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.protos import STANDARD_DOMAINS, integer, standard_opset
from onnxprune.ir.shapes import Shapes, infer_shapes
from onnxprune.passes.base import Pass, PassResult

_FIRST_WITH_INPUTS = 13
"""Since this opset, Split and Unsqueeze take as operands what were attributes before."""

_MAY_BE_OPTIONAL = frozenset({"If", "Identity", "Loop", "Optional", "SequenceMap"})


class ResolveSequences(Pass):
    """Replace sequences and optionals whose content is known by plain tensors.

    What SequenceEmpty, SequenceConstruct, SequenceInsert, SequenceErase and SplitToSequence with constant positions
    and sizes put together is known, one after the other: SequenceAt becomes the element, ConcatFromSequence a Concat
    (of unsqueezed elements, if along a new axis), SplitToSequence a Split, SequenceLength a constant; so do the
    operators on optionals. Where anything depends on data or on the input's shape, the operators stay.
    """

    name = "resolve_sequences"

    def run(self, model: Model) -> PassResult:
        """Follow the content of all sequences of the main graph and rewrite those who read it."""
        if not _TYPES.keys() & model.derived(Graph).kinds.keys():
            return PassResult(model, modified=False)
        resolver = _Resolver(model)
        return PassResult(resolver.run(), modified=True) if resolver.follow() else PassResult(model, modified=False)


class _Resolver:
    """The content of every known sequence and optional, and what takes the place of their readers."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._draft: Draft = model.edit()
        self._opset = standard_opset(model.skeleton)
        self._sequences: dict[str, tuple[str, ...]] = {}
        # Splits that are not made yet: nobody may want their parts.
        self._splits: dict[str, tuple[int, NodeProto]] = {}
        self._optionals: dict[str, str | None] = {}
        self._optional_inputs = {i.name for i in model.graph.input if i.type.HasField("optional_type")}
        self._makers = {name: node.op_type for node in model.graph.node for name in node.output}
        self._shapes: Shapes | None = None
        self._before: dict[int, list[NodeProto]] = {}
        self._after: dict[int, list[NodeProto]] = {}
        self._replaced: dict[int, NodeProto] = {}

    def follow(self) -> bool:
        """Go through the nodes in order; returns whether one can be replaced."""
        for index, node in enumerate(self._model.graph.node):
            if node.domain in STANDARD_DOMAINS and node.op_type in _TYPES:
                _TYPES[node.op_type](self, index, node)
        return bool(self._replaced)

    def run(self) -> Model:
        """The model with the replacements; what nobody reads any more is left to another pass."""
        for index, node in self._replaced.items():
            fresh = self._draft.graph.node[index]
            entries = list(fresh.metadata_props)
            fresh.CopyFrom(node)
            fresh.metadata_props.extend(entries)
        insert_nodes(self._draft, self._before, self._after)
        return self._draft.finish()

    def empty(self, index: int, node: NodeProto) -> None:
        self._sequences[node.output[0]] = ()

    def construct(self, index: int, node: NodeProto) -> None:
        self._sequences[node.output[0]] = tuple(node.input)

    def insert(self, index: int, node: NodeProto) -> None:
        known, place = self._elements(node.input[0]), self._integer(node, 2)
        if known is None or (place is None and _has(node, 2)):
            return
        at = len(known) if place is None else place + len(known) * (place < 0)
        if 0 <= at <= len(known):
            self._sequences[node.output[0]] = (*known[:at], node.input[1], *known[at:])

    def erase(self, index: int, node: NodeProto) -> None:
        known, place = self._elements(node.input[0]), self._integer(node, 1)
        if not known or (place is None and _has(node, 1)):
            return
        at = len(known) - 1 if place is None else place + len(known) * (place < 0)
        if 0 <= at < len(known):
            self._sequences[node.output[0]] = (*known[:at], *known[at + 1 :])

    def split(self, index: int, node: NodeProto) -> None:
        self._splits[node.output[0]] = index, node

    def at(self, index: int, node: NodeProto) -> None:
        place = self._integer(node, 1)
        known = None if place is None else self._elements(node.input[0])
        if known is not None and place is not None and -len(known) <= place < len(known):
            self._replace(index, "Identity", [known[place]])

    def concat(self, index: int, node: NodeProto) -> None:
        known = self._elements(node.input[0])
        if not known:
            return
        axis = integer(node, "axis", 0)
        if integer(node, "new_axis", 0):
            known = tuple(self._reshaped(self._before, index, "Unsqueeze", name, axis) for name in known)
        self._replace(index, "Concat", known, axis=axis)

    def length(self, index: int, node: NodeProto) -> None:
        known = self._elements(node.input[0])
        if known is not None:
            self._replace_by_constant(index, np.array(len(known), dtype=np.int64))

    def optional(self, index: int, node: NodeProto) -> None:
        self._optionals[node.output[0]] = node.input[0] if _has(node, 0) else None

    def get_element(self, index: int, node: NodeProto) -> None:
        name = node.input[0]
        held = self._optionals.get(name, name if self._is_plain(name) else None)
        if held is not None:
            self._replace(index, "Identity", [held])
            if held in self._splits:
                self._splits[node.output[0]] = self._splits[held]
            elif held in self._sequences:
                self._sequences[node.output[0]] = self._sequences[held]

    def has_element(self, index: int, node: NodeProto) -> None:
        name = node.input[0] if _has(node, 0) else None
        if name is None or name in self._optionals or self._is_plain(name):
            full = name is not None and self._optionals.get(name, name) is not None
            self._replace_by_constant(index, np.array(full))

    def _is_plain(self, name: str) -> bool:
        """Whether a value is certainly no optional."""
        if name in self._model.weights:
            return True
        maker = self._makers.get(name)
        if maker is None:
            return any(i.name == name for i in self._model.graph.input) and name not in self._optional_inputs
        # Bodies of control flow and functions may hand on anything.
        return (maker in _TYPES and maker != "Optional") or _is_standard(maker, self._opset)

    def _elements(self, name: str) -> tuple[str, ...] | None:
        """The elements of a sequence, or None if they are not known; from here on they have to be there."""
        if name not in self._sequences and name in self._splits:
            parts = self._parts(*self._splits.pop(name))
            if parts is None:
                return None
            self._sequences[name] = parts
        return self._sequences.get(name)

    def _parts(self, index: int, node: NodeProto) -> tuple[str, ...] | None:
        """Split for SplitToSequence; the names of its results."""
        x, axis = node.input[0], integer(node, "axis", 0)
        sizes = self._sizes(node, axis)
        if not sizes:
            return None
        parts = [self._draft.unique_name(f"{node.output[0]}_{number}") for number in range(len(sizes))]
        lengths = np.array(sizes, dtype=np.int64)
        if self._opset < _FIRST_WITH_INPUTS:
            split = helper.make_node("Split", [x], parts, name=parts[0], axis=axis, split=sizes)
        else:
            operands = [x, self._draft.add_weight(self._draft.unique_name(f"{parts[0]}_sizes"), lengths).name]
            split = helper.make_node("Split", operands, parts, name=parts[0], axis=axis)
        self._after.setdefault(index, []).append(split)
        if integer(node, "keepdims", 1) or _has(node, 1):
            return tuple(parts)
        return tuple(self._reshaped(self._after, index, "Squeeze", name, axis) for name in parts)

    def _sizes(self, node: NodeProto, axis: int) -> list[int] | None:
        """The extents of the parts, or None where they depend on data or on the input's shape."""
        given = self._model.weights.get(node.input[1]) if _has(node, 1) else None
        if _has(node, 1) and given is None:
            return None
        if given is not None and given.shape:
            return [int(size) for size in given.array]
        if self._shapes is None:
            self._shapes = infer_shapes(self._model)
        shape = self._shapes.extents.get(node.input[0])
        if shape is None or not self._shapes.is_static(node.input[0], axis % len(shape)):
            return None
        extent, step = shape[axis], 1 if given is None else int(given.array)
        return [min(step, extent - start) for start in range(0, extent, step)] if step > 0 else None

    def _integer(self, node: NodeProto, number: int) -> int | None:
        weight = self._model.weights.get(node.input[number]) if _has(node, number) else None
        return None if weight is None or weight.size != 1 else int(weight.array.reshape(-1)[0])

    def _reshaped(self, where: dict[int, list[NodeProto]], index: int, op_type: str, name: str, axis: int) -> str:
        """An element with one more axis, or one less; returns its name."""
        result = self._draft.unique_name(f"{name}_{op_type.lower()}d")
        if self._opset < _FIRST_WITH_INPUTS:
            node = helper.make_node(op_type, [name], [result], name=result, axes=[axis])
        else:
            axes = self._draft.add_weight(self._draft.unique_name(f"{result}_axes"), np.array([axis], dtype=np.int64))
            node = helper.make_node(op_type, [name, axes.name], [result], name=result)
        where.setdefault(index, []).append(node)
        return result

    def _replace(self, index: int, op_type: str, operands: list[str] | tuple[str, ...], **attributes: int) -> None:
        old = self._model.graph.node[index]
        self._replaced[index] = helper.make_node(op_type, operands, old.output, old.name)
        self._replaced[index].attribute.extend(helper.make_attribute(*named) for named in attributes.items())

    def _replace_by_constant(self, index: int, value: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
        old = self._model.graph.node[index]
        elem_type = TensorProto.BOOL if value.dtype == np.bool_ else TensorProto.INT64
        tensor = helper.make_tensor(f"{old.output[0]}_value", elem_type, [], [value.item()])
        self._replaced[index] = helper.make_node("Constant", [], old.output, name=old.name, value=tensor)


def _has(node: NodeProto, number: int) -> bool:
    return len(node.input) > number and bool(node.input[number])


def _is_standard(op_type: str, opset: int) -> bool:
    return op_type not in _MAY_BE_OPTIONAL and onnx.defs.has(op_type, opset, "")


_TYPES: Mapping[str, Callable[[_Resolver, int, NodeProto], None]] = {
    "ConcatFromSequence": _Resolver.concat,
    "Optional": _Resolver.optional,
    "OptionalGetElement": _Resolver.get_element,
    "OptionalHasElement": _Resolver.has_element,
    "SequenceAt": _Resolver.at,
    "SequenceConstruct": _Resolver.construct,
    "SequenceEmpty": _Resolver.empty,
    "SequenceErase": _Resolver.erase,
    "SequenceInsert": _Resolver.insert,
    "SequenceLength": _Resolver.length,
    "SplitToSequence": _Resolver.split,
}
