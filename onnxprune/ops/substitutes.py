"""Layers that can stand for a region of a graph: which fit between two tensors, and the nodes that they are.

A substitute is linear: what it stands for is known by its entry and exit alone. Over maps (N, C, d1, …) it is a
convolution, over rows of features a product with a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from onnx import NodeProto, helper

from onnxprune.ir.graph import Node

Kind = Literal["nothing", "identity", "affine", "depthwise", "pointwise", "full", "factors"]
KINDS: tuple[Kind, ...] = ("nothing", "identity", "affine", "depthwise", "pointwise", "full", "factors")
"""What a region gives way to, the cheapest first.

``nothing``: the branch ends, and what it was added to goes on alone; ``identity``: the entry itself; ``affine``: a
factor and a shift for each channel; ``depthwise``: a kernel for each channel; ``pointwise``: a matrix at each
position; ``full``: a kernel for each pair of channels; ``factors``: ``full`` (or ``pointwise``) to a few channels, so
many as the rank, and ``pointwise`` from these (as filters that share codes have it: ALF, Frickenstein et al., 2020);
with an inner rank a ``pointwise`` before both, so that the window looks at few channels, too (Tucker-2, Kim et al.,
2016).
"""
Way = Kind | Literal["resized"]
RESIZED: Literal["resized"] = "resized"
"""The region itself, on maps of other extents: nothing stands for it, and its weights are as they were."""
WAYS: tuple[Way, ...] = (*KINDS, RESIZED)
"""All that a region may give way to."""


@dataclass(frozen=True)
class Substitute:
    """A layer with weights: its kind, the extents of its weight and bias (None: it has none), and its attributes.

    ``macs`` are the products for one run.
    """

    op_type: str
    weight: tuple[int, ...]
    bias: tuple[int, ...] | None
    attributes: tuple[tuple[str, Any], ...]
    macs: int

    @property
    def elements(self) -> int:
        """Numbers of weight and bias."""
        return math.prod(self.weight) + (0 if self.bias is None else math.prod(self.bias))

    @property
    def fan_in(self) -> int:
        """How many products each output sums."""
        return self.weight[0] if len(self.weight) == 2 else math.prod(self.weight[1:])

    def node(self, name: str, entry: str, exit: str, weight: str, bias: str) -> NodeProto:
        """The node, with an empty ``bias`` where there is none."""
        inputs = [entry, weight, *([bias] if bias else [])]
        return helper.make_node(self.op_type, inputs, [exit], name=name, **dict(self.attributes))


def factors(
    before: Sequence[int],
    after: Sequence[int],
    dims: tuple[int, int],
    kernel: Sequence[int],
    rank: int,
    inner: int = 0,
    open_dims: frozenset[int] = frozenset(),
) -> tuple[Substitute, ...] | None:
    """Two or three layers of which only the last has a bias; None where there are none.

    Args:
        before, after, dims, kernel, open_dims: those of :func:`substitute`.
        rank: channels that the last reads.
        inner: channels that the window looks at, made by a layer before it; 0: it looks at those of the entry.
    """
    if len(before) != len(after) or not 0 < rank < after[dims[1]] or not 0 <= inner < before[dims[0]]:
        return None
    if inner and not kernel:
        return None
    read, between = list(before), list(after)
    if inner:
        read[dims[0]] = inner
    between[dims[1]] = rank
    stages = [substitute("full" if kernel else "pointwise", read, between, dims, kernel, open_dims)]
    if inner:
        stages.insert(0, substitute("pointwise", before, read, (dims[0], dims[0]), ()))
    stages.append(substitute("pointwise", between, after, (dims[1], dims[1]), ()))
    found = [one for one in stages if one is not None]
    if len(found) < len(stages):
        return None
    # A Gemm without a bias is not known to older operator sets.
    codes = (replace(one, bias=None, op_type="MatMul" if one.op_type == "Gemm" else one.op_type) for one in found[:-1])
    return (*codes, found[-1])


def substitute(
    kind: Kind,
    before: Sequence[int],
    after: Sequence[int],
    dims: tuple[int, int],
    kernel: Sequence[int],
    open_dims: frozenset[int] = frozenset(),
) -> Substitute | None:
    """The layer of a kind that stands between tensors of these extents; None where there is none.

    Args:
        kind: one that has weights, and is a single layer.
        before: extents of the entry.
        after: extents of the exit.
        dims: the dimensions that hold the channels of both.
        kernel: extents of the window of ``depthwise`` and ``full``; empty: there is none larger than one position.
        open_dims: dimensions of the entry that may have other extents in another run.
    """
    if len(before) != len(after) or before[0] != after[0]:
        return None
    dim = dims[0]
    if dims[0] != dims[1]:
        return None
    channels, filters = before[dim], after[dim]
    alone = kind in ("affine", "depthwise")
    if alone and channels != filters:
        return None
    if dim == len(before) - 1:
        if kind != "pointwise" or tuple(before[:-1]) != tuple(after[:-1]):
            return None
        macs = math.prod(after) * channels
        if len(before) == 2:
            return Substitute("Gemm", (channels, filters), (filters,), (), macs)
        return Substitute("MatMul", (channels, filters), None, (), macs)
    if dim != 1:
        return None
    wide = kind in ("depthwise", "full")
    window = tuple(kernel) if wide else (1,) * (len(before) - 2)
    if len(window) != len(before) - 2 or (wide and math.prod(window) == 1) or any(k % 2 == 0 for k in window):
        return None
    strides = []
    for at, (was, now) in enumerate(zip(before[2:], after[2:], strict=True)):
        stride = max(1, -(-was // now)) if now else 0
        # ceil(extent / stride) positions: what odd windows with half of themselves as padding give.
        if not stride or -(-was // stride) != now or (stride > 1 and at + 2 in open_dims):
            return None
        strides.append(stride)
    pads = tuple(k // 2 for k in window) * 2
    groups = channels if alone else 1
    shape = (filters, channels // groups, *window)
    attributes: list[tuple[str, Any]] = [("kernel_shape", window), ("pads", pads)]
    attributes += [("strides", tuple(strides)), ("group", groups)]
    return Substitute("Conv", shape, (filters,), tuple(attributes), math.prod(after) * math.prod(shape[1:]))


def is_sum(node: Node) -> bool:
    """Whether a node is the sum of two different tensors."""
    return node.op_type == "Add" and not node.domain and len(set(node.inputs)) == 2
