"""What every operator says about its axes: one module per family, found through a registry."""

from __future__ import annotations

from functools import cache

from onnxprune.ops import (
    attention,
    contrib,
    contrib_quantized,
    control,
    convolution,
    einsum,
    elementwise,
    generators,
    indexing,
    joining,
    matmul,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    reshaping,
    resizing,
    sampling,
    scattering,
    sequences,
)
from onnxprune.ops.base import Contraction, Masker, Operator, Registry, Rewriter

_FAMILIES = (
    attention,
    contrib,
    contrib_quantized,
    control,
    convolution,
    einsum,
    elementwise,
    generators,
    indexing,
    joining,
    matmul,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    reshaping,
    resizing,
    sampling,
    scattering,
    sequences,
)


@cache
def default_registry() -> Registry:
    """The operators that onnxprune knows by itself; extend it with :meth:`Registry.extended`."""
    return Registry(operator for family in _FAMILIES for operator in family.OPERATORS)


__all__ = ["Contraction", "Masker", "Operator", "Registry", "Rewriter", "default_registry"]
