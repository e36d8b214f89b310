"""Concat and Split."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch import host
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder


def _concat(node: Node, build: Builder) -> fx.Node:
    return build.call(torch.cat, build.tensors(node), node.attr("axis", 1))


def _host_concat(node: Node, build: Builder) -> fx.Node:
    return build.call(host.concat, *(build.host(node, index) for index in range(len(node.inputs))))


def _split(node: Node, build: Builder) -> list[fx.Node]:
    x, sizes, axis = build.tensor(node, 0), build.ints(node, 1, "split"), node.attr("axis", 0)
    if isinstance(sizes, tuple):
        parts = build.call(torch.split, x, list(sizes), axis)
    else:
        parts = build.call(split, x, sizes, axis, len(node.outputs))
    return [build.item(parts, index) for index in range(len(node.outputs))]


def split(x: torch.Tensor, sizes: Sequence[int] | None, axis: int, count: int) -> Sequence[torch.Tensor]:
    """Parts of these sizes, or ``count`` parts of which the last may be smaller."""
    if sizes is None:
        each = -(-x.shape[axis] // count)
        sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    return torch.split(x, list(sizes), axis)


CONVERTERS = (
    Converter("Concat", _concat, host=_host_concat),
    Converter("Split", _split),
)
