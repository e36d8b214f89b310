"""Applying a plan: which slices of the weights stay, and the fix-ups of the nodes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.ir.collection import uncollected
from onnxprune.ir.control_flow import close_bodies, insert_nodes
from onnxprune.ir.graph import Node
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.protos import STANDARD_DOMAINS
from onnxprune.ops import Registry
from onnxprune.ops.relations import IntArray
from onnxprune.passes.base import Pass, PassResult
from onnxprune.pruning.consistency import block_counts, removed_per_class
from onnxprune.pruning.plan import Plan

_FIRST_PAD_WITH_INPUTS = 11
_FIRST_SLICE_WITH_INPUTS = 10
_LARGE = 1 << 22
"""Bytes; smaller arrays are cut at one go."""


class Shrink(Pass):
    """Remove the positions that a plan names from weights, attributes and shapes."""

    name = "shrink"
    claims_equality = False

    def __init__(self, plan: Plan, registry: Registry | None = None) -> None:
        self._plan = plan
        self._registry = registry

    def run(self, model: Model) -> PassResult:
        """Shrink the (normalised) model. Raises PlanError where the plan does not fit."""
        plan = self._plan
        analysis = analyze(model, plan.input_shapes, split=plan.split, state=plan.state, registry=self._registry)
        per_class = removed_per_class(analysis, plan)
        if not any(len(positions) for positions in per_class):
            return PassResult(analysis.model, modified=False)
        return PassResult(ShrinkRewriter(analysis, per_class, exact_norm=plan.exact_norm).run(), modified=True)


class ShrinkRewriter:
    """Shrinks one model: what operators' fix-ups may ask and change (see ``ops.base.Rewriter``)."""

    def __init__(self, analysis: Analysis, per_class: Sequence[IntArray], *, exact_norm: bool = False) -> None:
        self.exact_norm = exact_norm
        self._analysis = analysis
        self._draft: Draft = analysis.graph.model.edit()
        self._removed = per_class
        self._kept: dict[int, IntArray] = {}
        self._before: dict[int, list[NodeProto]] = {}
        self._after: dict[int, list[NodeProto]] = {}

    @uncollected()
    def run(self) -> Model:
        """Slice the weights, let every touched node fix itself, and return the shrunk model."""
        analysis = self._analysis
        coupling, axes, graph = analysis.coupling, analysis.coupling.axes, analysis.graph
        weights = analysis.model.weights
        dims: dict[str, list[int]] = {}
        for members, positions in zip(coupling.members, self._removed, strict=True):
            for axis in members if len(positions) else ():
                tensor, dim = axes.axis(axis)
                dims.setdefault(tensor, []).append(dim)
        touched = {index for tensor in dims for index in graph.touching(tensor)}
        blocked = {axes.axis(axis).tensor: (axis, *found) for axis, found in analysis.untied.relative.items()}
        for name, (_, owner, _) in blocked.items():
            if len(self._removed[owner]):
                dims.setdefault(name, [])
        for name, along in dims.items():
            weight = weights.get(name)
            if weight is not None:
                cut = partial(self._sliced, name, along=along, blocked=blocked.get(name))
                if name in blocked:  # Its extents follow from more than the axes.
                    self._draft.weights[name] = weight.with_array(cut(weight.array))
                else:
                    self._draft.weights[name] = weight.derived(cut, self._extents(name, weight.shape, along))
        for index in sorted(touched):
            node = graph.nodes[index]
            operator = analysis.registry.find(node)
            if operator is not None:
                operator.shrink(node, self)
        insert_nodes(self._draft, self._before, self._after)
        self._declare_shapes()
        return close_bodies(self._draft.finish())

    def kept(self, tensor: str, dim: int) -> IntArray | None:
        """The positions that stay on an axis, in order, or None if all do."""
        axis = self._analysis.coupling.axes.id(tensor, dim)
        owner = self._analysis.coupling.class_of.get(axis)
        if owner is None or not len(self._removed[owner]):
            return None
        if owner not in self._kept:
            stays = np.ones(self._analysis.graph.shapes.extents[tensor][dim], dtype=bool)
            stays[self._removed[owner]] = False
            self._kept[owner] = np.flatnonzero(stays)
        return self._kept[owner]

    def extent(self, tensor: str, dim: int) -> int:
        """The extent of an axis after shrinking."""
        kept = self.kept(tensor, dim)
        return self._analysis.graph.shapes.extents[tensor][dim] if kept is None else len(kept)

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Set an attribute of the node in the shrunk graph; None takes it away."""
        proto = self._draft.graph.node[node.index]
        for place, attribute in enumerate(proto.attribute):
            if attribute.name == name:
                del proto.attribute[place]
                break
        if value is not None:
            proto.attribute.append(helper.make_attribute(name, value))

    def set_operand(self, node: Node, index: int, value: NDArray[Any]) -> None:
        """Replace input ``index`` of the node by a constant of the element type it had (int64 if it is new)."""
        proto = self._draft.graph.node[node.index]
        old = proto.input[index] if index < len(proto.input) else ""
        elem_type = self._analysis.graph.shapes.elem_types.get(old, TensorProto.INT64)
        value = value.astype(helper.tensor_dtype_to_np_dtype(elem_type))
        weight = self._draft.weights.get(old)
        if weight is not None and self._analysis.graph.consumers.get(old) == [node.index]:
            self._draft.weights[old] = weight.with_array(value)
            return
        while len(proto.input) <= index:
            proto.input.append("")
        proto.input[index] = self.add_constant(old or f"{node.outputs[0]}_operand", value)

    def set_elements(self, node: Node, index: int, elements: Mapping[int, int]) -> None:
        """Set single elements of a one-dimensional integer operand, constant or computed at run time."""
        name = self._draft.graph.node[node.index].input[index]
        weight = self._draft.weights.get(name)
        if weight is not None:
            value = weight.array.copy()
            value[list(elements)] = list(elements.values())
            self.set_operand(node, index, value)
            return
        elements = self._beyond_constants(node, name, elements)
        if not elements:
            return
        (length,) = self._analysis.graph.shapes.extents[node.inputs[index]]
        fixed, nodes = self._overridden(name, f"{name}_shrunk", length, elements)
        self._before.setdefault(node.index, []).extend(nodes)
        self._draft.graph.node[node.index].input[index] = fixed

    def _beyond_constants(self, node: Node, name: str, elements: Mapping[int, int]) -> dict[int, int]:
        """Set those elements that the node before, for this one alone, takes from constants; returns the others."""
        graph = self._analysis.graph
        producer = graph.producer.get(name)
        if producer is None or graph.consumers.get(name) != [node.index] or name in graph.fixed:
            return dict(elements)
        before = graph.nodes[producer]
        operator = self._analysis.registry.find(before)
        left: dict[int, int] = {}
        for position, value in elements.items():
            source = None if operator is None else operator.source(before, position)
            read = "" if source is None else self._draft.graph.node[before.index].input[source[0]]
            if source is not None and read in self._draft.weights:
                changed = self._draft.weights[read].array.copy()
                changed[source[1]] = value
                self.set_operand(before, source[0], changed)
            else:
                left[position] = value
        return left

    def pick(self, node: Node, index: int, dim: int, positions: IntArray) -> None:
        """Let input ``index`` of the node see only these positions (of the shrunk axis ``dim``), in this order."""
        proto = self._draft.graph.node[node.index]
        name = proto.input[index]
        picked = self._draft.unique_name(f"{name}_picked")
        inputs = [name, self.add_constant(f"{name}_positions", positions)]
        gather = helper.make_node("Gather", inputs, [picked], name=picked, axis=dim)
        self._before.setdefault(node.index, []).append(gather)
        proto.input[index] = picked

    def pad(self, node: Node, index: int, counts: Mapping[int, int]) -> None:
        """Let input ``index`` of the node see so many zeros behind what is kept of these dimensions."""
        ends = [counts.get(dim, 0) for dim in range(len(node.in_shape(index)))]
        name = self._draft.graph.node[node.index].input[index]
        weight = self._draft.weights.get(name)
        if weight is not None:
            self._widen(node, index, np.pad(weight.array, [(0, end) for end in ends]))
            return
        pads = np.array([0] * len(ends) + ends, dtype=np.int64)
        padded = self._draft.unique_name(f"{name}_padded")
        if self._opset < _FIRST_PAD_WITH_INPUTS:
            fresh = helper.make_node("Pad", [name], [padded], name=padded, pads=pads.tolist())
        else:
            fresh = helper.make_node("Pad", [name, self.add_constant(f"{name}_pads", pads)], [padded], name=padded)
        self._before.setdefault(node.index, []).append(fresh)
        self._draft.graph.node[node.index].input[index] = padded

    def spread(self, node: Node, index: int, dim: int) -> None:
        """Let input ``index`` of the node see the full extent of a dimension again, zeros where positions went."""
        kept = self.kept(node.inputs[index], dim)
        if kept is None:
            return
        places = np.full(node.in_shape(index)[dim], len(kept), dtype=np.int64)
        places[kept] = np.arange(len(kept))
        self.pad(node, index, {dim: 1})
        weight = self._draft.weights.get(self._draft.graph.node[node.index].input[index])
        if weight is not None:
            self._widen(node, index, weight.array.take(places, axis=dim))
        else:
            self.pick(node, index, dim, places)

    def pick_result(self, node: Node, index: int, picked: Mapping[int, IntArray]) -> None:
        """Let the graph see only these positions of output ``index`` of the node, per dimension and ascending."""
        for dim, positions in picked.items():
            whole, inner = self._under_another_name(node, index, "whole")
            length = len(positions)
            if positions[-1] == length - 1 and self._opset >= _FIRST_SLICE_WITH_INPUTS:
                bounds = [
                    self.add_constant(f"{inner}_{what}", np.array([at], dtype=np.int64))
                    for what, at in (("start", 0), ("end", length), ("axis", dim))
                ]
                fresh = helper.make_node("Slice", [inner, *bounds], [whole], name=f"{inner}_kept")
            else:
                chosen = self.add_constant(f"{inner}_positions", positions)
                fresh = helper.make_node("Gather", [inner, chosen], [whole], name=f"{inner}_kept", axis=dim)
            self._after.setdefault(node.index, []).insert(0, fresh)

    def scale_result(self, node: Node, index: int, factor: float) -> None:
        """Let the graph see output ``index`` of the node times a factor."""
        elem_type = self._analysis.graph.shapes.elem_types[node.outputs[index]]
        scaled, inner = self._under_another_name(node, index, "unscaled")
        value = np.array(factor, dtype=helper.tensor_dtype_to_np_dtype(elem_type))
        operands = [inner, self.add_constant(f"{inner}_factor", value)]
        fresh = helper.make_node("Mul", operands, [scaled], name=f"{inner}_scaled")
        self._after.setdefault(node.index, []).insert(0, fresh)

    def constant(self, node: Node, index: int) -> NDArray[Any] | None:
        """What is left of the weight at input ``index`` of the node; None where it is no weight."""
        weight = self._draft.weights.get(self._draft.graph.node[node.index].input[index])
        return None if weight is None else weight.array

    def _widen(self, node: Node, index: int, value: NDArray[Any]) -> None:
        """Replace a weight by a wider one, under another name: what a plan says of the weight does not hold for it."""
        proto = self._draft.graph.node[node.index]
        name = proto.input[index]
        proto.input[index] = self.add_constant(f"{node.inputs[index]}_padded", value)
        if self._analysis.graph.consumers.get(name, [node.index]) == [node.index]:
            del self._draft.weights[name]

    def _under_another_name(self, node: Node, index: int, what: str) -> tuple[str, str]:
        """Give output ``index`` of a node another name, for a node behind it to make the old one; returns both."""
        proto = self._draft.graph.node[node.index]
        outer, inner = proto.output[index], self._draft.unique_name(f"{proto.output[index]}_{what}")
        proto.output[index] = inner
        return outer, inner

    @property
    def _opset(self) -> int:
        entries = self._draft.skeleton.opset_import
        return max((entry.version for entry in entries if entry.domain in STANDARD_DOMAINS), default=1)

    def keep_reporting(self, node: Node, shape: tuple[int, ...]) -> None:
        """Let a Shape node of the shrunk graph give the original extents, where they are fixed."""
        start, end, _ = slice(node.attr("start", 0), node.attr("end")).indices(len(shape))
        elements = {dim - start: shape[dim] for dim in range(start, end) if self.kept(node.inputs[0], dim) is not None}
        if not elements or not node.has_output(0):
            return
        name = node.outputs[0]
        if not self._looked_at(name) & elements.keys():
            return
        raw = self._draft.unique_name(f"{name}_shrunk")
        self._draft.graph.node[node.index].output[0] = raw
        _, nodes = self._overridden(raw, name, end - start, elements)
        self._after.setdefault(node.index, []).extend(nodes)

    def _looked_at(self, name: str) -> set[int]:
        """The elements of a one-dimensional tensor that anything depends on."""
        graph = self._analysis.graph
        everything = set(range(math.prod(graph.shapes.extents[name])))
        if name in graph.fixed:
            return everything
        seen: set[int] = set()
        for index in graph.consumers.get(name, []):
            consumer = graph.nodes[index]
            operator = self._analysis.registry.find(consumer)
            for place in (at for at, read in enumerate(consumer.inputs) if read == name):
                if operator is None or operator.reads(consumer, place, np.zeros(0, dtype=np.int64)) is None:
                    return everything
                wanted = np.array(sorted(self._looked_at(consumer.outputs[0])), dtype=np.int64)
                positions = operator.reads(consumer, place, wanted)
                seen.update(everything if positions is None else positions.tolist())
        return seen

    def add_constant(self, base: str, value: NDArray[Any]) -> str:
        """Add an initialiser and return its name."""
        return self._draft.add_weight(self._draft.unique_name(base), value).name

    def _overridden(
        self, name: str, result: str, length: int, elements: Mapping[int, int]
    ) -> tuple[str, list[NodeProto]]:
        """Nodes that compute ``name`` with some elements replaced: times 0 or 1, plus the new values.

        Multiplication and addition of integers work in every opset, unlike Where and ScatterND.
        """
        elem_type = self._analysis.graph.shapes.elem_types.get(name, TensorProto.INT64)
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        mask, values = np.ones(length, dtype=dtype), np.zeros(length, dtype=dtype)
        mask[list(elements)] = 0
        values[list(elements)] = list(elements.values())
        if result != name and result not in self._analysis.graph.producer:
            result = self._draft.unique_name(result)
        between = self._draft.unique_name(f"{name}_masked")
        nodes = [
            helper.make_node("Mul", [name, self.add_constant(f"{name}_mask", mask)], [between], name=between),
            helper.make_node(
                "Add", [between, self.add_constant(f"{name}_values", values)], [result], name=f"{result}_set"
            ),
        ]
        return result, nodes

    def _sliced(
        self, name: str, array: NDArray[Any], *, along: Sequence[int], blocked: tuple[int, int, int] | None
    ) -> NDArray[Any]:
        if blocked is not None and len(self._removed[blocked[1]]):
            array = self._slice_blocks(name, array, blocked[1], blocked[2])
            along = [dim for dim in along if dim > 1]
        found = {dim: kept for dim in sorted(along) if (kept := self.kept(name, dim)) is not None}
        return _taken(array, found)

    def _extents(self, name: str, shape: Sequence[int], along: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.extent(name, dim) if dim in along else extent for dim, extent in enumerate(shape))

    def _slice_blocks(self, name: str, array: NDArray[Any], owner: int, blocks: int) -> NDArray[Any]:
        """Rows, and per-group columns, of a grouped filter bank: each group keeps its own relative positions.

        Conv (M, C/group, …) and ConvTranspose (C, M/group, …) both hold the groups one behind the other in
        dimension 0, and count within a group in dimension 1.
        """
        extent = int(self._analysis.coupling.extents[owner])
        kept_rows = self.kept(name, 0)
        counts = block_counts(self._removed[owner], extent, blocks)
        if (counts != counts[0]).any():  # whole groups go
            return array if kept_rows is None else array.take(kept_rows, axis=0)
        kept_full = np.delete(np.arange(extent, dtype=np.int64), self._removed[owner])
        relative = kept_full.reshape(blocks, -1) % (extent // blocks)
        rows = np.arange(array.shape[0]) if kept_rows is None else kept_rows
        sliced: NDArray[Any] = array[rows[:, None], relative[rows // (array.shape[0] // blocks)]]
        return sliced

    def _state(self) -> Iterator[ValueInfoProto]:
        """The graph inputs and outputs that carry state."""
        names = {name for pair in self._analysis.state for name in pair}
        yield from (info for info in (*self._draft.graph.input, *self._draft.graph.output) if info.name in names)

    def _declare_shapes(self) -> None:
        """Recorded shapes follow, and those of weights that are listed as graph inputs (IR version 3)."""
        for info in (*self._draft.graph.value_info, *self._state()):
            if info.name in self._analysis.graph.shapes.extents:
                for dim, recorded in enumerate(info.type.tensor_type.shape.dim):
                    if self.kept(info.name, dim) is not None:
                        recorded.dim_value = self.extent(info.name, dim)
        for info in self._draft.graph.input:
            weight = self._draft.weights.get(info.name)
            if weight is not None:
                info.CopyFrom(helper.make_tensor_value_info(info.name, weight.elem_type, weight.shape))


def _taken(array: NDArray[Any], kept: Mapping[int, IntArray]) -> NDArray[Any]:
    """These positions of these dimensions, which are in ascending order."""
    if len(kept) < 2 or 0 not in kept or array.nbytes < _LARGE:
        for dim, positions in kept.items():
            array = array.take(positions, axis=dim)
        return array
    # Some rows at a time: what lies between one dimension's cut and the next would take as much memory again.
    rows, inner = kept[0], {dim: positions for dim, positions in kept.items() if dim}
    shape = [len(kept[dim]) if dim in kept else extent for dim, extent in enumerate(array.shape)]
    taken = np.empty(shape, dtype=array.dtype)
    step = max(1, _LARGE * len(array) // array.nbytes)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        taken[part] = _taken(array[rows[part]], inner)
    return taken
