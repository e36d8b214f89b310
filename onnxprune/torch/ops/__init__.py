"""How operators become PyTorch: one module per family, named as in ``onnxprune.ops``.

A module holds the converters of its family and, behind them, the functions that its converted graphs call where PyTorch
has none of the same meaning.
"""

from __future__ import annotations

from functools import cache

from onnxprune.ops.registry import contributed
from onnxprune.torch.base import Converter, Converters
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


def default_registry() -> Converters:
    """The converters of onnxprune, installed packages and plugins; extend it with its method ``extended``."""
    return _with(contributed("converters", _is_converter))


def _is_converter(item: object) -> bool:
    return isinstance(item, Converter)


@cache
def _with(more: tuple[Converter, ...]) -> Converters:
    return Converters([*(converter for family in _FAMILIES for converter in family.CONVERTERS), *more])


__all__ = ["default_registry"]
