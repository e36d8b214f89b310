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
from onnxprune.ops.registry import contributed

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


def default_registry() -> Registry:
    """The operators that onnxprune, installed packages and plugins know; extend it with its method ``extended``."""
    return _with(contributed("operators", _is_operator))


def _is_operator(item: object) -> bool:
    return isinstance(item, Operator)


@cache
def _with(more: tuple[Operator, ...]) -> Registry:
    return Registry([*(operator for family in _FAMILIES for operator in family.OPERATORS), *more])


__all__ = ["Contraction", "Masker", "Operator", "Registry", "Rewriter", "default_registry"]
