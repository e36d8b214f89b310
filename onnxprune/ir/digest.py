"""What identifies a model: a hash of its graph and weights, the same in every process."""

from __future__ import annotations

import hashlib

from onnxprune.ir.model import Model
from onnxprune.ir.storage import contents


def model_digest(model: Model) -> str:
    """SHA-256 of graph and weights, wherever the file is and whether or not its weights are inside."""
    return model.derived(_digest)


def _digest(model: Model) -> str:
    state = hashlib.sha256(model.skeleton.SerializeToString(deterministic=True))
    for name, weight in model.weights.items():
        state.update(f"\0{name} {weight.elem_type} {weight.shape}\0".encode())
        state.update(contents(weight.array))
    return state.hexdigest()
