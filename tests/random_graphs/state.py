"""What a random graph consists of while it grows: the tensors there are, and the choices still to make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from tests.helpers import GraphBuilder, Shape

T = TypeVar("T")


class Choices:
    """Choices that follow from a seed.

    Drawn one by one from hypothesis they would shrink further, but its bias towards small and equal numbers left
    whole families of operators out of hundreds of networks.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return int(self._rng.integers(low, high + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self._rng.integers(len(options)))]


@dataclass(frozen=True)
class Tensor:
    """A tensor of the graph. Rank 4 is (N, C, H, W), rank 3 (N, T, D), rank 2 (N, D)."""

    name: str
    shape: Shape


@dataclass
class State:
    """The graph so far.

    ``pool`` holds the tensors that later blocks may read, ``shared`` (weight, bias, (filters, channels)) of
    convolutions that may be used again; where it is ``dynamic``, the batch is symbolic.
    """

    g: GraphBuilder
    choose: Choices
    pool: list[Tensor] = field(default_factory=list)
    shared: list[tuple[str, str, tuple[int, int]]] = field(default_factory=list)
    dynamic: bool = False

    def add(self, name: str, *shape: int) -> Tensor:
        """Put a tensor into the pool."""
        tensor = Tensor(name, shape)
        self.pool.append(tensor)
        return tensor

    def take(self, rank: int, fits: Callable[[Tensor], bool] = lambda tensor: True) -> Tensor | None:
        """A tensor of that rank which fits, or None; newer ones are more likely, the graph's input less."""
        found = [t for t in self.pool if len(t.shape) == rank and fits(t)]
        if len(found) > 1 and found[0].name == "x" and self.choose.integer(0, 3):
            del found[0]
        if not found:
            return None
        return found[-1] if self.flag() else self.choose.pick(found)

    def flag(self) -> bool:
        """Heads or tails."""
        return bool(self.choose.integer(0, 1))

    def leaves(self) -> list[Tensor]:
        """The tensors that nothing reads."""
        read = {name for node in self.g.nodes for name in node.input}
        return [t for t in self.pool if t.name not in read]


Block = Callable[[State], None]


def divisors(n: int, least: int = 2) -> list[int]:
    """The divisors of n from ``least`` on."""
    return [d for d in range(least, n + 1) if n % d == 0]


def reshape_to(s: State, x: str, target: list[int | None], like: str) -> str:
    """Reshape with constants, with 0 and -1, or with a target computed from shapes; None means the batch."""
    if not s.dynamic and s.flag():
        return s.g.op("Reshape", x, s.g.ints(*(2 if t is None else t for t in target)))
    if s.flag():
        rest = [0 if t is None else t for t in target]
        return s.g.op("Reshape", x, s.g.ints(*rest))
    shape = s.g.op("Shape", like)
    parts = []
    for extent in target:
        if extent is None:
            batch = s.g.op("Gather", shape, s.g.constant(0, dtype=np.int64), axis=0)
            parts.append(s.g.unsqueeze(batch, 0))
        else:
            parts.append(s.g.ints(extent))
    return s.g.op("Reshape", x, s.g.op("Concat", *parts, axis=0))
