"""One small converter per operator and opset range, grouped by family."""

from __future__ import annotations

from functools import cache

from onnxprune.torch.base import Registry
from onnxprune.torch.converters import (
    activations,
    attention,
    casting,
    contrib,
    convolution,
    elementwise,
    generators,
    indexing,
    joining,
    linear,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    resizing,
    sampling,
    shaping,
)

_FAMILIES = (
    activations,
    attention,
    casting,
    contrib,
    convolution,
    elementwise,
    generators,
    indexing,
    joining,
    linear,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduction,
    resizing,
    sampling,
    shaping,
)


@cache
def default_registry() -> Registry:
    """The converters that onnxprune has by itself; extend it with :meth:`Registry.extended`."""
    return Registry(converter for family in _FAMILIES for converter in family.CONVERTERS)


__all__ = ["default_registry"]
