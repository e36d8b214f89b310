"""What identifies a model: a hash of its graph and weights, the same in every process."""

from __future__ import annotations

import hashlib

import numpy as np

from onnxprune.ir.model import Model
from onnxprune.ir.weights import Array
from onnxprune.ir.wire import Buffer


def model_digest(model: Model) -> str:
    """SHA-256 of graph and weights, wherever the file is and whether or not its weights are inside."""
    return model.derived(_digest)


def contents(values: Array) -> Buffer:
    """The bytes of an array in row-major order, not copied where they lie so."""
    if values.dtype == object:
        # Arrays of strings hold pointers, which are others in every process.
        return repr(values.tolist()).encode()
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _digest(model: Model) -> str:
    state = hashlib.sha256(model.skeleton.SerializeToString(deterministic=True))
    for name, weight in model.weights.items():
        state.update(f"\0{name} {weight.elem_type} {weight.shape}\0".encode())
        state.update(contents(weight.array))
    return state.hexdigest()
