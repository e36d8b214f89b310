"""How operators become PyTorch: one module per family, named as in ``onnxprune.ops``.

A module holds the converters of its family and, behind them, the functions that its converted graphs call where PyTorch
has none of the same meaning.
"""

from __future__ import annotations

from functools import cache

from onnxprune.torch.base import Registry
from onnxprune.torch.ops import (
    attention,
    contrib,
    contrib_quantized,
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
)

_FAMILIES = (
    attention,
    contrib,
    contrib_quantized,
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
    resizing,
    reshaping,
    sampling,
    scattering,
)


@cache
def default_registry() -> Registry:
    """The converters that onnxprune has by itself; extend it with :meth:`Registry.extended`."""
    return Registry(converter for family in _FAMILIES for converter in family.CONVERTERS)


__all__ = ["default_registry"]
