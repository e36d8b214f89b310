"""The model: one door in and one door out, through which nothing is lost."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Collection, Iterable, Mapping, MutableSequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import onnx
from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto, helper

from onnxprune.errors import ModelError
from onnxprune.ir import doors, saving, surgeon
from onnxprune.ir.protos import undecodable
from onnxprune.ir.weights import Array, ExternalFiles, Weight
from onnxprune.ir.wire import LEN, WireError, field_prefix, fields

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs
    import onnx_ir

Source: TypeAlias = "str | os.PathLike[str] | ModelProto | bytes | onnx_ir.Model | gs.Graph"
ModelLike: TypeAlias = "Model | Source"
_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)

_GRAPH = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_KNOWN_FIELDS = frozenset(field.number for field in ModelProto.DESCRIPTOR.fields)
_FIRST_IR_WITH_CONSTANT_INITIALIZERS = 4


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model: a skeleton and its weights. Never mutated; ``edit`` makes another.

    Attributes:
        skeleton: everything but the main graph's initialisers. Do not change it.
        weights: the main graph's initialisers by name, in order.
        path: the file it was loaded from, or None.
        sources: the files that hold its bytes (the model's and its external data), which ``save`` protects.
    """

    skeleton: ModelProto
    weights: Mapping[str, Weight]
    path: Path | None = None
    sources: tuple[Path, ...] = ()
    _derived: dict[Callable[[Model], Any], Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        """One line: graphs and weights are too long to be shown."""
        where = f" of {self.path}" if self.path is not None else ""
        return f"Model({len(self.graph.node)} nodes, {len(self.weights)} weights{where})"

    @property
    def graph(self) -> GraphProto:
        """The main graph without initialisers. Do not change it."""
        return self.skeleton.graph

    def opset(self, domain: str = "") -> int:
        """The version of an operator set that the model imports; ``ai.onnx`` is another name of ``""``.

        Raises:
            ModelError: the model does not import that domain.
        """
        wanted = _canonical_domain(domain)
        for entry in self.skeleton.opset_import:
            if _canonical_domain(entry.domain) == wanted:
                return entry.version
        if not wanted and self.skeleton.ir_version < 3:
            return 1  # IR versions 1 and 2 had no opset imports.
        raise ModelError(f"the model does not import operator set {domain or 'ai.onnx'!r}; export it again")

    @cached_property
    def proto(self) -> ModelProto:
        """The whole model as one ModelProto, built at first use and kept. Do not change it."""
        return self.to_proto()

    def to_proto(self) -> ModelProto:
        """The whole model as a new ModelProto, external data inside."""
        proto = ModelProto()
        proto.CopyFrom(self.skeleton)
        proto.graph.initializer.extend(weight.to_proto() for weight in self.weights.values())
        return proto

    @cached_property
    def file_size(self) -> int:
        """Bytes that the model takes on disk with everything in one file."""
        return saving.file_size(self.skeleton, self.weights.values())

    def derived(self, compute: Callable[[Model], _T]) -> _T:
        """``compute(self)``, computed once: a model never changes, nor does what follows from it."""
        if compute not in self._derived:
            self._derived[compute] = compute(self)
        return cast(_T, self._derived[compute])

    def edit(self, without_nodes: Collection[int] = ()) -> Draft:
        """A mutable copy that shares the weights.

        Args:
            without_nodes: indices of nodes of the main graph to leave out.
        """
        skeleton = ModelProto()
        if without_nodes:
            _copy_but("graph", self.skeleton, skeleton)
            _copy_but("node", self.graph, skeleton.graph)
            kept = (node for index, node in enumerate(self.graph.node) if index not in without_nodes)
            skeleton.graph.node.extend(kept)
        else:
            skeleton.CopyFrom(self.skeleton)
        return Draft(skeleton, dict(self.weights), self.path, self.sources)

    def piece(
        self,
        nodes: Iterable[NodeProto],
        inputs: Iterable[ValueInfoProto] = (),
        outputs: Iterable[ValueInfoProto] = (),
        weights: Mapping[str, Weight] = MappingProxyType({}),
    ) -> Model:
        """Some nodes as a model of its own, with the operator sets and functions of this one, and constant weights."""
        version = max(self.skeleton.ir_version, _FIRST_IR_WITH_CONSTANT_INITIALIZERS)
        skeleton = ModelProto(ir_version=version, graph=GraphProto(name="piece"))
        skeleton.opset_import.extend(self.skeleton.opset_import)
        skeleton.functions.extend(self.skeleton.functions)
        skeleton.graph.node.extend(nodes)
        skeleton.graph.input.extend(inputs)
        skeleton.graph.output.extend(outputs)
        return Model(skeleton, MappingProxyType(dict(weights)))

    def save(
        self, path: str | os.PathLike[str], *, overwrite_input: bool = False, external_data: float | None = None
    ) -> None:
        """Write the model, atomically: the file is complete, or what was there before.

        External data go to ``<name>.<hash>.data`` beside it when they came so, or when protobuf's limit of 2 GB is
        passed; the data that a model in its place had there go, unless something else needs them.

        Args:
            path: the file to write.
            overwrite_input: allow ``path`` to be the file that this model was loaded from. Its external data stay.
            external_data: make all weights external data, in files of at most so many bytes (``math.inf``: one).

        Raises:
            ModelError: the file cannot be written, or is the input.
        """
        weights = self.weights.values()
        saving.save(
            self.skeleton, weights, Path(path), self.sources,
            original=self.path, overwrite=overwrite_input, external_data=external_data,
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """The model as a serialised ModelProto. Raises ModelError where it exceeds what that can hold (2 GB)."""
        try:
            return self.to_proto().SerializeToString()
        except (ValueError, EncodeError) as error:
            raise ModelError(f"the model does not fit into one message ({error}); save it to a file") from error

    def to_ir(self) -> onnx_ir.Model:
        """A new ``onnx_ir.Model``, free to change; ``load`` takes it back. Raises UsageError without onnx-ir."""
        return doors.to_ir(self.to_proto())

    def to_graphsurgeon(self) -> Any:
        """A new onnx-graphsurgeon graph, free to change; ``with_graphsurgeon`` brings it back."""
        return surgeon.import_graph(self.to_proto())

    def with_graphsurgeon(self, graph: Any) -> Model:
        """This model with an edited graph of ``to_graphsurgeon``.

        Keeps what onnx-graphsurgeon does not: IR and model version, domain, doc strings, metadata of model,
        graph and nodes, the text of functions that were not touched. Weights that are equal stay shared.
        """
        proto = surgeon.merge(self.to_proto(), graph)
        merged = _from_proto(proto)
        draft = Draft(merged.skeleton, dict(merged.weights), self.path, self.sources)
        for name, weight in merged.weights.items():
            old = self.weights.get(name)
            if old is not None and old.to_proto() == weight.to_proto():
                draft.weights[name] = old
        draft.list_inputs(name for name in draft.weights if name not in self.weights)
        return draft.finish()


@dataclass(eq=False)
class Draft:
    """A model being edited. ``finish`` ends the editing; do not use the draft afterwards."""

    skeleton: ModelProto
    weights: dict[str, Weight]
    path: Path | None = None
    sources: tuple[Path, ...] = ()

    @property
    def graph(self) -> GraphProto:
        """The main graph without initialisers."""
        return self.skeleton.graph

    def finish(self) -> Model:
        """The edited model."""
        return Model(self.skeleton, MappingProxyType(self.weights), self.path, self.sources)

    def unique_name(self, base: str) -> str:
        """``base``, or ``base_1``, ``base_2``, ...: the first that no tensor of the model bears."""
        if base not in self._names:
            self._names.add(base)
            return base
        number = 1
        while (name := f"{base}_{number}") in self._names:
            number += 1
        self._names.add(name)
        return name

    def add_weight(self, name: str, array: Array) -> Weight:
        """Add an initialiser of a name that is free (see ``unique_name``); the array is not copied.

        Raises:
            ModelError: there is a weight of that name.
        """
        return self.add(Weight.from_array(name, array))

    def add(self, weight: Weight) -> Weight:
        """Add an initialiser.

        Raises:
            ModelError: there is a weight of that name.
        """
        if weight.name in self.weights:
            raise ModelError(f"there is already a weight {weight.name!r}; take another name")
        self.weights[weight.name] = weight
        self.list_inputs((weight.name,))
        return weight

    def remove_weights(self, names: Collection[str]) -> None:
        """Remove initialisers, also from the graph's inputs: left there, they would have to be fed."""
        for name in names:
            del self.weights[name]
        _keep(self.graph.input, [value for value in self.graph.input if value.name not in names])

    def remove_nodes(self, indices: Collection[int]) -> None:
        """Remove nodes of the main graph (``Model.edit(without_nodes)`` does not even copy them)."""
        for index in sorted(indices, reverse=True):
            del self.graph.node[index]

    def set_nodes(self, nodes: Iterable[NodeProto]) -> None:
        """Let these be the nodes of the main graph, in this order; they may be its own."""
        copies = []
        for node in nodes:
            copies.append(NodeProto())
            copies[-1].CopyFrom(node)
        del self.graph.node[:]
        self.graph.node.extend(copies)

    def replace_uses(self, names: Mapping[str, str]) -> None:
        """Let nodes of the main graph that read one tensor read another: old names to new ones."""
        for node in self.graph.node:
            _rename(node.input, names)

    def rename(self, names: Mapping[str, str]) -> None:
        """Give tensors of the main graph's nodes other names, where they are made and read; recorded shapes go.

        Graph inputs and outputs, bodies and annotations refer to tensors by their names and are not changed.
        """
        self.replace_uses(names)
        for node in self.graph.node:
            _rename(node.output, names)
        _keep(self.graph.value_info, [value for value in self.graph.value_info if value.name not in names])

    def list_inputs(self, names: Iterable[str]) -> None:
        """List weights as graph inputs where the IR version (3 or less) asks for it."""
        if self.skeleton.ir_version >= _FIRST_IR_WITH_CONSTANT_INITIALIZERS:
            return
        listed = {value.name for value in self.graph.input}
        for name in names:
            if name not in listed:
                weight = self.weights[name]
                self.graph.input.append(helper.make_tensor_value_info(name, weight.elem_type, weight.shape))

    @cached_property
    def _names(self) -> set[str]:
        return {*self.weights, *tensor_names(self.graph)}


def load(source: Source) -> Model:
    """Open an ONNX model. Weights are read when they are asked for, so this is fast for any size.

    Args:
        source: a file, a ModelProto or its bytes, an ``onnx_ir.Model`` or an onnx-graphsurgeon graph. Tensors of what
            is in memory are referred to, not copied: leave them unchanged.

    Raises:
        ModelError: not a file, not ONNX, truncated, or weights are missing.
    """
    source = doors.opened(source)
    if isinstance(source, ModelProto):
        try:
            return _from_proto(source)
        except UnicodeDecodeError as error:
            raise ModelError("the model has text that is not UTF-8; export it again") from error
    path = Path(source)
    buffer = _map(path)
    try:
        return _from_buffer(buffer, path)
    except WireError as error:
        raise ModelError(f"{path} {_diagnosis(buffer, error)}") from error
    except DecodeError as error:
        raise ModelError(f"{path} is not a valid ONNX file ({error}); fetch or export it again") from error


def as_model(source: ModelLike) -> Model:
    """A Model as it is, anything else loaded."""
    return source if isinstance(source, Model) else load(source)


def _from_proto(proto: ModelProto) -> Model:
    if not proto.HasField("graph"):
        raise ModelError("the ModelProto holds no graph; pass a complete model")
    skeleton = ModelProto()
    _copy_but("graph", proto, skeleton)
    _copy_but("initializer", proto.graph, skeleton.graph)
    external = ExternalFiles()
    weights = [Weight.from_proto(tensor, external) for tensor in proto.graph.initializer]
    return _model(skeleton, weights, None)


def _copy_but(left_out: str, source: _M, target: _M) -> None:
    """Copy a message into an empty one without one of its fields, which may be large and is not touched."""
    target.SetInParent()
    if len(UnknownFieldSet(source)):
        # Fields of a newer onnx cannot be copied one by one, only with the whole message.
        target.CopyFrom(source)
        target.ClearField(left_out)
        return
    for name in source.DESCRIPTOR.fields_by_name:
        if name == left_out:
            continue
        value = getattr(source, name)
        if isinstance(value, Message):
            if source.HasField(name):
                getattr(target, name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, name).extend(value)
        elif source.HasField(name):
            setattr(target, name, value)


def _from_buffer(buffer: memoryview, path: Path) -> Model:
    """Split a serialised model into skeleton and weights."""
    external = ExternalFiles(path.parent)
    head: list[memoryview] = []
    graph: list[memoryview] = []
    weights: list[Weight] = []
    has_graph = False
    for number, wire_type, tag, value, end in fields(buffer, 0, len(buffer)):
        if number not in _KNOWN_FIELDS and not has_graph and not head:
            raise WireError(f"field {number}, which no ONNX model begins with,", tag, truncated=False)
        if (number, wire_type) != (_GRAPH, LEN):
            head.append(buffer[tag:end])
            continue
        has_graph = True
        for inner, inner_type, inner_tag, inner_value, inner_end in fields(buffer, value, end):
            if (inner, inner_type) == (_INITIALIZER, LEN):
                weights.append(Weight.from_wire(buffer, inner_value, inner_end, external))
            else:
                graph.append(buffer[inner_tag:inner_end])
    if not has_graph:
        raise ModelError(f"{path} holds no graph; it is no ONNX model, or only a part of one: export it again")
    skeleton = ModelProto()
    inside = b"".join(graph)
    skeleton.ParseFromString(b"".join([*head, field_prefix(_GRAPH, len(inside)), inside]))
    return _model(skeleton, weights, path)


def _model(skeleton: ModelProto, weights: list[Weight], path: Path | None) -> Model:
    place = undecodable(skeleton) or next(("a weight" for weight in weights if not isinstance(weight.name, str)), None)
    if place:
        raise ModelError(f"{path or 'the model'} is damaged: the name of {place} is not UTF-8; export it again")
    by_name = {weight.name: weight for weight in weights}
    if len(by_name) < len(weights):
        names = [weight.name for weight in weights]
        double = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"two initialisers are named {double!r}; names must be unique: export the model again")
    external = dict.fromkeys(weight.source for weight in weights if weight.source is not None)
    sources = ((path,) if path is not None else ()) + tuple(external)
    return Model(skeleton, MappingProxyType(by_name), path, sources)


def _map(path: Path) -> memoryview:
    """Map a file into memory, read-only."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise ModelError(f"{path} is empty; fetch or export the model again")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except IsADirectoryError:
        raise ModelError(f"{path} is a folder; give the .onnx file in it") from None
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist; {_nearby(path)}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _nearby(path: Path) -> str:
    """What to do about a file that is not there: the one beside it that was meant, if there is one."""
    from difflib import get_close_matches

    try:
        beside = [name for name in os.listdir(path.parent) if name.endswith(path.suffix or ".onnx")]
    except OSError:
        beside = []
    close = get_close_matches(path.name, beside, 1)
    return f"did you mean {path.with_name(close[0])}?" if close else "check the path"


def _diagnosis(buffer: memoryview, error: WireError) -> str:
    """What is wrong with a file that is no sequence of protobuf fields, and what to do."""
    start = bytes(buffer[:200])
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the model itself; fetch it with 'git lfs pull'"
    if all(byte >= 32 or byte in b"\t\n\r" for byte in start):
        return "is a text file, not an ONNX model; give the binary .onnx file"
    if error.truncated and _begins_like_a_model(buffer):
        return f"is truncated: {error}; fetch or export it again"
    return f"is not an ONNX file: {error}; export the model to ONNX first"


def _begins_like_a_model(buffer: memoryview) -> bool:
    """Whether the first field is one that ONNX writers begin with: the IR version, or the producer's name."""
    return len(buffer) > 0 and buffer[0] in (0x08, 0x12)


def _keep(values: MutableSequence[ValueInfoProto], kept: list[ValueInfoProto]) -> None:
    """Drop the others, if there are any."""
    if len(kept) < len(values):
        del values[:]
        values.extend(kept)


def _rename(values: MutableSequence[str], names: Mapping[str, str]) -> None:
    for number, name in enumerate(values):
        if name in names:
            values[number] = names[name]


def _canonical_domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def tensor_names(graph: GraphProto) -> set[str]:
    """Every name of a tensor in a graph and the graphs inside it."""
    names = {value.name for values in (graph.input, graph.output, graph.value_info) for value in values}
    names.update(tensor.name for tensor in graph.initializer)
    names.update(tensor.values.name for tensor in graph.sparse_initializer)
    for node in graph.node:
        names.update(node.input)
        names.update(node.output)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                names |= tensor_names(attribute.g)
            for inner in attribute.graphs:
                names |= tensor_names(inner)
    return names
