"""Conv and ConvTranspose: plain, grouped and depthwise, of any rank."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Contraction, Masker, Operator, Rewriter, positions
from onnxprune.ops.linear import Array, LinearLayer, common
from onnxprune.ops.relations import IntArray, Relations


def _groups(node: Node) -> int:
    return int(node.attr("group", 1))


def _shrink_groups(node: Node, rewriter: Rewriter) -> None:
    """Depthwise convolutions have one group per channel; others lose groups only if whole ones go."""
    groups, channels = _groups(node), node.in_shape(0)[1]
    kept = rewriter.kept(node.inputs[0], 1)
    if groups > 1 and kept is not None:
        left = len(np.unique(kept // (channels // groups)))
        if left != groups:
            rewriter.set_attribute(node, "group", left)


def same_pads(
    extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], upper: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each spatial axis such that there are ceil(extent / stride) windows."""
    begins, ends = [], []
    for extent, k, stride, dilation in zip(extents, kernel, strides, dilations, strict=True):
        windows = (extent + stride - 1) // stride
        total = (windows - 1) * stride + (k - 1) * dilation + 1 - extent
        total = total if total > 0 else 0
        less = total // 2
        begins.append(less if upper else total - less)
        ends.append(total - less if upper else less)
    return tuple(begins), tuple(ends)


@dataclass(frozen=True)
class ConvLayer(LinearLayer):
    """Conv of any rank; ``pads`` are those of ONNX or None for SAME, whose ``lower`` says where the odd one goes."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    lower: bool
    kernel: tuple[int, ...]

    def count(self, y: Array) -> int:
        return len(y) * math.prod(y.shape[2:])

    def rows(self, x: Array, y: Array, chosen: IntArray) -> tuple[Array, Array]:
        return self._pick(self._windows(x), y, chosen)

    def matrix(self, weight: Array) -> Array:
        found: Array = weight.reshape(self.groups, weight.shape[0] // self.groups, -1).transpose(0, 2, 1)
        return found

    def weights(self, matrix: Array, like: Array) -> Array:
        return np.ascontiguousarray(matrix.transpose(0, 2, 1)).reshape(like.shape).astype(like.dtype)

    def feature_channels(self, weight: Array) -> IntArray:
        inner, kernel = weight.shape[1], math.prod(weight.shape[2:])
        channels = np.arange(self.groups * inner).reshape(self.groups, inner)
        return np.repeat(channels, kernel, axis=1)

    def _pick(self, windows: Array, y: Array, chosen: IntArray) -> tuple[Array, Array]:
        spatial = y.shape[2:]
        sample, *at = np.unravel_index(chosen, (len(y), *spatial))
        index: tuple[Any, ...] = (sample, slice(None), *at)
        # Sliced in between, the picked rows come first: [R, C, kernel...].
        features = windows[index].reshape(len(chosen), self.groups, -1).transpose(1, 0, 2)
        outputs = y[index].reshape(len(chosen), self.groups, -1).transpose(1, 0, 2)
        return features, outputs

    def _windows(self, x: Array) -> Array:
        """All input windows as a view, [B, C, out..., kernel...]."""
        same = (x.shape[2:], self.kernel, self.strides, self.dilations, not self.lower)
        pads = self.pads if self.pads is not None else sum(same_pads(*same), ())
        return self._strided(_padded(x, pads), self.strides)

    def _strided(self, x: Array, strides: Sequence[int]) -> Array:
        rank = len(self.dilations)
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True)]
        windows = sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
        places = (*(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in self.dilations))
        return windows[_spatial(places)]


@dataclass(frozen=True)
class ConvTransposeLayer(ConvLayer):
    """ConvTranspose as a convolution of the input with zeros between its elements, by the flipped kernel.

    ``pads`` are None where the extent of the output decides them (auto_pad, output_shape).
    """

    @property
    def uniform(self) -> bool:
        return False

    def rows(self, x: Array, y: Array, chosen: IntArray) -> tuple[Array, Array]:
        apart = [(extent - 1) * stride + 1 for extent, stride in zip(x.shape[2:], self.strides, strict=True)]
        spread = np.zeros((*x.shape[:2], *apart), dtype=x.dtype)
        spread[_spatial(slice(None, None, s) for s in self.strides)] = x
        rank = len(self.strides)
        reach = [d * (k - 1) for d, k in zip(self.dilations, self.kernel, strict=True)]
        assert self.pads is not None
        begin = [r - p for r, p in zip(reach, self.pads[:rank], strict=True)]
        end = [out + r - e - b for out, r, e, b in zip(y.shape[2:], reach, apart, begin, strict=True)]
        return self._pick(self._strided(_padded(spread, [*begin, *end]), [1] * rank), y, chosen)

    def matrix(self, weight: Array) -> Array:
        flipped = weight[_spatial(slice(None, None, -1) for _ in self.kernel)]
        grouped = flipped.reshape(self.groups, weight.shape[0] // self.groups, weight.shape[1], -1)
        found: Array = grouped.transpose(0, 1, 3, 2).reshape(self.groups, -1, weight.shape[1])
        return found

    def weights(self, matrix: Array, like: Array) -> Array:
        channels = like.shape[0] // self.groups
        grouped = matrix.reshape(self.groups, channels, -1, like.shape[1]).transpose(0, 1, 3, 2)
        flipped = np.ascontiguousarray(grouped).reshape(like.shape)
        found: Array = flipped[_spatial(slice(None, None, -1) for _ in self.kernel)].astype(like.dtype)
        return found

    def feature_channels(self, weight: Array) -> IntArray:
        channels = np.arange(weight.shape[0]).reshape(self.groups, -1)
        return np.repeat(channels, math.prod(weight.shape[2:]), axis=1)


def _spatial(places: Iterable[slice]) -> tuple[slice, ...]:
    """An index of the spatial dimensions behind batch and channels."""
    return (slice(None), slice(None), *places)


def _padded(x: Array, pads: Sequence[int]) -> Array:
    """Zeros around the spatial dimensions; negative amounts cut."""
    rank = len(pads) // 2
    begin, end = pads[:rank], pads[rank:]
    if any(pads):
        x = np.pad(x, [(0, 0), (0, 0), *((max(b, 0), max(e, 0)) for b, e in zip(begin, end, strict=True))])
    cuts = (slice(max(-b, 0), x.shape[2 + d] - max(-e, 0)) for d, (b, e) in enumerate(zip(begin, end, strict=True)))
    return x[_spatial(cuts)]


class Conv(Operator):
    """X (N, C, d1…), W (M, C/group, k1…), B (M) → Y (N, M, e1…)."""

    types = ("Conv",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
        groups, channels, filters = _groups(node), node.in_shape(0)[1], node.in_shape(1)[0]
        relations.equal(x, 0, y, 0)
        relations.equal(w, 0, y, 1)
        if node.has_input(2):
            relations.equal(node.inputs[2], 0, y, 1)
        if groups == 1:
            relations.equal(x, 1, w, 1)
        elif channels == groups:
            relations.free(w, 1)
            if filters == channels:
                relations.equal(x, 1, y, 1)
            else:
                at = positions(filters)
                relations.map(y, 1, x, 1, at, at // (filters // groups))
        else:
            relations.balance(x, 1, groups, relative=(w, 1))
            relations.balance(y, 1, groups)
        if node.is_constant(1):
            relations.producer(w, 0)

    def cost(self, node: Node) -> Contraction:
        w, y = node.inputs[1], node.outputs[0]
        spatial = [(y, dim) for dim in range(2, len(node.out_shape()))]
        return Contraction(
            kind="depthwise"
            if node.in_shape(0)[1] == _groups(node) > 1
            else "grouped"
            if _groups(node) > 1
            else "dense",
            factor=math.prod(node.in_shape(1)[2:]),
            axes=((y, 0), (w, 0), (w, 1), *spatial),
            weights=tuple(i for i in node.inputs[1:] if i),
            output=y,
            out_dim=1,
        )

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        _shrink_groups(node, rewriter)

    def mask(self, node: Node, masker: Masker) -> None:
        if _groups(node) == 1:
            masker.zero(node, 1, 1)
        elif _groups(node) != node.in_shape(0)[1]:
            # Groups may lose different relative positions, which the weight alone cannot express.
            masker.zero(node, 0, 1)

    def linear(self, node: Node) -> LinearLayer | None:
        rank, padding = len(node.in_shape(1)) - 2, node.attr("auto_pad", "NOTSET")
        pads = tuple(node.attr("pads", (0,) * 2 * rank)) if padding in ("NOTSET", "VALID") else None
        return ConvLayer(
            **_windowed(node),
            pads=(0,) * 2 * rank if padding == "VALID" else pads,
            lower=padding == "SAME_LOWER",
        )


class ConvTranspose(Operator):
    """X (N, C, d1…), W (C, M/group, k1…), B (M) → Y (N, M, e1…)."""

    types = ("ConvTranspose",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
        groups, channels, filters = _groups(node), node.in_shape(0)[1], node.out_shape()[1]
        relations.equal(x, 0, y, 0)
        relations.equal(x, 1, w, 0)
        if node.has_input(2):
            relations.equal(node.inputs[2], 0, y, 1)
        if groups == 1:
            relations.equal(w, 1, y, 1)
        elif channels == groups:
            relations.free(w, 1)
            at = positions(filters)
            relations.map(y, 1, x, 1, at, at // (filters // groups))
        else:
            relations.balance(x, 1, groups)
            relations.balance(y, 1, groups, relative=(w, 1))
        if node.is_constant(1):
            if groups == 1:
                relations.producer(w, 1)
            else:
                relations.producer(y, 1)

    def cost(self, node: Node) -> Contraction:
        # Every input element meets every filter element once, so the input's positions count, not the output's.
        x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
        spatial = [(x, dim) for dim in range(2, len(node.in_shape(0)))]
        return Contraction(
            kind="transposed",
            factor=math.prod(node.in_shape(1)[2:]),
            axes=((x, 0), (w, 0), (w, 1), *spatial),
            weights=tuple(i for i in node.inputs[1:] if i),
            output=y,
            out_dim=1,
        )

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        _shrink_groups(node, rewriter)

    def mask(self, node: Node, masker: Masker) -> None:
        if _groups(node) == 1:
            masker.zero(node, 1, 0)
        elif _groups(node) != node.in_shape(0)[1]:
            masker.zero(node, 0, 1)

    def linear(self, node: Node) -> LinearLayer | None:
        rank = len(node.in_shape(1)) - 2
        if node.attr("auto_pad", "NOTSET") != "NOTSET" or node.attr("output_shape") is not None:
            return None
        return ConvTransposeLayer(**_windowed(node), pads=tuple(node.attr("pads", (0,) * 2 * rank)), lower=False)


def _windowed(node: Node) -> dict[str, Any]:
    """What the two have in common."""
    kernel = node.in_shape(1)[2:]
    return common(node, groups=_groups(node), in_dim=1, out_dim=1, bias=2) | {
        "strides": tuple(node.attr("strides", (1,) * len(kernel))),
        "dilations": tuple(node.attr("dilations", (1,) * len(kernel))),
        "kernel": kernel,
    }


OPERATORS: tuple[Operator, ...] = (Conv(), ConvTranspose())
