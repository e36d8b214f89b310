"""Weights: initialisers whose values are read when asked for, and written as they came when unchanged."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.storage import (
    RAW_DATA,
    Array,
    Computed,
    External,
    ExternalFile,
    InMessage,
    Raw,
    Renamed,
    Serialized,
    Storage,
    contents,
    little_endian,
    packed_bytes,
)
from onnxprune.ir.wire import Buffer, fields

__all__ = ["Array", "ExternalFiles", "Weight"]

_FIELD = {field.name: field.number for field in TensorProto.DESCRIPTOR.fields}
_HEADER_SCALARS = ("name", "data_type", "doc_string", "data_location")
_HEADER_ENTRIES = tuple(name for name in ("external_data", "metadata_props") if name in _FIELD)
_SMALLEST_DROPPED = 1 << 14
"""Bytes; smaller values (operands) are read often, and held at no cost."""
_LARGEST_DROPPED = 1 << 24
"""Bytes; the C library does not use larger blocks again, so that reading them twice costs twice."""
_LISTS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_VALUE_NUMBERS = frozenset(_FIELD[name] for name in ("raw_data", *_LISTS))


@dataclass(frozen=True, eq=False)
class Weight:
    """One initialiser: its header, and a way to its values. Never mutated; edits make new weights.

    Attributes:
        origin: a TensorProto with its doc string and metadata; the rest of it does not count.
        storage: where the values are.
        name: name of the tensor.
        elem_type: ``onnx.TensorProto`` data type.
        shape: extents.
        source: the external data file it came from, or None when it came inside the model.
    """

    origin: TensorProto
    storage: Storage
    name: str
    elem_type: int
    shape: tuple[int, ...]
    source: Path | None

    @cached_property
    def header(self) -> TensorProto:
        """The TensorProto without its values (name, dims, type, doc string, metadata). Do not change it."""
        # Made when asked for: there are many weights, and few are written.
        header = _header_of(self.origin)
        if header.name != self.name:
            header.name = self.name
        if tuple(header.dims) != self.shape:
            header.ClearField("dims")
            header.dims.extend(self.shape)
        if header.data_type != self.elem_type:
            header.data_type = self.elem_type
        return header

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values as ONNX packs them; 0 for strings, whose lengths are not in the header."""
        return packed_bytes(self.elem_type, self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy (or ml_dtypes) type of ``array``."""
        return helper.tensor_dtype_to_np_dtype(self.elem_type)

    @property
    def array(self) -> Array:
        """The values, of shape ``shape``, read-only; a view of the file where the format allows.

        Raises:
            ModelError: the tensor holds fewer or more values than its shape says, or its type is unknown.
        """
        # What is copied out of a message at every reading is not held, so that the copies use the same warm memory
        # one after the other: reading all weights of ResNet-50 once takes 67 ms when they are held and 9 ms when not.
        most = math.inf if self.storage.streamed else _LARGEST_DROPPED
        if self.storage.copies and _SMALLEST_DROPPED <= self.nbytes <= most:
            return self._read()
        return self._held

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the values, which are read for it once: a weight never changes."""
        return hashlib.sha256(contents(self.array)).digest()  # of those in hashlib the fastest where processors know it

    @cached_property
    def _held(self) -> Array:
        return self._read()

    def _read(self) -> Array:
        array: Array = self.storage.array(self)
        if array.flags.writeable:
            array = array.view()
            array.flags.writeable = False
        return array

    def with_array(self, array: Array) -> Weight:
        """Other values under the same name, doc string and metadata; shape and type are the array's.

        The array is not copied: do not write to it afterwards.
        """
        elem_type = helper.np_dtype_to_tensor_dtype(array.dtype.newbyteorder("="))
        if elem_type == TensorProto.STRING:
            message = TensorProto(string_data=numpy_helper.from_array(array).string_data)
            message.MergeFrom(Weight(self.origin, Raw(b""), self.name, elem_type, array.shape, None).header)
            return _weight(message, InMessage(message), None)
        raw = Raw(little_endian(array, elem_type))
        return Weight(self.origin, raw, self.name, elem_type, array.shape, self.source)

    def derived(self, make: Callable[[Array], Array], shape: tuple[int, ...]) -> Weight:
        """What a function makes of the values, of this shape and the same type.

        It is called once, or, where all values together may not fit into memory, whenever they are asked for.
        """
        if not self.storage.streamed:
            return self.with_array(make(self.array))
        return Weight(self.origin, Computed(lambda: make(self.array)), self.name, self.elem_type, shape, self.source)

    def renamed(self, name: str) -> Weight:
        """The same values under another name."""
        storage = Renamed(self.storage, self)
        return Weight(self.origin, storage, name, self.elem_type, self.shape, self.source)

    def placed(self, location: str, offset: int) -> Weight:
        """The same tensor, to be written as a reference to external data (see ``raw_bytes`` for those)."""
        message = TensorProto()
        message.CopyFrom(self.header)
        message.data_location = TensorProto.EXTERNAL
        for key, value in {"location": location, "offset": offset, "length": self.nbytes}.items():
            message.external_data.add(key=key, value=str(value))
        return _weight(message, InMessage(message), self.source)

    def raw_bytes(self) -> Buffer:
        """The values as little-endian, packed bytes, as they are stored in external data files."""
        return little_endian(self.array, self.elem_type)

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
        empty = _weight(TensorProto(name=name), Raw(b""), None)
        return empty.with_array(array)

    @staticmethod
    def from_proto(proto: TensorProto, external: ExternalFiles) -> Weight:
        """Refer to a TensorProto, which must not change while the weight is in use."""
        if proto.data_location == TensorProto.EXTERNAL:
            return external.weight(_header_of(proto))
        return _weight(proto, InMessage(proto), None)

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
            if number == RAW_DATA:
                raw = buffer[value:stop]
            elif number not in _VALUE_NUMBERS:
                header_parts.append(buffer[tag:stop])
        header = TensorProto()
        header.ParseFromString(b"".join(header_parts))
        if header.data_location == TensorProto.EXTERNAL:
            return external.weight(header)
        return _weight(header, Serialized(buffer[start:end], raw), None)


def _header_of(proto: TensorProto) -> TensorProto:
    """Everything of a tensor but its values, which are not even looked at: that would copy them."""
    if not proto.HasField("raw_data") and not any(len(getattr(proto, name)) for name in _LISTS):
        header = TensorProto()
        header.CopyFrom(proto)
        return header
    header = TensorProto(dims=proto.dims)
    for name in _HEADER_SCALARS:
        if proto.HasField(name):
            value = getattr(proto, name)
            # Text that is not UTF-8 comes as bytes, and is not taken as such.
            setattr(header, name, value.decode(errors="replace") if isinstance(value, bytes) else value)
    for name in _HEADER_ENTRIES:
        entries = getattr(proto, name)
        if entries:
            getattr(header, name).extend(entries)
    return header


def _weight(origin: TensorProto, storage: Storage, source: Path | None) -> Weight:
    return Weight(origin, storage, origin.name, origin.data_type, tuple(origin.dims), source)


class ExternalFiles:
    """The external data files of one model, each opened once, when first read.

    Args:
        folder: the folder of the model file, which the locations are relative to.
    """

    def __init__(self, folder: Path = Path()) -> None:
        self._folder = folder
        self._files: dict[str, ExternalFile] = {}

    def weight(self, header: TensorProto) -> Weight:
        """A weight whose values are in an external file; checks that they are there, without reading them.

        Raises:
            ModelError: the file is missing, too short, or outside the folder of the model.
        """
        entries = {entry.key: entry.value for entry in header.external_data}
        location = entries.get("location", "")
        where = f"weights missing: tensor {header.name!r} wants file {location!r}"
        inside = os.path.normpath(location) if isinstance(location, str) else os.pardir
        if not location or os.path.isabs(inside) or inside.split(os.sep)[0] == os.pardir:
            raise ModelError(f"{where}, which is not in the model's folder; put it there and correct the location")
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries["length"]) if "length" in entries else packed_bytes(header.data_type, header.dims)
        except ValueError:
            raise ModelError(f"{where} at an offset or length that is no number; export the model again") from None
        file = self._files.setdefault(location, ExternalFile(self._folder / location))
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
        return _weight(plain, External(file, offset, length), file.path)
