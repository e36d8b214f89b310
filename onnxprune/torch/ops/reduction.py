"""Reductions, and what orders, accumulates or selects along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch import host
from onnxprune.torch.base import Convert, Converter, Host
from onnxprune.torch.builder import Builder
from onnxprune.torch.ops.elementwise import applying

Tensor = torch.Tensor

Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]
_PLAIN: dict[str, Callable[..., Tensor]] = {"ReduceMean": torch.mean, "ReduceSum": torch.sum}
"""Functions of PyTorch that take axes and mean the same on floats."""
_HOST: dict[str, Callable[..., Any]] = {"ReduceProd": math.prod, "ReduceSum": sum, "ReduceMax": max, "ReduceMin": min}


def _axis(node: Node, default: int) -> int:
    return int(node.attr("axis", default))


def _softmax_from(log: bool) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        axis, rank = _axis(node, 1), build.rank(node)
        if rank is not None and axis in (rank - 1, -1):
            return build.module(node, nn.LogSoftmax(axis) if log else nn.Softmax(axis), build.tensor(node, 0))
        return build.call(softmax_from, build.tensor(node, 0), axis, log)

    return convert


def _hardmax(default: int, from_axis: bool) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        return build.call(hardmax, build.tensor(node, 0), _axis(node, default), from_axis)

    return convert


def _top_k(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    k = node.attr("k") if node.version < 10 else build.number(node, 1)
    axis, largest = node.attr("axis", -1), bool(node.attr("largest", 1))
    both = build.call(top_k, build.tensor(node, 0), k, axis, largest)
    return build.item(both, 0), build.item(both, 1)


def _reduce(node: Node, build: Builder) -> fx.Node:
    axes = build.ints(node, 1, "axes")
    none_is_all = not node.attr("noop_with_empty_axes", 0)
    keep = bool(node.attr("keepdims", 1))
    plain, dtype = _PLAIN.get(node.op_type), build.dtype(node.inputs[0])
    if plain is not None and isinstance(axes, tuple) and axes and dtype is not None and dtype.is_floating_point:
        return build.call(plain, build.tensor(node, 0), axes, keepdim=keep)
    return build.call(reduce, build.tensor(node, 0), axes, keep, node.op_type, none_is_all)


def _host_reduce(node: Node, build: Builder) -> fx.Node:
    result = build.call(_HOST[node.op_type], build.call(host.vector, build.host(node, 0)))
    # A number has no dimension to keep.
    keep = node.attr("keepdims", 1) and build.rank(node) == 1
    return build.call(host.vector, result) if keep else result


def _extreme(largest: bool) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        keep, last = bool(node.attr("keepdims", 1)), bool(node.attr("select_last_index", 0))
        return build.call(arg_extreme, build.tensor(node, 0), node.attr("axis", 0), keep, last, largest)

    return convert


def _host_for(op_type: str) -> Host | None:
    return _host_reduce if op_type in _HOST else None


def _cumulative_sum(node: Node, build: Builder) -> fx.Node:
    axis = build.number(node, 1)
    exclusive, reverse = bool(node.attr("exclusive", 0)), bool(node.attr("reverse", 0))
    return build.call(cumulative_sum, build.tensor(node, 0), axis, exclusive, reverse)


def softmax_from(x: Tensor, axis: int, log: bool) -> Tensor:
    """Softmax over all dimensions from ``axis`` on, as it was before opset 13."""
    flat = x.flatten(axis) if x.dim() else x
    axis = axis + x.dim() if axis < 0 else axis
    result = torch.log_softmax(flat, axis) if log else torch.softmax(flat, axis)
    return result.reshape(x.shape)


def hardmax(x: Tensor, axis: int, from_axis: bool) -> Tensor:
    """One at the first largest value along an axis (along all from it on), zero elsewhere."""
    axis = axis + x.dim() if axis < 0 else axis
    flat = x.flatten(axis) if from_axis else x
    best = flat.argmax(axis, keepdim=True)
    return torch.zeros_like(flat).scatter_(axis, best, 1).reshape(x.shape)


def top_k(x: Tensor, k: int, axis: int, largest: bool) -> tuple[Tensor, Tensor]:
    """The k largest or smallest values along an axis in order, and where they are."""
    # A stable sort: among equal values the first wins, as ONNX wants.
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, k), places.narrow(axis, 0, k)


def reduce(x: Tensor, axes: Sequence[int] | int | None, keep: bool, kind: str, none_is_all: bool) -> Tensor:
    """A reduction over the axes; over all of them, or none, where none is given."""
    chosen = () if axes is None else ((axes,) if isinstance(axes, int) else tuple(axes))
    if not chosen:
        if not none_is_all:
            # Nothing to sum over, but what is done to each value is done.
            return _KINDS[kind](x.unsqueeze(-1), (-1,), False) if kind in _CHANGING else x
        chosen = tuple(range(x.dim()))
    if x.dim() == 0:
        return _KINDS[kind](x.unsqueeze(0), (0,), False)
    whole = not x.is_floating_point() and kind in _FLOATING
    result = _KINDS[kind](x.double() if whole else x, chosen, keep)
    return result.to(x.dtype)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _largest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.amax(axes, keepdim=keep) if x.numel() else _of_nothing(x, axes, keep, largest=True)


def _smallest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.amin(axes, keepdim=keep) if x.numel() else _of_nothing(x, axes, keep, largest=False)


def _of_nothing(x: Tensor, axes: tuple[int, ...], keep: bool, largest: bool) -> Tensor:
    """The extreme of no values: what no value can be beyond."""
    shape = x.sum(axes, keepdim=keep).shape
    if x.dtype == torch.bool:
        return x.new_full(shape, not largest)
    if x.is_floating_point():
        return x.new_full(shape, float("-inf") if largest else float("inf"))
    limits = torch.iinfo(x.dtype)
    return x.new_full(shape, limits.min if largest else limits.max)


def arg_extreme(x: Tensor, axis: int, keep: bool, last: bool, largest: bool) -> Tensor:
    """Where the largest or smallest value is along an axis: the first such place, or the last."""
    source = x.flip(axis) if last else x
    place = source.argmax(axis, keepdim=keep) if largest else source.argmin(axis, keepdim=keep)
    return x.shape[axis] - 1 - place if last else place


def cumulative_sum(x: Tensor, axis: int, exclusive: bool, reverse: bool) -> Tensor:
    """Sums of all values so far."""
    source = x.flip(axis) if reverse else x
    sums = torch.cumsum(source, axis, dtype=x.dtype)
    if exclusive:
        sums = sums - source
    return sums.flip(axis) if reverse else sums


_KINDS: dict[str, Reduce] = {
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep),
    "ReduceLogSum": lambda x, axes, keep: x.sum(axes, keepdim=keep).log(),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
    "ReduceMax": _largest,
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceMin": _smallest,
    "ReduceProd": _product,
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep, dtype=x.dtype),
}
KINDS = tuple(_KINDS)
"""The operators that :func:`reduce` knows."""
_CHANGING = frozenset({"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare"})
_FLOATING = frozenset({"ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"})

CONVERTERS = (
    *(Converter(op_type, _reduce, host=_host_for(op_type)) for op_type in KINDS),
    Converter("ArgMax", _extreme(largest=True)),
    Converter("ArgMin", _extreme(largest=False)),
    Converter("CumSum", _cumulative_sum),
    Converter("Hardmax", _hardmax(1, from_axis=True), until=12),
    Converter("Hardmax", _hardmax(-1, from_axis=False), since=13),
    Converter("LogSoftmax", _softmax_from(log=True), until=12),
    Converter("LogSoftmax", applying(lambda node: nn.LogSoftmax(_axis(node, -1))), since=13),
    Converter("Softmax", _softmax_from(log=False), until=12),
    Converter("Softmax", applying(lambda node: nn.Softmax(_axis(node, -1))), since=13),
    Converter("TopK", _top_k),
)
