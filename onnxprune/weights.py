"""Weights: initialisers whose values are read when asked for, and written as they came when unchanged."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from onnxprune._wire import Buffer, field_prefix, fields
from onnxprune.errors import ModelError

Array: TypeAlias = npt.NDArray[Any]
_M = TypeVar("_M", bound=Message)

_FIELD = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
_RAW_DATA = _FIELD["raw_data"]
_HEADER_SCALARS = ("name", "data_type", "doc_string", "data_location")
_HEADER_ENTRIES = tuple(name for name in ("external_data", "metadata_props") if name in _FIELD)
_VALUE_NUMBERS = frozenset(
    _FIELD[name]
    for name in ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
)

_BITS = {
    TensorProto.DataType.Value(name): bits
    for bits, names in {
        2: ("UINT2", "INT2"),
        4: ("UINT4", "INT4", "FLOAT4E2M1"),
        6: ("FLOAT6E2M3", "FLOAT6E3M2"),
    }.items()
    for name in names
    if hasattr(TensorProto, name)
}
"""Bits per element of the types that ONNX packs, several to a byte (those that the installed onnx knows)."""


def copy_fields(source: _M, target: _M, skip: Collection[str]) -> None:
    """Copy every set field of a message but those named in ``skip``, which are not even touched."""
    for field in source.DESCRIPTOR.fields:
        if field.name in skip:
            continue
        value = getattr(source, field.name)
        if isinstance(value, Message):
            if source.HasField(field.name):
                getattr(target, field.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif source.HasField(field.name):
            setattr(target, field.name, value)


class _Storage(Protocol):
    """Where the values of a tensor are. ``header`` is the rest of the tensor."""

    def array(self, header: TensorProto) -> Array: ...

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        """The serialised tensor, in pieces."""
        ...

    def encoded_size(self, header: TensorProto) -> int: ...


@dataclass(frozen=True, eq=False)
class Weight:
    """One initialiser: its header, and a way to its values. Never mutated; edits make new weights.

    Attributes:
        header: the TensorProto without its values (name, dims, type, doc string, metadata).
        storage: where the values are.
        name: name of the tensor.
        elem_type: ``onnx.TensorProto`` data type.
        shape: extents.
        source: the external data file it came from, or None when it came inside the model.
    """

    header: TensorProto
    storage: _Storage
    name: str
    elem_type: int
    shape: tuple[int, ...]
    source: Path | None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values as ONNX packs them; 0 for strings, whose lengths are not in the header."""
        return _packed_bytes(self.header)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy (or ml_dtypes) type of ``array``."""
        return helper.tensor_dtype_to_np_dtype(self.elem_type)

    @cached_property
    def array(self) -> Array:
        """The values, of shape ``shape``, read-only; a view of the file where the format allows.

        Raises:
            ModelError: the tensor holds fewer or more values than its shape says, or its type is unknown.
        """
        array: Array = self.storage.array(self.header).view()
        array.flags.writeable = False
        return array

    def with_array(self, array: Array) -> Weight:
        """Other values under the same name, doc string and metadata; shape and type are the array's.

        The array is not copied: do not write to it afterwards.
        """
        elem_type = helper.np_dtype_to_tensor_dtype(array.dtype.newbyteorder("="))
        header = TensorProto()
        header.CopyFrom(self.header)
        header.ClearField("dims")
        header.dims.extend(array.shape)
        header.data_type = elem_type
        if elem_type == TensorProto.STRING:
            message = TensorProto(string_data=numpy_helper.from_array(array).string_data)
            message.MergeFrom(header)
            return _weight(header, _InMessage(message), None)
        return _weight(header, _Raw(_little_endian(array, elem_type)), self.source)

    def renamed(self, name: str) -> Weight:
        """The same values under another name."""
        header = TensorProto()
        header.CopyFrom(self.header)
        header.name = name
        return _weight(header, _Renamed(self.storage, self.header), self.source)

    def placed(self, location: str, offset: int) -> Weight:
        """The same tensor, to be written as a reference to external data (see ``raw_bytes`` for those)."""
        message = TensorProto()
        message.CopyFrom(self.header)
        message.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": offset, "length": self.nbytes}.items():
            message.external_data.add(key=key, value=str(value))
        return _weight(message, _InMessage(message), self.source)

    def raw_bytes(self) -> Buffer:
        """The values as little-endian, packed bytes, as they are stored in external data files."""
        return _little_endian(self.array, self.elem_type)

    def to_proto(self) -> TensorProto:
        """A new TensorProto with all values inside, external ones too."""
        proto = TensorProto()
        proto.ParseFromString(b"".join(self.chunks()))
        return proto

    @property
    def encoded_size(self) -> int:
        """Length in bytes of the serialised TensorProto."""
        return self.storage.encoded_size(self.header)

    def chunks(self) -> Iterator[Buffer]:
        """The serialised TensorProto in pieces; large values are not copied."""
        return self.storage.chunks(self.header)

    @staticmethod
    def from_array(name: str, array: Array) -> Weight:
        """A new weight. The array is not copied: do not write to it afterwards."""
        empty = _weight(TensorProto(name=name), _Raw(b""), None)
        return empty.with_array(array)

    @staticmethod
    def from_proto(proto: TensorProto, external: ExternalFiles) -> Weight:
        """Refer to a TensorProto, which must not change while the weight is in use."""
        header = _header_of(proto)
        if header.data_location == TensorProto.EXTERNAL:
            return external.weight(header)
        return _weight(header, _InMessage(proto), None)

    @staticmethod
    def from_wire(buffer: memoryview, start: int, end: int, external: ExternalFiles) -> Weight:
        """Refer to the TensorProto serialised in ``buffer[start:end]`` without reading its values.

        Raises:
            WireError: the bytes are no message, or end early.
            ModelError: its external data are missing.
        """
        header_parts = []
        raw: memoryview | None = None
        for number, _, tag, value, stop in fields(buffer, start, end):
            if number == _RAW_DATA:
                raw = buffer[value:stop]
            elif number not in _VALUE_NUMBERS:
                header_parts.append(buffer[tag:stop])
        header = TensorProto()
        header.ParseFromString(b"".join(header_parts))
        if header.data_location == TensorProto.EXTERNAL:
            return external.weight(header)
        return _weight(header, _Serialized(buffer[start:end], raw), None)


def _header_of(proto: TensorProto) -> TensorProto:
    """Everything of a tensor but its values, which are not even looked at: that would copy them."""
    header = TensorProto(dims=proto.dims)
    for name in _HEADER_SCALARS:
        if proto.HasField(name):
            setattr(header, name, getattr(proto, name))
    for name in _HEADER_ENTRIES:
        entries = getattr(proto, name)
        if entries:
            getattr(header, name).extend(entries)
    return header


def _weight(header: TensorProto, storage: _Storage, source: Path | None) -> Weight:
    return Weight(header, storage, header.name, header.data_type, tuple(header.dims), source)


class ExternalFiles:
    """The external data files of one model, each opened once, when first read.

    Args:
        folder: the folder of the model file, which the locations are relative to.
    """

    def __init__(self, folder: Path = Path()) -> None:
        self._folder = folder
        self._files: dict[str, _ExternalFile] = {}

    def weight(self, header: TensorProto) -> Weight:
        """A weight whose values are in an external file; checks that they are there, without reading them.

        Raises:
            ModelError: the file is missing, too short, or outside the folder of the model.
        """
        entries = {entry.key: entry.value for entry in header.external_data}
        location = entries.get("location", "")
        where = f"weights missing: tensor {header.name!r} wants file {location!r}"
        inside = os.path.normpath(location)
        if not location or os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir:
            raise ModelError(f"{where}, which is not in the model's folder; put it there and correct the location")
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries["length"]) if "length" in entries else _packed_bytes(header)
        except ValueError:
            raise ModelError(f"{where} at an offset or length that is no number; export the model again") from None
        file = self._files.setdefault(location, _ExternalFile(self._folder / location))
        if file.size is None:
            raise ModelError(f"{where} in {self._folder}; put it beside the model")
        if offset < 0 or length < 0 or offset + length > file.size:
            raise ModelError(
                f"{where} to hold {length} bytes at offset {offset}, but it has {file.size} in all; "
                "fetch the file again"
            )
        plain = TensorProto()
        plain.CopyFrom(header)
        plain.ClearField("external_data")
        plain.data_location = TensorProto.DEFAULT
        return _weight(plain, _External(file, offset, length), file.path)


class _ExternalFile:
    """A data file, mapped at first use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def size(self) -> int | None:
        """Bytes, or None when there is no such file."""
        return self.path.stat().st_size if self.path.is_file() else None

    @cached_property
    def view(self) -> memoryview:
        if not self.size:
            return memoryview(b"")
        with open(self.path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@dataclass(frozen=True, eq=False)
class _Raw:
    """Little-endian, packed bytes."""

    raw: Buffer

    def array(self, header: TensorProto) -> Array:
        return _decode(self.raw, header)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        yield header.SerializeToString()
        yield field_prefix(_RAW_DATA, len(self.raw))
        yield self.raw

    def encoded_size(self, header: TensorProto) -> int:
        return header.ByteSize() + len(field_prefix(_RAW_DATA, len(self.raw))) + len(self.raw)


@dataclass(frozen=True, eq=False)
class _External:
    """A stretch of an external data file; written inline as raw bytes."""

    file: _ExternalFile
    offset: int
    length: int

    def array(self, header: TensorProto) -> Array:
        return self._raw.array(header)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        return self._raw.chunks(header)

    def encoded_size(self, header: TensorProto) -> int:
        return header.ByteSize() + len(field_prefix(_RAW_DATA, self.length)) + self.length

    @property
    def _raw(self) -> _Raw:
        return _Raw(self.file.view[self.offset : self.offset + self.length])


@dataclass(frozen=True, eq=False)
class _Serialized:
    """A serialised TensorProto, and the stretch of it that is raw data (None: it has typed fields)."""

    encoded: memoryview
    raw: memoryview | None

    def array(self, header: TensorProto) -> Array:
        if self.raw is not None:
            return _decode(self.raw, header)
        message = TensorProto()
        message.ParseFromString(bytes(self.encoded))
        return _typed_values(message)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        yield self.encoded

    def encoded_size(self, header: TensorProto) -> int:
        return len(self.encoded)


@dataclass(frozen=True, eq=False)
class _InMessage:
    """A TensorProto, of the caller or of our own."""

    message: TensorProto

    def array(self, header: TensorProto) -> Array:
        if self.message.HasField("raw_data"):
            return _decode(self.message.raw_data, header)
        return _typed_values(self.message)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        yield self.message.SerializeToString()

    def encoded_size(self, header: TensorProto) -> int:
        return self.message.ByteSize()


@dataclass(frozen=True, eq=False)
class _Renamed:
    """Values stored under another header.

    A name given twice in a serialised message means the latter, so appending it is enough; nothing is copied.
    """

    storage: _Storage
    header: TensorProto

    def array(self, header: TensorProto) -> Array:
        return self.storage.array(self.header)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        yield from self.storage.chunks(self.header)
        yield TensorProto(name=header.name).SerializeToString()

    def encoded_size(self, header: TensorProto) -> int:
        return self.storage.encoded_size(self.header) + TensorProto(name=header.name).ByteSize()


def _packed_bytes(header: TensorProto) -> int:
    """Bytes that the values of a tensor take as raw data (0 for strings and types that are not known)."""
    size = math.prod(header.dims)
    if header.data_type in _BITS:
        return (size * _BITS[header.data_type] + 7) // 8
    if header.data_type == TensorProto.STRING or header.data_type not in helper.get_all_tensor_dtypes():
        return 0
    return size * helper.tensor_dtype_to_np_dtype(header.data_type).itemsize


def _decode(raw: Buffer, header: TensorProto) -> Array:
    """The array in the raw data of a tensor; a view of them unless several values share a byte."""
    if header.data_type not in helper.get_all_tensor_dtypes() or any(extent < 0 for extent in header.dims):
        raise ModelError(
            f"tensor {header.name!r} has element type {header.data_type} and dimensions {list(header.dims)}, "
            "which this version of onnx does not know; export the model again or update onnx"
        )
    if len(raw) != _packed_bytes(header):
        raise ModelError(
            f"tensor {header.name!r} of dimensions {list(header.dims)} needs {_packed_bytes(header)} bytes "
            f"but has {len(raw)}; the file is damaged, fetch or export it again"
        )
    if header.data_type in _BITS:
        message = TensorProto(raw_data=bytes(raw), dims=header.dims, data_type=header.data_type)
        return np.asarray(numpy_helper.to_array(message))
    dtype = helper.tensor_dtype_to_np_dtype(header.data_type).newbyteorder("<")
    return np.frombuffer(raw, dtype=dtype).reshape(tuple(header.dims))


def _typed_values(message: TensorProto) -> Array:
    """The array of a tensor that keeps its values in float_data, int32_data, ..."""
    try:
        return np.asarray(numpy_helper.to_array(message))
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"tensor {message.name!r} of dimensions {list(message.dims)} cannot be read ({error}); "
            "the file is damaged, fetch or export it again"
        ) from error


def _little_endian(array: Array, elem_type: int) -> Buffer:
    """The values of an array as ONNX stores them raw; not copied when they are already so."""
    if elem_type in _BITS:
        return numpy_helper.from_array(array).raw_data
    ordered = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return ordered.reshape(-1).view(np.uint8).data
