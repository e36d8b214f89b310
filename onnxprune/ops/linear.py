"""Layers as matrix products: rows of features times a matrix of weights.

A row belongs to one output position of one sample. Its features are what the layer multiplies with its weights there:
for a convolution the input window (channel slowest, then kernel elements as the weight holds them), for a product of
matrices a row of the operand. Grouped layers have one matrix per group.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.ir.graph import Node
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

    @property
    def uniform(self) -> bool:
        """Whether every feature reaches all positions of the output, but for edges."""
        return True

    @abstractmethod
    def feature_channels(self, weight: Array) -> IntArray:
        """The input channel that each feature belongs to, [groups, K]."""


@dataclass(frozen=True)
class MatrixLayer(LinearLayer):
    """A product with a two-dimensional weight behind; ``scale`` is its factor."""

    transposed: bool
    scale: float

    def count(self, y: Array) -> int:
        return math.prod(y.shape[:-1])

    def rows(self, x: Array, y: Array, chosen: IntArray) -> tuple[Array, Array]:
        return x.reshape(-1, x.shape[-1])[chosen][None], y.reshape(-1, y.shape[-1])[chosen][None]

    def matrix(self, weight: Array) -> Array:
        found: Array = (weight.T if self.transposed else weight)[None]
        return found if self.scale == 1 else found * np.asarray(self.scale, dtype=weight.dtype)

    def weights(self, matrix: Array, like: Array) -> Array:
        found = matrix[0] if self.scale == 1 else matrix[0] / self.scale
        return np.ascontiguousarray(found.T if self.transposed else found, dtype=like.dtype)

    def feature_channels(self, weight: Array) -> IntArray:
        return np.arange(weight.shape[1 if self.transposed else 0])[None]


@dataclass(frozen=True)
class Affine:
    """A node that gives ``(x - mean) / sqrt(variance + epsilon) · scale + shift`` of each channel of its first operand.

    The vectors are numbers of operands; ``fixed`` tells that mean and variance are these, and not those of the batch.
    """

    node: Node
    scale: int
    shift: int
    mean: int
    variance: int
    epsilon: float
    fixed: bool

    def held(self, *operands: int) -> bool:
        """Whether these operands are weights."""
        return all(self.node.inputs[index] in self.node.graph.model.weights for index in operands)

    def gain(self) -> NDArray[np.float64] | None:
        """What it multiplies each channel by, [C]; None where that is not constant."""
        if not self.fixed or not self.held(self.scale, self.variance):
            return None
        weights = self.node.graph.model.weights
        scale, variance = (weights[self.node.inputs[i]].array.astype(np.float64) for i in (self.scale, self.variance))
        found: NDArray[np.float64] = scale / np.sqrt(variance + self.epsilon)
        return found


@dataclass(frozen=True)
class Paired:
    """A product of two activations that share their leading axes, sample first: queries with keys, say.

    Of each of the first two operands, the axis that is contracted, and the one that is left, which is that axis of the
    result, too.
    """

    contracted: tuple[int, int]
    free: tuple[int, int]


def common(node: Node, **numbers: int) -> dict[str, Any]:
    """The fields that every :class:`LinearLayer` has, of a node whose inputs are features, weight and maybe a bias."""
    tensors = {"input": node.inputs[0], "weight": node.inputs[1], "output": node.outputs[0]}
    return {"node": node.index, "name": node.name, **tensors, **numbers}
