"""One small converter per operator and opset range, grouped by family."""

from __future__ import annotations

from functools import cache

from onnxprune.torch.base import Registry
from onnxprune.torch.converters import (
    activations,
    casting,
    convolution,
    elementwise,
    indexing,
    joining,
    linear,
    normalization,
    pooling,
    reduction,
    shaping,
)

_FAMILIES = (
    activations,
    casting,
    convolution,
    elementwise,
    indexing,
    joining,
    linear,
    normalization,
    pooling,
    reduction,
    shaping,
)


@cache
def default_registry() -> Registry:
    """The converters that onnxprune has by itself; extend it with :meth:`Registry.extended`."""
    return Registry(converter for family in _FAMILIES for converter in family.CONVERTERS)


__all__ = ["default_registry"]
