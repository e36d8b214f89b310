"""Random tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import generators as functions
from onnxprune.torch.tensors import torch_dtype

_NAMES = {"Normal": (("mean", 0.0), ("scale", 1.0)), "Uniform": (("low", 0.0), ("high", 1.0))}


def _dtype(node: Node) -> torch.dtype | None:
    elem_type = node.attr("dtype")
    return None if elem_type is None else torch_dtype(elem_type)


def _shaped(kind: str, function: Callable[..., torch.Tensor]) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        values = [node.attr(name, default) for name, default in _NAMES[kind]]
        return build.call(function, tuple(node.attr("shape")), *values, _dtype(node) or torch.float32, build.anchor)

    return convert


def _like(kind: str, function: Callable[..., torch.Tensor]) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        values = [node.attr(name, default) for name, default in _NAMES[kind]]
        return build.call(function, build.tensor(node, 0), *values, _dtype(node))

    return convert


def _bernoulli(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.bernoulli, build.tensor(node, 0), _dtype(node))


def _multinomial(node: Node, build: Builder) -> fx.Node:
    count, dtype = node.attr("sample_size", 1), _dtype(node) or torch.int32
    return build.call(functions.multinomial, build.tensor(node, 0), count, dtype)


CONVERTERS = (
    Converter("Bernoulli", _bernoulli),
    Converter("Multinomial", _multinomial),
    Converter("RandomNormal", _shaped("Normal", functions.normal)),
    Converter("RandomNormalLike", _like("Normal", functions.normal_like)),
    Converter("RandomUniform", _shaped("Uniform", functions.uniform)),
    Converter("RandomUniformLike", _like("Uniform", functions.uniform_like)),
)
