"""Einsum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder


def _einsum(node: Node, build: Builder) -> fx.Node:
    return build.call(einsum, node.attr("equation"), build.tensors(node))


def einsum(equation: str, operands: Sequence[torch.Tensor]) -> torch.Tensor:
    """``torch.einsum`` of an equation with spaces."""
    return torch.einsum(equation.replace(" ", ""), *operands)


CONVERTERS = (Converter("Einsum", _einsum),)
