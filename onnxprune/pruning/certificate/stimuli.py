"""Values to run a model with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxprune.ir.model import Model
from onnxprune.ir.session import Arrays, random_inputs

LAWS = ("normal", "uniform", "smooth", "large")
"""How the values of graph inputs are distributed, from one sample to the next."""

_EMPTY = 3
"""What stands for an extent that turned out to be zero."""


def inputs(model: Model, shapes: Mapping[str, tuple[int, ...]], seed: int, law: str = LAWS[0]) -> Arrays:
    """Values for every graph input: floats of a law; integers 0 and 1 and booleans at random."""
    found = random_inputs(model, shapes, seed)
    rng = np.random.default_rng((seed, LAWS.index(law)))
    return {name: _of_law(array, law, rng) if array.dtype.kind == "f" else array for name, array in found.items()}


def _of_law(array: NDArray[Any], law: str, rng: np.random.Generator) -> NDArray[Any]:
    if law == "uniform":
        return rng.random(array.shape).astype(array.dtype)
    if law == "large":
        return (8 * array).astype(array.dtype)
    if law == "smooth" and array.ndim > 2:
        return _smooth(array).astype(array.dtype)
    return array


def _smooth(array: NDArray[Any]) -> NDArray[Any]:
    """Like an image: neighbours along the trailing axes are alike, values lie between 0 and 1."""
    values = array.astype(np.float64)
    for axis in range(2, values.ndim):
        values = np.cumsum(values - values.mean(axis=axis, keepdims=True), axis=axis)
    low = values.min()
    smooth: NDArray[Any] = (values - low) / max(float(values.max() - low), 1e-9)
    return smooth


def fed_directly(value: Any, rng: np.random.Generator, *, positive: bool) -> Any:
    """Values like these, but alive.

    Floats and bytes are drawn at random (floats positive, if asked for), extents of 0 become 3; whole numbers that
    say nothing become 0 or 1.
    """
    if not isinstance(value, np.ndarray):
        return value
    shape = tuple(extent or _EMPTY for extent in value.shape)
    if value.dtype.kind == "f":
        drawn = rng.uniform(0.5, 1.5, shape) if positive else rng.standard_normal(shape)
        return drawn.astype(value.dtype)
    if value.dtype.kind in "iu" and value.dtype.itemsize == 1 and value.size != 1:
        # Quantised values; what counts or points has more bits.
        limits = np.iinfo(value.dtype)
        return rng.integers(limits.min, limits.max + 1, shape).astype(value.dtype)
    if value.dtype == np.bool_ and value.size != 1:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if value.size and (value.any() or not positive):
        return value
    # 0 and 1 are valid as indices and counts, mostly.
    return rng.integers(0, 2, shape).astype(value.dtype)


def blank(elem_type: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Zeros in place of a tensor that no run has made."""
    return np.zeros(shape, dtype=helper.tensor_dtype_to_np_dtype(elem_type or TensorProto.FLOAT))
