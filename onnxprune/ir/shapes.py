"""Shapes of all tensors, inferred on a skeleton without weight bytes.

Symbolic dimensions are bound to numbers, so that the analysis sees plain extents. Which extents really are fixed
is found by experiment: the shapes are inferred a second time under other bindings, and what differs is dynamic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnxprune.errors import ShapeError
from onnxprune.ir.control_flow import DOMAIN, is_open
from onnxprune.ir.control_shapes import BorderShapes, Carried, varying_values
from onnxprune.ir.extents import Binding, Extents, usual_binding
from onnxprune.ir.model import Model
from onnxprune.ir.protos import STANDARD_DOMAINS, captured_names, declare
from onnxprune.ir.session import inferred_by_runtime
from onnxprune.ir.values import READS_EXTENTS, Values
from onnxprune.ir.weights import Weight

_SMALL = 4096
_SMALL_FLOATS = 16
_MAX_ROUNDS = 50
_MOST_MENDED = 16
_MOST_SYMBOLS = 8
_STRETCH = 256
"""Nodes that are inferred together."""

Inferred: TypeAlias = "tuple[dict[str, Extents], dict[str, int], Values]"
"""Extents, element types, and the values that depend on extents."""


@dataclass(frozen=True)
class Shapes:
    """Extents of every tensor under one binding of the symbolic input dimensions.

    ``bound`` is the shape used for every graph input, and how open dimensions were found; ``extents`` maps tensor to
    shape, ``elem_types`` tensor to ONNX element type, ``dynamic`` holds the axes whose extent follows the input.
    ``other_binding`` is a second choice for the symbolic dimensions that infers as well, or None, and
    ``other_extents`` what tensors have then.
    """

    bound: Binding
    extents: Mapping[str, Extents]
    elem_types: Mapping[str, int]
    dynamic: frozenset[tuple[str, int]] = frozenset()
    other_binding: Mapping[str, Extents] | None = None
    values: Values | None = field(default=None, repr=False, compare=False)
    other_values: Values | None = field(default=None, repr=False, compare=False)
    other_extents: Mapping[str, Extents] = field(default_factory=dict, repr=False, compare=False)

    @property
    def binding(self) -> Mapping[str, Extents]:
        """The shape used for every graph input."""
        return self.bound.shapes

    @property
    def assumed(self) -> tuple[str, ...]:
        """The inputs of which some dimension was neither fixed by the model nor given by the caller."""
        return self.bound.assumed

    @property
    def given(self) -> Mapping[str, Extents]:
        """The shapes that the caller gave."""
        return self.bound.given

    def is_static(self, tensor: str, dim: int) -> bool:
        """Whether the extent of an axis is fixed by the model, whatever the input shapes."""
        return (tensor, dim) not in self.dynamic

    def value(self, tensor: str) -> NDArray[np.generic] | None:
        """The value of a small tensor that depends on shapes and constants only; None if it depends on data."""
        return self.values.value(tensor) if self.values is not None else None

    def static_value(self, tensor: str) -> NDArray[np.generic] | None:
        """Like :meth:`value`, but only if it is the same for all input shapes."""
        value = self.value(tensor)
        if value is None or self.other_values is None:
            return value
        other = self.other_values.value(tensor)
        same = other is not None and other.shape == value.shape and bool(np.array_equal(other, value))
        return value if same else None


def infer_shapes(model: Model, input_shapes: Mapping[str, Sequence[int]] | Binding | None = None) -> Shapes:
    """Infer the shapes of all tensors of ``model``.

    ``input_shapes`` maps graph inputs to complete shapes; or it is a binding of all inputs. Without one, dimensions
    that are left open take what ``extents.usual_binding`` says.

    Raises ShapeError for an unknown input, a shape that contradicts the model, or a graph that does not infer.
    """
    bound = input_shapes if isinstance(input_shapes, Binding) else usual_binding(model, input_shapes)
    extents, types, values = infer_under(model, bound.shapes)
    if not bound.free:
        return Shapes(bound, extents, types, values=values)
    probes = list(_probes(model, bound, extents))
    dynamic = {axis for _, other, _ in probes for axis in _differing(extents, other)}
    # Where only the bound shapes work, nothing is known to be fixed, which pins instead of guessing.
    shapes, other, other_values = max(
        reversed(probes), key=lambda probe: len(probe[1]), default=(None, {}, Values(model, {}))
    )
    dynamic.update((name, dim) for name, shape in extents.items() if name not in other for dim in range(len(shape)))
    return Shapes(bound, extents, types, frozenset(dynamic), shapes, values, other_values, other)


def _differing(extents: Mapping[str, Extents], other: Mapping[str, Extents]) -> Iterator[tuple[str, int]]:
    """The axes of tensors known to both whose extents differ; all of those whose rank does."""
    for name, shape in extents.items():
        found = other.get(name, shape)
        for dim, extent in enumerate(shape):
            if len(found) != len(shape) or found[dim] != extent:
                yield name, dim


def infer_under(model: Model, shapes: Mapping[str, Extents]) -> Inferred:
    """Extents and element types of all tensors, and what follows from extents, for these shapes of all inputs.

    Raises ShapeError where the graph does not infer.
    """
    return model.derived(_Inferring(tuple(shapes.items())))


def infer_elsewhere(model: Model, bound: Binding) -> Shapes:
    """What infers where open dimensions have other extents than ``bound`` has, and differ where they may.

    Where nodes contradict each other, what they make has the shape that it had if they did not.
    """
    # Extents that were found by trying may be the only ones: then batches alone are changed.
    probe = next(_other_shapes(bound)) if bound.trial is None else _moved(bound, {})
    other = replace(bound, shapes=probe)
    try:
        extents, types, values = infer_under(model, probe)
    except ShapeError:
        pass
    else:
        if all(name in extents for node in model.graph.node for name in node.output if name):
            return Shapes(other, extents, types, values=values)
    inference = _Inference(model, probe, (), patient=True)
    inference.run()
    for _ in range(_MOST_MENDED):
        if not inference.mend():
            break
        inference.run()
    return Shapes(other, inference.extents, inference.types, values=inference.values)


@dataclass(frozen=True)
class _Inferring:
    """Inference under one binding: a key that the model can remember the result by."""

    binding: tuple[tuple[str, Extents], ...]

    def __call__(self, model: Model) -> Inferred:
        return _infer(model, dict(self.binding))


def infer_constants(
    model: Model, weights: Mapping[str, Weight], nodes: Sequence[NodeProto]
) -> tuple[Mapping[str, Extents], Mapping[str, int]]:
    """Shapes and element types of what nodes of a model compute from weights alone, as far as onnx infers them.

    Raises ShapeError where the nodes contradict each other.
    """
    outputs = (onnx.ValueInfoProto(name=name) for node in nodes for name in node.output)
    inference = _Inference(model.piece(nodes, outputs=outputs, weights=weights), {}, ())
    inference.pass_through()
    return inference.extents, inference.types


def _other_shapes(bound: Binding) -> Iterator[dict[str, Extents]]:
    """Other shapes of the inputs, every open dimension changed; each by another amount first, then all alike."""
    extents = _extents(bound)
    # Symbols may be tied to each other or to a stride in ways the model does not declare, so retry coarser steps.
    for spread, step in ((64, 64), (0, 64), (0, 32)):
        yield _moved(bound, {symbol: step + spread * index for index, symbol in enumerate(extents)})
    # What is cut into pieces of a fixed length stays a multiple of it.
    yield _moved(bound, extents)


def _extents(bound: Binding) -> dict[str, int]:
    free = bound.free
    return dict(sorted((symbol, bound.shapes[name][dim]) for (name, dim), symbol in free.items()))


def _moved(bound: Binding, steps: Mapping[str, int]) -> dict[str, Extents]:
    """The shapes with these steps added to open dimensions, but 1 to batches."""
    free = bound.free
    batches = {symbol for (name, dim), symbol in free.items() if dim == 0 or bound.shapes[name][dim] == 1}

    def moved(name: str, dim: int, extent: int) -> int:
        symbol = free.get((name, dim))
        return extent if symbol is None else extent + (1 if symbol in batches else steps.get(symbol, 0))

    return {name: tuple(moved(name, *at) for at in enumerate(shape)) for name, shape in bound.shapes.items()}


def _probes(
    model: Model, bound: Binding, first: Mapping[str, Extents]
) -> Iterator[tuple[dict[str, Extents], dict[str, Extents], Values]]:
    """Infer again with open dimensions changed, all if possible, until no less is known than is in ``first``."""

    def probe(shapes: dict[str, Extents]) -> tuple[dict[str, Extents], dict[str, Extents], Values] | None:
        try:
            extents, _, values = infer_under(model, shapes)
        except ShapeError:
            return None
        return shapes, extents, values

    for shapes in _other_shapes(bound):
        found = probe(shapes)
        if found is not None:
            yield found
            if found[1].keys() >= first.keys():
                return
    # Some may have only one extent that fits: those that can be changed are, one after the other.
    steps: dict[str, int] = {}
    for symbol, extent in list(_extents(bound).items())[:_MOST_SYMBOLS]:
        found = probe(_moved(bound, {**steps, symbol: extent}))
        if found is not None:
            yield found
            if found[1].keys() >= first.keys():
                steps[symbol] = extent


def _infer(model: Model, binding: Mapping[str, Extents]) -> Inferred:
    """Extents and element types under one binding, and the values that depend on them."""
    varying: set[Carried] = set()
    while True:
        inference = _Inference(model, binding, varying)
        inference.run()
        # Loops are taken to keep the shapes of what they carry; those that turn out not to are inferred without.
        found = varying_values(model.graph.node, inference.extents) - varying if is_open(model) else set()
        if not found:
            return inference.extents, inference.types, inference.values
        varying |= found


class _Inference:
    """Shape inference in stretches of nodes, and rounds.

    Arithmetic on extents that are known is computed at once, and onnx need not look at it. A stretch ends where some
    extent in it is asked for, so that exporters' chains of Shape, Gather and Concat, which can be most of a graph,
    are followed in one go. Of the other nodes onnx infers what it can; where a shape depends on a computed tensor
    that it does not follow (a Reshape target, say), the value of that tensor is computed and handed to the next
    round, which looks at the open nodes only. There can be such a tensor in every layer: a round looks at one stretch
    of nodes, not at all that follows.
    What stays open then belongs to operators outside the standard: their recorded shapes and onnxruntime help.
    """

    def __init__(
        self, model: Model, binding: Mapping[str, Extents], varying: Collection[Carried], *, patient: bool = False
    ) -> None:
        self._model = model
        self._patient = patient
        self._declared = {i.name: i for i in model.graph.input}
        # Outputs that nobody reads (Dropout's mask) may stay unknown.
        self._read = {i for n in model.graph.node for i in (*n.input, *captured_names(n)) if i}
        self._read.update(o.name for o in model.graph.output)
        self._constants: dict[str, NDArray[np.generic]] = {}
        self.extents: dict[str, Extents] = {}
        self.types: dict[str, int] = {}
        for info in model.graph.input:
            if info.type.HasField("tensor_type"):
                self.types[info.name] = info.type.tensor_type.elem_type
                if info.name in binding:
                    self.extents[info.name] = tuple(binding[info.name])
        for name, weight in model.weights.items():
            self.extents[name] = weight.shape
            self.types[name] = weight.elem_type
            if weight.size <= (_SMALL if weight.elem_type in _INTEGERS else _SMALL_FLOATS):
                self._constants[name] = weight.array
        self.values = Values(model, self.extents)
        self._borders = BorderShapes(self.extents, self.types, self.values.value, varying)

    def run(self) -> None:
        """Infer until nothing new is found."""
        left = self.pass_through()
        # Once more all together: what is known of a shape only in part is not handed from stretch to stretch.
        while left:
            left = self._infer(left)
            if not left or not self._ask_runtime(left):
                break

    def pass_through(self) -> list[NodeProto]:
        """Infer stretch by stretch; returns the nodes that stay open."""
        return [node for stretch in self._stretches() for node in self._infer(stretch)]

    def _stretches(self) -> Iterator[list[NodeProto]]:
        """The nodes to infer, in order; each stretch has to be inferred before the next is asked for."""
        stretch: list[NodeProto] = []
        made: set[str] = set()
        computed: set[str] = set()
        for node in self._model.graph.node:
            names, asks = node.input, node.op_type in READS_EXTENTS and node.domain in STANDARD_DOMAINS
            if len(stretch) == _STRETCH or (asks and names[0] in made):
                yield stretch
                stretch, made = [], set()
            if (
                names[0] in self.extents
                if asks
                else not computed.isdisjoint(names) and all(name in self._constants for name in names)
            ):
                outputs = [name for name in node.output if name]
                if self._compute(outputs):
                    computed.update(outputs)
                    continue
            stretch.append(node)
            made.update(node.output)
        if stretch:
            yield stretch

    def _compute(self, names: Sequence[str]) -> bool:
        """Take over the values of tensors, if they all can be computed, with the shapes that this gives them."""
        values = {name: self.values.value(name) for name in names}
        found = {name: value for name, value in values.items() if value is not None}
        if len(found) < len(values):
            return False
        self._constants.update(found)
        for name, value in found.items():
            self.extents[name] = value.shape
            self.types[name] = helper.np_dtype_to_tensor_dtype(value.dtype)
        return True

    def _infer(self, nodes: list[NodeProto]) -> list[NodeProto]:
        """Infer these nodes until nothing new is found; returns those that stay open."""
        for _ in range(_MAX_ROUNDS):
            before = len(self.extents)
            self._round(nodes)
            nodes = self._left(nodes)
            if not nodes:
                break
            found = self._compute_operands(nodes) or len(self.extents) > before
            if not (found or self._cross(nodes) or self._like_operand(nodes) or self._recorded(nodes)):
                break
            # What has been found otherwise is an input of the next round: its maker would hide it.
            nodes = self._left(nodes)
        return nodes

    def _left(self, nodes: list[NodeProto]) -> list[NodeProto]:
        """Those of which some output is still open."""
        return [n for n in nodes if any(o in self._read and o not in self.extents for o in n.output)]

    def _round(self, nodes: Sequence[NodeProto]) -> None:
        try:
            inferred = onnx.shape_inference.infer_shapes(self._skeleton(nodes), data_prop=True)
        except Exception as error:
            if self._patient:
                # Node by node: only those that contradict the others are left out.
                for half in (nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]) if len(nodes) > 1 else ():
                    self._round(half)
                return
            raise ShapeError(f"shape inference failed: {str(error).strip().splitlines()[0]}") from error
        self._learn((*inferred.graph.value_info, *inferred.graph.output))

    def _learn(self, infos: Iterable[ValueInfoProto]) -> int:
        """Take over complete shapes; returns how many were new."""
        known = len(self.extents)
        for info in infos:
            tensor_type = info.type.tensor_type
            if tensor_type.elem_type:
                self.types.setdefault(info.name, tensor_type.elem_type)
            if tensor_type.HasField("shape") and info.name not in self.extents:
                dims = tensor_type.shape.dim
                extents = tuple([d.dim_value for d in dims])
                # A dimension that is not known reads as 0.
                if 0 not in extents or all(d.HasField("dim_value") for d in dims):
                    self.extents[info.name] = extents
        return len(self.extents) - known

    def mend(self) -> bool:
        """Learn what the first node that contradicts its operands would make if one extent were another's; or not."""
        for node in self._left(list(self._model.graph.node)):
            operands = [name for name in node.input if name]
            if node.domain != DOMAIN and all(name in self.extents for name in operands):
                wanted = sorted({1, *(extent for name in operands for extent in self.extents[name])})
                if any(self._fits(node, name, wanted) for name in operands if self._is_made(name)):
                    return True
        return False

    def _is_made(self, name: str) -> bool:
        return name not in self._constants and name not in self._model.weights

    def _fits(self, node: NodeProto, name: str, wanted: Sequence[int]) -> bool:
        known, shape = len(self.extents), self.extents[name]
        for dim, extent in product(range(len(shape)), wanted):
            self.extents[name] = (*shape[:dim], extent, *shape[dim + 1 :])
            self._round([node])
            if len(self.extents) > known:
                break
        self.extents[name] = shape
        return len(self.extents) > known

    def _compute_operands(self, nodes: Sequence[NodeProto]) -> bool:
        """Compute values that may unblock an open node; whether there were any."""
        self.values.reconsider()
        fresh: dict[str, NDArray[np.generic]] = {}
        for node in nodes:
            for name in node.input:
                if name in self.extents and name not in self._constants and name not in self._model.weights:
                    value = self.values.value(name)
                    if value is not None:
                        fresh[name] = value
        self._constants.update(fresh)
        return bool(fresh)

    def _cross(self, nodes: Sequence[NodeProto]) -> bool:
        """Carry shapes into the bodies of control flow, and out of them."""
        borders = [node for node in nodes if node.domain == DOMAIN]
        return self._learn(info for node in borders for info in self._borders.infer(node)) > 0

    def _like_operand(self, nodes: Sequence[NodeProto]) -> bool:
        """Standard operators that onnx does not infer in all their forms; their results look like their operand."""
        known = [n for n in nodes if n.op_type in _LIKE_OPERAND and n.input[0] in self.extents]
        return (
            self._learn(
                helper.make_tensor_value_info(n.output[0], self.types[n.input[0]], self.extents[n.input[0]])
                for n in known
            )
            > 0
        )

    def _recorded(self, nodes: Sequence[NodeProto]) -> bool:
        """Use shapes that the file records for outputs of operators that onnx does not know."""
        outputs = {o for n in nodes if n.domain not in ("", "ai.onnx") for o in n.output}
        return self._learn(info for info in self._model.graph.value_info if info.name in outputs) > 0

    def _ask_runtime(self, nodes: Sequence[NodeProto]) -> bool:
        """Let onnxruntime infer: it knows the operators of its own domains."""
        skeleton = self._skeleton(nodes)
        wanted = [o for n in nodes for o in n.output if o in self._read and o not in self.extents]
        del skeleton.graph.output[:]
        for name in wanted:
            skeleton.graph.output.add().name = name
        shapes = inferred_by_runtime(skeleton)
        fresh = [helper.make_tensor_value_info(name, elem_type, shape) for name, (elem_type, shape) in shapes.items()]
        return self._learn(fresh) > 0

    def _skeleton(self, nodes: Sequence[NodeProto]) -> onnx.ModelProto:
        """These nodes, reading tensors of known shape as inputs."""
        skeleton = self._model.piece(nodes).skeleton
        graph = skeleton.graph
        made: set[str] = set()
        needed: dict[str, None] = {}
        for node in nodes:
            needed.update(dict.fromkeys((*node.input, *captured_names(node))))
            made.update(node.output)
        for name in needed:
            if not name or (name in made and name not in self.extents):
                continue
            if name in self._constants:
                graph.initializer.append(numpy_helper.from_array(np.asarray(self._constants[name]), name))
            elif name in made:
                continue
            elif name in self.extents:
                declare(graph.input.add(), name, self.types.get(name, 0), self.extents[name])
            elif name in self._declared:
                graph.input.append(self._declared[name])
        substituted = made & self._constants.keys()
        if substituted:
            # A computed value replaces its node; its other outputs, if any, stay unknown.
            kept = [n for n in graph.node if not any(o in substituted for o in n.output)]
            del graph.node[:]
            graph.node.extend(kept)
        for info in self._model.graph.output:
            if info.name in made:
                output = graph.output.add()
                output.name = info.name
                output.type.tensor_type.elem_type = info.type.tensor_type.elem_type
        return skeleton


_LIKE_OPERAND = frozenset({"MeanVarianceNormalization"})
_INTEGERS = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT8})
