"""The protobuf scanner against protobuf itself, and on bytes that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper

from onnxprune.ir.wire import WireError, field_prefix, fields, read_varint, write_varint


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_varint_round_trip(value: int) -> None:
    encoded = write_varint(value)
    assert read_varint(encoded, 0, len(encoded)) == (value, len(encoded))


def test_fields_cover_the_message() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=3, alpha=0.5, pads=[1, 2])
    data = node.SerializeToString()
    found = list(fields(data, 0, len(data)))
    assert [number for number, *_ in found] == [1, 1, 2, 3, 4, 5, 5, 5]
    assert b"".join(data[tag:end] for _, _, tag, _, end in found) == data
    number, _, _, value, end = found[0]
    assert (number, data[value:end]) == (1, b"x")


def test_fixed_width_fields() -> None:
    tensor = TensorProto(float_data=[1.0, 2.0], double_data=[3.0], dims=[2], data_type=1)
    data = tensor.SerializeToString()
    assert b"".join(data[tag:end] for _, _, tag, _, end in fields(data, 0, len(data))) == data
    unpacked = b"\x25\x00\x00\x80\x3f" + b"\x51" + bytes(8)  # float_data and double_data as older writers do
    assert [(n, v, e) for n, _, _, v, e in fields(unpacked, 0, len(unpacked))] == [(4, 1, 5), (10, 6, 14)]


def test_field_prefix() -> None:
    assert NodeProto.FromString(field_prefix(3, 5) + b"hello").name == "hello"
    long_name = "x" * 1000
    assert NodeProto.FromString(field_prefix(3, 1000) + long_name.encode()).name == long_name


@pytest.mark.parametrize(
    ("data", "truncated"),
    [
        (b"\x0a\x05abc", True),  # a string longer than the data
        (b"\x08\xff", True),  # a number without an end
        (b"\x0d\x00", True),  # four bytes wanted
        (b"\x09\x00", True),  # eight bytes wanted
        (b"\x0b", False),  # a group
        (b"\x02\x00", False),  # field 0
        (b"\x08" + b"\xff" * 11, False),  # a number too long
    ],
)
def test_bad_bytes(data: bytes, truncated: bool) -> None:
    with pytest.raises(WireError) as caught:
        list(fields(data, 0, len(data)))
    assert caught.value.truncated is truncated


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        found = list(fields(data, 0, len(data)))
    except WireError:
        return
    assert b"".join(data[tag:end] for _, _, tag, _, end in found) == data
