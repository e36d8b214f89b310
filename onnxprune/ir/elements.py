"""Element types of tensors: the numpy type of each that the installed onnx knows, and the bits that a value takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import TensorProto, helper

DTYPES: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {int(elem_type): helper.tensor_dtype_to_np_dtype(elem_type) for elem_type in helper.get_all_tensor_dtypes()}
)
"""The numpy (or ml_dtypes) type by ``onnx.TensorProto`` data type."""


def _bits_of(elem_type: int, dtype: np.dtype[Any]) -> int:
    # The names say it (INT4, FLOAT6E2M3, COMPLEX64), but for FLOAT, DOUBLE and BOOL; the numpy types do not, since
    # numpy has no items of less than a byte.
    width = re.match(r"\D+(\d+)", TensorProto.DataType.Name(elem_type))
    return int(width[1]) if width else 8 * dtype.itemsize


BITS: Mapping[int, int] = MappingProxyType(
    {elem_type: _bits_of(elem_type, dtype) for elem_type, dtype in DTYPES.items() if elem_type != TensorProto.STRING}
)
"""Bits per value; ONNX packs those of less than 8, several to a byte. Strings are not here: they have no width."""
