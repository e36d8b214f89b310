"""Reductions, ArgMax and ArgMin."""

from __future__ import annotations

from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter, Host
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import host
from onnxprune.torch.functions import reduction as functions

_HOST = {"ReduceProd": host.product, "ReduceSum": host.total, "ReduceMax": host.greatest, "ReduceMin": host.smallest}


def _reduce(node: Node, build: Builder) -> fx.Node:
    axes = build.ints(node, 1, "axes")
    none_is_all = not node.attr("noop_with_empty_axes", 0)
    keep = bool(node.attr("keepdims", 1))
    return build.call(functions.reduce, build.tensor(node, 0), axes, keep, node.op_type, none_is_all)


def _host_reduce(node: Node, build: Builder) -> fx.Node:
    result = build.call(_HOST[node.op_type], build.host(node, 0))
    # A number has no dimension to keep.
    keep = node.attr("keepdims", 1) and build.rank(node) == 1
    return build.call(host.vector, result) if keep else result


def _extreme(largest: bool) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        keep, last = bool(node.attr("keepdims", 1)), bool(node.attr("select_last_index", 0))
        return build.call(functions.arg_extreme, build.tensor(node, 0), node.attr("axis", 0), keep, last, largest)

    return convert


def _host_for(op_type: str) -> Host | None:
    return _host_reduce if op_type in _HOST else None


CONVERTERS = (
    Converter("ArgMax", _extreme(largest=True)),
    Converter("ArgMin", _extreme(largest=False)),
    *(Converter(op_type, _reduce, host=_host_for(op_type)) for op_type in functions.KINDS),
)
