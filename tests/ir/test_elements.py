"""The table of element types agrees with what onnx writes, and everything that counts bytes reads it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from onnxprune.analysis.cost import _item_size
from onnxprune.ir.elements import BITS, DTYPES
from onnxprune.ir.storage import packed_bytes

TYPES = sorted(BITS)


@pytest.mark.parametrize("elem_type", TYPES, ids=TensorProto.DataType.Name)
def test_bytes_are_those_that_onnx_writes(elem_type: int) -> None:
    tensor = numpy_helper.from_array(np.zeros(7, dtype=DTYPES[elem_type]), "t")
    assert tensor.data_type == elem_type
    assert packed_bytes(elem_type, (7,)) == len(tensor.raw_data)


@pytest.mark.parametrize("elem_type", TYPES, ids=TensorProto.DataType.Name)
def test_bits_are_those_of_ml_dtypes(elem_type: int) -> None:
    dtype = DTYPES[elem_type]
    if dtype.kind in "bc":
        assert BITS[elem_type] == 8 * dtype.itemsize
        return
    try:
        bits = ml_dtypes.iinfo(dtype).bits
    except ValueError:
        bits = ml_dtypes.finfo(dtype).bits
    assert BITS[elem_type] == bits


def test_what_has_no_width_takes_no_bytes() -> None:
    assert packed_bytes(TensorProto.STRING, (7,)) == packed_bytes(TensorProto.UNDEFINED, (7,)) == 0


def test_costs_count_what_storage_takes() -> None:
    everything = TensorProto.DataType.values()
    assert {t: 8 * _item_size(t) for t in everything} == {t: packed_bytes(t, (8,)) for t in everything}
    if "FLOAT6E2M3" in dict(TensorProto.DataType.items()):
        assert _item_size(TensorProto.DataType.Value("FLOAT6E2M3")) == 0.75
