"""How the values of an initialiser lie in the tensors of a module: always reversible, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from onnxprune.ir.weights import Array


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


@dataclass(frozen=True)
class Gates:
    """Weights of a recurrent layer: ONNX stacks directions and has the gates in another order.

    Attributes:
        order: for each gate of PyTorch, its number in ONNX.
        directions: one, or two for bidirectional layers.
        halves: 2 for biases, of which ONNX holds two in one row (input's, then hidden state's), else 1.
    """

    order: tuple[int, ...]
    directions: int
    halves: int = 1

    def to_torch(self, array: Array) -> tuple[Array, ...]:
        count = len(self.order)
        parts: list[Array] = []
        for row in array:
            for half in np.split(row, self.halves):
                gates = np.split(half, count)
                parts.append(np.concatenate([gates[number] for number in self.order]))
        return tuple(parts)

    def to_onnx(self, arrays: Sequence[Array]) -> Array:
        back = np.argsort(self.order)
        halves = [np.concatenate([np.split(part, len(self.order))[n] for n in back]) for part in arrays]
        rows = [np.concatenate(halves[i : i + self.halves]) for i in range(0, len(halves), self.halves)]
        return np.stack(rows)
