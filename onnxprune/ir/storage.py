"""Where the values of a tensor are (a file, another file, a message, memory) and how they are read and written."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir.elements import BITS, DTYPES
from onnxprune.ir.wire import Buffer, field_prefix

Array: TypeAlias = npt.NDArray[Any]

RAW_DATA = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number


class Described(Protocol):
    """What has to be known of a tensor to read its values."""

    @property
    def name(self) -> str: ...

    @property
    def elem_type(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


class Headed(Protocol):
    """What a tensor's header is asked from, when it is needed."""

    @property
    def header(self) -> TensorProto: ...


class Storage(Protocol):
    """Where the values of a tensor are. ``header`` is the rest of the tensor."""

    @property
    def copies(self) -> bool:
        """Whether every reading makes a copy of raw values, which is cheap but takes memory."""
        ...

    @property
    def streamed(self) -> bool:
        """Whether all values together may not fit into memory, so that nobody holds them."""
        ...

    def array(self, tensor: Described) -> Array: ...

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        """The serialised tensor, in pieces."""
        ...

    def encoded_size(self, header: TensorProto) -> int: ...


STREAMED = 1 << 20
"""Bytes; larger tensors in data files are read each time they are asked for, and held by nobody else."""


class ExternalFile:
    """A data file, opened at first use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def size(self) -> int | None:
        """Bytes, or None when there is no such file."""
        # os.path, which says no of names that no file can have.
        if os.path.isfile(self.path):
            _ = self._identity  # of the file that was there when the model was loaded
        return os.path.getsize(self.path) if os.path.isfile(self.path) else None

    @cached_property
    def view(self) -> memoryview:
        if not self.size:
            return memoryview(b"")
        try:
            with open(self.path, "rb") as file:
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise ModelError(f"external data {self.path} cannot be read: {error}") from error

    def read(self, offset: int, length: int) -> Buffer:
        """A stretch of it, mapped by itself: it counts as memory of the process only as long as somebody holds it."""
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        try:
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_ino != self._identity:
                    raise ModelError(f"external data {self.path} is another file than when the model was loaded")
                whole = _mapped(file.fileno(), offset - start + length, start)
        except (OSError, ValueError) as error:
            raise ModelError(f"external data {self.path} cannot be read: {error}") from error
        return whole[offset - start :]

    @cached_property
    def _identity(self) -> int:
        return os.stat(self.path).st_ino


def _mapped(descriptor: int, length: int, start: int) -> memoryview:
    """A stretch of a file, mapped; at one go where the system can, which is faster than page by page."""
    if hasattr(mmap, "MAP_POPULATE"):
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        return memoryview(mmap.mmap(descriptor, length, flags, mmap.PROT_READ, offset=start))
    return memoryview(mmap.mmap(descriptor, length, access=mmap.ACCESS_READ, offset=start))


@dataclass(frozen=True, eq=False)
class Raw:
    """Little-endian, packed bytes."""

    raw: Buffer

    copies: ClassVar[bool] = False
    streamed: ClassVar[bool] = False

    def array(self, tensor: Described) -> Array:
        return _decode(self.raw, tensor)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        yield header.SerializeToString()
        yield field_prefix(RAW_DATA, len(self.raw))
        yield self.raw

    def encoded_size(self, header: TensorProto) -> int:
        return header.ByteSize() + len(field_prefix(RAW_DATA, len(self.raw))) + len(self.raw)


@dataclass(frozen=True, eq=False)
class External:
    """A stretch of an external data file; written inline as raw bytes."""

    file: ExternalFile
    offset: int
    length: int

    @property
    def copies(self) -> bool:
        return self.streamed

    @property
    def streamed(self) -> bool:
        return self.length >= STREAMED

    def array(self, tensor: Described) -> Array:
        return self._raw.array(tensor)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        return self._raw.chunks(header)

    def encoded_size(self, header: TensorProto) -> int:
        return header.ByteSize() + len(field_prefix(RAW_DATA, self.length)) + self.length

    @property
    def _raw(self) -> Raw:
        if self.streamed:
            return Raw(self.file.read(self.offset, self.length))
        return Raw(self.file.view[self.offset : self.offset + self.length])


@dataclass(frozen=True, eq=False)
class Computed:
    """Values made from others each time they are asked for."""

    make: Callable[[], Array]

    copies: ClassVar[bool] = True
    streamed: ClassVar[bool] = True

    def array(self, tensor: Described) -> Array:
        array = self.make()
        assert array.shape == tensor.shape, f"{tensor.name}: {array.shape} instead of {tensor.shape}"
        return array

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        return Raw(little_endian(self.make(), header.data_type)).chunks(header)

    def encoded_size(self, header: TensorProto) -> int:
        length = packed_bytes(header.data_type, header.dims)
        return header.ByteSize() + len(field_prefix(RAW_DATA, length)) + length


@dataclass(frozen=True, eq=False)
class Serialized:
    """A serialised TensorProto, and the stretch of it that is raw data (None: it has typed fields)."""

    encoded: memoryview
    raw: memoryview | None

    copies: ClassVar[bool] = False
    streamed: ClassVar[bool] = False

    def array(self, tensor: Described) -> Array:
        if self.raw is not None:
            return _decode(self.raw, tensor)
        message = TensorProto()
        message.ParseFromString(bytes(self.encoded))
        return _typed_values(message)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        yield self.encoded

    def encoded_size(self, header: TensorProto) -> int:
        return len(self.encoded)


@dataclass(frozen=True, eq=False)
class InMessage:
    """A TensorProto, of the caller or of our own."""

    message: TensorProto

    streamed: ClassVar[bool] = False

    @property
    def copies(self) -> bool:
        return self.message.HasField("raw_data")

    def array(self, tensor: Described) -> Array:
        if self.message.HasField("raw_data"):
            return _decode(self.message.raw_data, tensor)
        return _typed_values(self.message)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        yield self.message.SerializeToString()

    def encoded_size(self, header: TensorProto) -> int:
        return self.message.ByteSize()


@dataclass(frozen=True, eq=False)
class Renamed:
    """Values stored under another header.

    A name given twice in a serialised message means the latter, so appending it is enough; nothing is copied.
    """

    storage: Storage
    original: Headed

    @property
    def copies(self) -> bool:
        return self.storage.copies

    @property
    def streamed(self) -> bool:
        return self.storage.streamed

    def array(self, tensor: Described) -> Array:
        return self.storage.array(tensor)

    def chunks(self, header: TensorProto) -> Iterator[Buffer]:
        yield from self.storage.chunks(self.original.header)
        yield TensorProto(name=header.name).SerializeToString()

    def encoded_size(self, header: TensorProto) -> int:
        return self.storage.encoded_size(self.original.header) + TensorProto(name=header.name).ByteSize()


def packed_bytes(elem_type: int, shape: Iterable[int]) -> int:
    """Bytes that the values of a tensor take as raw data (0 for strings and types that are not known)."""
    return (math.prod(shape) * BITS.get(elem_type, 0) + 7) // 8


def contents(values: Array) -> Buffer:
    """The bytes of an array in row-major order, not copied where they lie so."""
    if values.dtype == object:
        # Arrays of strings hold pointers, which are others in every process.
        return repr(values.tolist()).encode()
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _decode(raw: Buffer, tensor: Described) -> Array:
    """The array in the raw data of a tensor; a view of them unless several values share a byte."""
    elem_type, shape = tensor.elem_type, tensor.shape
    if elem_type not in DTYPES or (shape and min(shape) < 0):
        raise ModelError(
            f"tensor {tensor.name!r} has element type {elem_type} and dimensions {list(shape)}, "
            "which this version of onnx does not know; export the model again or update onnx"
        )
    needed = packed_bytes(elem_type, shape)
    if len(raw) != needed:
        raise ModelError(
            f"tensor {tensor.name!r} of dimensions {list(shape)} needs {needed} bytes "
            f"but has {len(raw)}; the file is damaged, fetch or export it again"
        )
    if BITS.get(elem_type, 8) < 8:
        message = TensorProto(raw_data=bytes(raw), dims=shape, data_type=elem_type)
        return np.asarray(numpy_helper.to_array(message))
    return np.frombuffer(raw, dtype=DTYPES[elem_type].newbyteorder("<")).reshape(shape)


def _typed_values(message: TensorProto) -> Array:
    """The array of a tensor that keeps its values in float_data, int32_data, ..."""
    try:
        return np.asarray(numpy_helper.to_array(message))
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"tensor {message.name!r} of dimensions {list(message.dims)} cannot be read ({error}); "
            "the file is damaged, fetch or export it again"
        ) from error


def little_endian(array: Array, elem_type: int) -> Buffer:
    """The values of an array as ONNX stores them raw; not copied when they are already so."""
    if BITS.get(elem_type, 8) < 8:
        return numpy_helper.from_array(array).raw_data
    ordered = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return ordered.reshape(-1).view(np.uint8).data
