"""Random networks: blocks drawn one after the other, and a head on every leaf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn
from onnx import ModelProto

from tests.helpers import GraphBuilder
from tests.random_graphs.maps import MAP_BLOCKS, conv_of
from tests.random_graphs.sequences import SEQUENCE_BLOCKS, VECTOR_BLOCKS, head
from tests.random_graphs.state import Chooser, State

T = TypeVar("T")
OPSETS = (7, 9, 10, 11, 13, 17, 18, 21)
BATCH = 2


@dataclass(frozen=True)
class RandomGraph:
    """A model, shapes for its inputs (they matter where it is dynamic), and the seed that atoms are drawn with."""

    model: ModelProto
    input_shapes: dict[str, tuple[int, ...]]
    seed: int


@dataclass(frozen=True)
class Drawn:
    """Choices that hypothesis makes, and shrinks."""

    draw: DrawFn

    def integer(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return self.draw(st.integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.draw(st.integers(0, len(options) - 1))]


class Seeded:
    """Choices that follow from a seed: for long runs, and for regression tests."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def integer(self, low: int, high: int) -> int:
        """A number from low to high, both included."""
        return int(self._rng.integers(low, high + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[int(self._rng.integers(len(options)))]


def build(choose: Chooser, most_blocks: int = 10) -> RandomGraph:
    """Compose a network of up to ``most_blocks`` blocks."""
    g = GraphBuilder(opset=choose.pick(OPSETS))
    state = State(g, choose, dynamic=choose.integer(0, 3) == 3)
    shape = (BATCH, choose.integer(1, 4), choose.integer(3, 6), choose.integer(3, 6))
    x = state.add(g.input("x", ["N" if state.dynamic else BATCH, *shape[1:]]), *shape)
    first = conv_of(state, x, choose.integer(2, 8), 3)
    state.add(first.name, *first.shape)
    for _ in range(choose.integer(1, most_blocks)):
        ranks = {len(t.shape) for t in state.pool}
        # Sequences and vectors have fewer blocks, but are as likely to grow as maps once they are there.
        families = [MAP_BLOCKS]
        families += [SEQUENCE_BLOCKS] * 2 if 3 in ranks else []
        families += [VECTOR_BLOCKS] if 2 in ranks else []
        choose.pick(choose.pick(families))(state)
    for leaf in state.leaves():
        made = head(state, leaf)
        g.output(made.name, ["N" if state.dynamic else BATCH, *made.shape[1:]])
    return RandomGraph(g.model(), {"x": shape}, choose.integer(0, 2**16))


@st.composite
def random_graphs(draw: DrawFn, most_blocks: int = 10) -> RandomGraph:
    """Networks that hypothesis composes."""
    return build(Drawn(draw), most_blocks)
