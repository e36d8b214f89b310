"""Between numpy, ONNX and PyTorch: types and values."""

from __future__ import annotations

import numpy as np
import torch
from onnx import TensorProto

from onnxprune.ir.weights import Array

_DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
}
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def torch_dtype(elem_type: int) -> torch.dtype | None:
    """The PyTorch type of an ONNX element type, or None where PyTorch has none."""
    return _DTYPES.get(elem_type)


def to_tensor(array: Array) -> torch.Tensor:
    """A tensor with a copy of the values."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    if array.dtype.name in ("float8_e4m3fn", "float8_e5m2"):
        return torch.from_numpy(array.astype(np.float32)).to(getattr(torch, array.dtype.name))
    if array.dtype.name in ("int4", "uint4"):
        # PyTorch has no type so small; the values fit in the next one.
        return torch.from_numpy(array.astype(array.dtype.name.replace("4", "8")))
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def to_array(tensor: torch.Tensor) -> Array:
    """A copy of the values; types that numpy lacks become float32, which holds them exactly."""
    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.to(torch.float32)
    array: Array = plain.numpy().copy()
    return array
