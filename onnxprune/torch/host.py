"""Shape arithmetic on Python numbers and tuples of them, which stays symbolic under ``torch.compile``."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch

Host: TypeAlias = Any
"""A number, or a tuple of numbers; the numbers may be symbolic."""


def as_tensor(value: Host, dtype: torch.dtype, like: torch.Tensor | None) -> torch.Tensor:
    """A tensor of these numbers, on the device of ``like``."""
    return torch.tensor(value, dtype=dtype, device=None if like is None else like.device)


def to_host(tensor: torch.Tensor) -> Host:
    """The numbers in a tensor."""
    return _tuples(tensor.tolist())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def shape(x: torch.Tensor, start: int = 0, end: int | None = None) -> Host:
    """The extents of dimensions ``start`` to ``end`` (numbered as in Python slices)."""
    return tuple(x.shape)[start:end]


def gather(values: Host, indices: Host) -> Host:
    """One or several of the values."""
    return tuple(values[i] for i in indices) if isinstance(indices, tuple) else values[indices]


def slice_values(values: Host, start: int, end: int, step: int = 1) -> Host:
    """Every ``step``-th value from ``start`` on and before ``end``, clamped as in Python."""
    # ONNX says "all down to the first" with any large negative number, Python with none.
    stop = None if step < 0 and end < -len(values) else end
    return values[start:stop:step]


def concat(*parts: Host) -> Host:
    """All values, one after the other."""
    return tuple(value for part in parts for value in part)


def scalar(value: Host) -> Host:
    """The only value of a tuple, as a number; anything else as it is."""
    return value[0] if isinstance(value, tuple) and len(value) == 1 else value


def vector(value: Host) -> Host:
    """A number as a tuple of one; a tuple as it is."""
    return value if isinstance(value, tuple) else (value,)


def fill(shape: Host, value: float) -> Host:
    """A tuple of one value as often as the only extent of ``shape`` says."""
    return (value,) * shape[0] if shape else value


def expand(value: Host, shape: Host) -> Host:
    """A number or a tuple of one, repeated."""
    values = vector(value)
    return values * shape[0] if shape and len(values) == 1 else value
