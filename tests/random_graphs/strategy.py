"""Random networks: blocks drawn one after the other, and a head on every leaf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from onnx import ModelProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from onnxprune.analysis.atoms import Grouping
from onnxprune.analysis.propagation import Split
from tests.helpers import GraphBuilder, Pruned, prune_random, run
from tests.random_graphs.layout import LAYOUT_BLOCKS
from tests.random_graphs.maps import MAP_BLOCKS, conv_of
from tests.random_graphs.selecting import SELECTING_BLOCKS
from tests.random_graphs.sequences import SEQUENCE_BLOCKS, VECTOR_BLOCKS, head
from tests.random_graphs.special import SPECIAL_BLOCKS
from tests.random_graphs.state import Block, Choices, State

OPSETS = (7, 9, 10, 11, 13, 17, 18, 21)
BATCH = 2
_TRIES = 5


@dataclass(frozen=True)
class RandomGraph:
    """A model, shapes for its inputs (they matter where it is dynamic), and the seed that atoms are drawn with."""

    model: ModelProto
    input_shapes: dict[str, tuple[int, ...]]
    seed: int


def prune(graph: RandomGraph, share: float | None = None) -> Pruned:
    """Remove random atoms from a network, under one of the treatments of grouped convolutions and of split axes."""
    grouping = (Grouping.ALIGNED, Grouping.BALANCED, Grouping.WHOLE)[graph.seed % 3]
    split = (Split.FINEST, Split.OUTER)[graph.seed // 3 % 2]
    return prune_random(graph.model, graph.seed, share, graph.input_shapes, grouping, split)


def build(seed: int, blocks: int) -> RandomGraph:
    """Compose a network of so many blocks; a network of fewer blocks is the beginning of that of more."""
    choose = Choices(seed)
    g = GraphBuilder(opset=choose.pick(OPSETS))
    state = State(g, choose, dynamic=choose.integer(0, 3) == 3)
    shape = (BATCH, choose.integer(1, 4), choose.integer(2, 5), choose.integer(2, 5))
    x = state.add(g.input("x", ["N" if state.dynamic else BATCH, *shape[1:]]), *shape)
    first = conv_of(state, x, choose.pick([2, 4, 5, 6, 8]), 3)
    state.add(first.name, *first.shape)
    for _ in range(blocks):
        _grow(state)
    for leaf in state.leaves():
        made = head(state, leaf)
        g.output(made.name, ["N" if state.dynamic else BATCH, *made.shape[1:]])
    model = g.model()
    if state.dynamic and choose.integer(0, 2):
        model = _of_any_size(model, shape)
    return RandomGraph(model, {"x": shape}, seed)


def _of_any_size(model: ModelProto, shape: tuple[int, ...]) -> ModelProto:
    """The network with symbolic height and width, if it takes images of another size; else as it is."""
    free = ModelProto()
    free.CopyFrom(model)
    symbols = {2: "H", 3: "W"}
    for dim, symbol in symbols.items():
        free.graph.input[0].type.tensor_type.shape.dim[dim].dim_param = symbol
    for output in free.graph.output:
        for dim, declared in enumerate(output.type.tensor_type.shape.dim):
            if dim:
                declared.dim_param = f"{output.name}_{dim}"
    larger = np.zeros((shape[0] + 1, shape[1], shape[2] + 4, shape[3] + 8), dtype=np.float32)
    try:
        run(free, {"x": larger})
    except (Fail, InvalidArgument, RuntimeException):
        return model
    return free


def _grow(state: State) -> None:
    """Add a block. Many fit only some shapes, and leave a graph without any as it is: another is tried then."""
    ranks = {len(t.shape) for t in state.pool}
    # Sequences and vectors have fewer blocks, but are as likely to grow as maps once they are there.
    families: list[tuple[Block, ...]] = [MAP_BLOCKS, LAYOUT_BLOCKS, SPECIAL_BLOCKS, SELECTING_BLOCKS]
    families += [SEQUENCE_BLOCKS] * 3 if 3 in ranks else []
    families += [VECTOR_BLOCKS] if 2 in ranks else []
    family = state.choose.pick(families)
    nodes = len(state.g.nodes)
    for _ in range(_TRIES):
        state.choose.pick(family)(state)
        if len(state.g.nodes) > nodes:
            return


def random_graphs(most_blocks: int = 12) -> SearchStrategy[RandomGraph]:
    """Networks for hypothesis, which looks for the one with the fewest blocks that fails."""
    return st.builds(build, st.integers(0, 2**32 - 1), st.integers(2, most_blocks))
