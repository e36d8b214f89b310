"""Layers as matrix products: rows of features times a matrix of weights.

A row belongs to one output position of one sample. Its features are what the layer multiplies with its weights there:
for a convolution the input window (channel slowest, then kernel elements as the weight holds them), for Gemm and
MatMul a row of the operand. Grouped layers have one matrix per group.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from onnxprune.ir.graph import Node, UnknownShapeError
from onnxprune.ops.relations import IntArray

Array = NDArray[Any]


@dataclass(frozen=True)
class LinearLayer(ABC):
    """One node: its tensors, the channel dimensions, and the number of groups.

    ``bias`` is the number of the input that holds a bias, or -1 where the operator has none.
    """

    node: int
    name: str
    input: str
    output: str
    weight: str
    groups: int
    in_dim: int
    out_dim: int
    bias: int

    @abstractmethod
    def rows(self, x: Array, y: Array, chosen: IntArray) -> tuple[Array, Array]:
        """Features [groups, R, K] and outputs [groups, R, N] at these of the ``len(y) · positions`` rows."""

    @abstractmethod
    def count(self, y: Array) -> int:
        """The number of rows that an output has."""

    @abstractmethod
    def matrix(self, weight: Array) -> Array:
        """The weight as [groups, K, N]."""

    @abstractmethod
    def weights(self, matrix: Array, like: Array) -> Array:
        """The inverse of :meth:`matrix`: a weight of the shape and type of ``like``."""

    @abstractmethod
    def feature_channels(self, weight: Array) -> IntArray:
        """The input channel that each feature belongs to, [groups, K]."""


@dataclass(frozen=True)
class ConvLayer(LinearLayer):
    """Conv of any rank; ``pads`` are those of ONNX or None for SAME, whose ``lower`` says where the odd one goes."""

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    lower: bool

    def count(self, y: Array) -> int:
        return len(y) * math.prod(y.shape[2:])

    def rows(self, x: Array, y: Array, chosen: IntArray) -> tuple[Array, Array]:
        return self._pick(self._windows(x, y), y, chosen)

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

    def _windows(self, x: Array, y: Array) -> Array:
        """All input windows as a view, [B, C, out..., kernel...]."""
        pads = self.pads if self.pads is not None else self._same(x, y)
        return self._strided(_padded(x, pads), self.strides)

    def _strided(self, x: Array, strides: Sequence[int]) -> Array:
        rank = len(self.dilations)
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True)]
        windows = sliding_window_view(x, spans, axis=tuple(range(2, 2 + rank)))
        places = (*(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in self.dilations))
        return windows[_spatial(places)]

    def _same(self, x: Array, y: Array) -> list[int]:
        begin, end = [], []
        for dim, (stride, dilation, kernel) in enumerate(zip(self.strides, self.dilations, self.kernel, strict=True)):
            missing = max(0, (y.shape[2 + dim] - 1) * stride + dilation * (kernel - 1) + 1 - x.shape[2 + dim])
            less, more = missing // 2, missing - missing // 2
            begin.append(more if self.lower else less)
            end.append(less if self.lower else more)
        return [*begin, *end]

    kernel: tuple[int, ...] = ()


@dataclass(frozen=True)
class ConvTransposeLayer(ConvLayer):
    """ConvTranspose as a convolution of the input with zeros between its elements, by the flipped kernel.

    ``pads`` are None where the extent of the output decides them (auto_pad, output_shape).
    """

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


@dataclass(frozen=True)
class MatrixLayer(LinearLayer):
    """Gemm and MatMul with a two-dimensional weight behind; ``scale`` is the factor of the product."""

    transposed: bool
    scale: float

    def count(self, y: Array) -> int:
        return math.prod(y.shape[:-1])

    def rows(self, x: Array, y: Array, chosen: IntArray) -> tuple[Array, Array]:
        return x.reshape(-1, x.shape[-1])[chosen][None], y.reshape(-1, y.shape[-1])[chosen][None]

    def matrix(self, weight: Array) -> Array:
        scaled: Array = (weight.T if self.transposed else weight)[None] * np.asarray(self.scale, dtype=weight.dtype)
        return scaled

    def weights(self, matrix: Array, like: Array) -> Array:
        found = matrix[0] / self.scale
        return np.ascontiguousarray(found.T if self.transposed else found).astype(like.dtype)

    def feature_channels(self, weight: Array) -> IntArray:
        return np.arange(weight.shape[1 if self.transposed else 0])[None]


def linear_layer(node: Node) -> LinearLayer | None:
    """The node as a matrix product, or None: another operator, or its weight is no initialiser of floats."""
    build = {"Conv": _conv, "ConvTranspose": _transposed, "Gemm": _gemm, "MatMul": _matmul}.get(node.op_type)
    if build is None or node.domain or len(node.inputs) < 2:
        return None
    weight = node.graph.model.weights.get(node.inputs[1])
    if weight is None or node.inputs[0] in node.graph.constants or weight.dtype.kind != "f":
        return None
    try:
        return build(node, weight.shape)
    except UnknownShapeError:
        return None


def _conv(node: Node, weight: tuple[int, ...]) -> LinearLayer | None:
    rank = len(weight) - 2
    padding = node.attr("auto_pad", "NOTSET")
    pads = tuple(node.attr("pads", (0,) * 2 * rank)) if padding in ("NOTSET", "VALID") else None
    return ConvLayer(
        **_common(node, groups=int(node.attr("group", 1)), in_dim=1, out_dim=1, bias=2),
        strides=tuple(node.attr("strides", (1,) * rank)),
        dilations=tuple(node.attr("dilations", (1,) * rank)),
        pads=(0,) * 2 * rank if padding == "VALID" else pads,
        lower=padding == "SAME_LOWER",
        kernel=weight[2:],
    )


def _transposed(node: Node, weight: tuple[int, ...]) -> LinearLayer | None:
    rank = len(weight) - 2
    if node.attr("auto_pad", "NOTSET") != "NOTSET" or node.attr("output_shape") is not None:
        return None
    return ConvTransposeLayer(
        **_common(node, groups=int(node.attr("group", 1)), in_dim=1, out_dim=1, bias=2),
        strides=tuple(node.attr("strides", (1,) * rank)),
        dilations=tuple(node.attr("dilations", (1,) * rank)),
        pads=tuple(node.attr("pads", (0,) * 2 * rank)),
        lower=False,
        kernel=weight[2:],
    )


def _gemm(node: Node, weight: tuple[int, ...]) -> LinearLayer | None:
    if node.attr("transA", 0) or not node.attr("alpha", 1.0):
        return None
    if node.has_input(2) and not node.attr("beta", 1.0):
        return None
    return MatrixLayer(
        **_common(node, groups=1, in_dim=1, out_dim=1, bias=2),
        transposed=bool(node.attr("transB", 0)),
        scale=float(node.attr("alpha", 1.0)),
    )


def _matmul(node: Node, weight: tuple[int, ...]) -> LinearLayer | None:
    rank = len(node.in_shape(0))
    if len(weight) != 2 or rank < 2:
        return None
    common = _common(node, groups=1, in_dim=rank - 1, out_dim=rank - 1, bias=-1)
    return MatrixLayer(**common, transposed=False, scale=1.0)


def _common(node: Node, **numbers: int) -> dict[str, Any]:
    tensors = {"input": node.inputs[0], "weight": node.inputs[1], "output": node.outputs[0]}
    return {"node": node.index, "name": node.name, **tensors, **numbers}


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
