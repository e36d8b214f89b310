"""How the values of an initialiser lie in the tensors of a module: always reversible, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from onnxprune.weights import Array


class Layout(Protocol):
    """A reversible rearrangement of one initialiser into one or more tensors."""

    def to_torch(self, array: Array) -> tuple[Array, ...]:
        """The tensors' values."""

    def to_onnx(self, arrays: Sequence[Array]) -> Array:
        """The initialiser's values from those of the tensors."""


@dataclass(frozen=True)
class AsIs:
    """One tensor, the same values."""

    def to_torch(self, array: Array) -> tuple[Array, ...]:
        return (array,)

    def to_onnx(self, arrays: Sequence[Array]) -> Array:
        return arrays[0]


@dataclass(frozen=True)
class Transposed:
    """One matrix, transposed: ONNX multiplies by (in, out), ``nn.Linear`` holds (out, in)."""

    def to_torch(self, array: Array) -> tuple[Array, ...]:
        return (array.T,)

    def to_onnx(self, arrays: Sequence[Array]) -> Array:
        matrix: Array = arrays[0].T
        return matrix


@dataclass(frozen=True)
class Reshaped:
    """One tensor of another shape, such as a PRelu slope (C, 1, 1) in a vector (C)."""

    onnx_shape: tuple[int, ...]
    torch_shape: tuple[int, ...]

    def to_torch(self, array: Array) -> tuple[Array, ...]:
        return (array.reshape(self.torch_shape),)

    def to_onnx(self, arrays: Sequence[Array]) -> Array:
        return arrays[0].reshape(self.onnx_shape)


@dataclass(frozen=True)
class Held:
    """Where a module holds an initialiser.

    Attributes:
        keys: of ``state_dict``; more than one where PyTorch splits what ONNX joins (directions of an LSTM).
        layout: how the values lie there.
    """

    keys: tuple[str, ...]
    layout: Layout
