"""Protobuf's wire format, as far as finding fields in a serialised message without parsing it.

A message is a run of fields: a varint tag (number << 3 | wire type), then the value. That is all one has to
know to step over gigabytes of weights without touching them.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import TypeAlias

Buffer: TypeAlias = "bytes | mmap.mmap | memoryview"
Field: TypeAlias = tuple[int, int, int, int, int]
"""(field number, wire type, start of the tag, start of the value, end of the value)"""

VARINT, I64, LEN, I32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class WireError(ValueError):
    """The bytes are no protobuf message.

    Attributes:
        offset: byte at which reading failed.
        truncated: whether the bytes end inside a field; otherwise no writer of protobuf made them.
    """

    def __init__(self, message: str, offset: int, *, truncated: bool) -> None:
        super().__init__(f"{message} at byte {offset}")
        self.offset = offset
        self.truncated = truncated


def read_varint(buffer: Buffer, position: int, end: int) -> tuple[int, int]:
    """Read one varint; returns its value and the position after it."""
    value = shift = 0
    start = position
    while position < end:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if position - start >= _MAX_VARINT_BYTES:
            raise WireError("a number of more than ten bytes", start, truncated=False)
    raise WireError("the data end inside a number", start, truncated=True)


def write_varint(value: int) -> bytes:
    """Encode a non-negative integer."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_prefix(number: int, length: int) -> bytes:
    """Tag and length that stand before the bytes of a string, bytes or message field."""
    return write_varint(number << 3 | LEN) + write_varint(length)


def fields(buffer: Buffer, start: int, end: int) -> Iterator[Field]:
    """Iterate over the top-level fields of the message in ``buffer[start:end]``.

    Raises:
        WireError: the bytes are no message, or end inside a field.
    """
    position = start
    while position < end:
        tag_start = position
        tag, position = read_varint(buffer, position, end)
        number, wire_type = tag >> 3, tag & 7
        value_start = position
        if wire_type == LEN:
            length, value_start = read_varint(buffer, position, end)
            position = value_start + length
        elif wire_type == VARINT:
            _, position = read_varint(buffer, position, end)
        elif wire_type == I64:
            position += 8
        elif wire_type == I32:
            position += 4
        else:
            raise WireError(f"wire type {wire_type}, which ONNX does not use,", tag_start, truncated=False)
        if number == 0:
            raise WireError("a field numbered 0", tag_start, truncated=False)
        if position > end:
            raise WireError(
                f"field {number} needs {position - end} more bytes than there are", tag_start, truncated=True
            )
        yield number, wire_type, tag_start, value_start, position
