"""IDX files, the format of MNIST and its like (http://yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import DataError

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_DIMENSIONS = 8


def read_idx(file: Path) -> NDArray[Any]:
    """The array of an IDX file (compressed by gzip or not). Raises DataError if it is none, or cut off."""
    try:
        raw = file.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error, MemoryError) as error:
        raise DataError(f"IDX file {file} cannot be read: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{file} is not an IDX file")
    dtype, rank = np.dtype(_TYPES[raw[2]]), raw[3]
    shape = tuple(np.frombuffer(raw, ">i4", rank, 4).tolist())
    body = raw[4 + 4 * rank :]
    if rank > _MOST_DIMENSIONS or min(shape, default=0) < 0 or len(body) != math.prod(shape) * dtype.itemsize:
        raise DataError(f"IDX file {file} is damaged: {len(body)} bytes do not make an array of {shape}")
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
