"""Slice, Gather, Scatter, Pad and other operators that read or write at positions."""

from __future__ import annotations

from typing import Any

from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import host
from onnxprune.torch.functions import indexing as functions


def _slice_attributes(node: Node, build: Builder) -> fx.Node:
    axes = node.attr("axes")
    return build.call(
        functions.slice_tensor, build.tensor(node, 0), tuple(node.attr("starts")), tuple(node.attr("ends")),
        None if axes is None else tuple(axes), None,
    )  # fmt: skip


def _slice(node: Node, build: Builder) -> fx.Node:
    bounds = [build.ints(node, index) for index in range(1, 5)]
    return build.call(functions.slice_tensor, build.tensor(node, 0), *bounds)


def _host_slice(node: Node, build: Builder) -> fx.Node | None:
    if node.version < 10:
        bounds = [tuple(node.attr("starts")), tuple(node.attr("ends"))]
        return build.call(host.slice_values, build.host(node, 0), bounds[0][0], bounds[1][0])
    bounds = [number(build.ints(node, index), build) for index in (1, 2, 4) if build.has(node, index)]
    return build.call(host.slice_values, build.host(node, 0), *bounds)


def number(value: Any, build: Builder) -> Any:
    """A number, where the file has a number or a vector of one."""
    return build.call(host.scalar, value) if isinstance(value, fx.Node) else host.scalar(value)


def _gather(node: Node, build: Builder) -> fx.Node:
    axis, index = node.attr("axis", 0), build.constant(node, 1)
    if index is not None and index.ndim == 0:
        return build.call(functions.gather_one, build.tensor(node, 0), int(index), axis)
    return build.call(functions.gather, *build.tensors(node), axis)


def _host_gather(node: Node, build: Builder) -> fx.Node:
    return build.call(host.gather, build.host(node, 0), build.host(node, 1))


def _gather_elements(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.gather_elements, *build.tensors(node), node.attr("axis", 0))


def _gather_nd(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.gather_nd, *build.tensors(node), node.attr("batch_dims", 0))


def _scatter_elements(node: Node, build: Builder) -> fx.Node:
    axis, reduction = node.attr("axis", 0), node.attr("reduction", "none")
    return build.call(functions.scatter_elements, *build.tensors(node), axis, reduction)


def _scatter_nd(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.scatter_nd, *build.tensors(node), node.attr("reduction", "none"))


def _one_hot(node: Node, build: Builder) -> fx.Node:
    depth = number(build.host(node, 1), build)
    depth = build.call(host.apply, "to integer", depth) if isinstance(depth, fx.Node) else int(depth)
    return build.call(functions.one_hot, build.tensor(node, 0), depth, build.tensor(node, 2), node.attr("axis", -1))


def _non_zero(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.non_zero, build.tensor(node, 0))


def _compress(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.compress, *build.tensors(node), node.attr("axis"))


def _top_k(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    k = node.attr("k") if node.version < 10 else number(build.host(node, 1), build)
    axis, largest = node.attr("axis", -1), bool(node.attr("largest", 1))
    both = build.call(functions.top_k, build.tensor(node, 0), k, axis, largest)
    return build.item(both, 0), build.item(both, 1)


def _pad(node: Node, build: Builder) -> fx.Node:
    mode = node.attr("mode", "constant")
    if node.version < 11:
        amounts, axes, value = tuple(node.attr("pads")), None, node.attr("value", 0.0)
    else:
        amounts, axes = build.ints(node, 1), build.ints(node, 3)
        value = number(build.host(node, 2), build) if build.has(node, 2) else 0.0
    return build.call(functions.pad, build.tensor(node, 0), amounts, axes, mode, value)


def _reverse_sequence(node: Node, build: Builder) -> fx.Node:
    axes = node.attr("batch_axis", 1), node.attr("time_axis", 0)
    return build.call(functions.reverse_sequence, *build.tensors(node), *axes)


def _unique(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    every = build.call(functions.unique, build.tensor(node, 0), node.attr("axis"), bool(node.attr("sorted", 1)))
    return tuple(build.item(every, index) for index in range(4))


CONVERTERS = (
    Converter("Compress", _compress),
    Converter("Gather", _gather, host=_host_gather),
    Converter("GatherElements", _gather_elements),
    Converter("GatherND", _gather_nd),
    Converter("NonZero", _non_zero),
    Converter("OneHot", _one_hot),
    Converter("Pad", _pad),
    Converter("ReverseSequence", _reverse_sequence),
    Converter("Scatter", _scatter_elements, since=9, until=10),
    Converter("ScatterElements", _scatter_elements, since=11),
    Converter("ScatterND", _scatter_nd, since=11),
    Converter("Slice", _slice_attributes, until=9, host=_host_slice),
    Converter("Slice", _slice, since=10, host=_host_slice),
    Converter("TopK", _top_k),
    Converter("Unique", _unique),
)
