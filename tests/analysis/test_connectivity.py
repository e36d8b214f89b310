"""Depth, ways and the narrowest place, beside counting by hand in graphs that are small enough for it."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx
import numpy as np
import onnx
import pytest

import onnxprune
from tests.helpers import GraphBuilder

MODELS = Path(__file__).parents[2] / "models"


@dataclass
class Drawn:
    """A random graph, and beside it every channel of every tensor as a point of its own."""

    g: GraphBuilder
    rng: np.random.Generator
    channels: dict[str, int] = field(default_factory=dict)
    edges: dict[tuple[str, int], list[tuple[str, int]]] = field(default_factory=lambda: defaultdict(list))
    tensors: list[tuple[str, str]] = field(default_factory=list)
    layers: set[str] = field(default_factory=set)

    def conv(self, x: str, filters: int, groups: int) -> str:
        g, c = self.g, self.channels[x]
        y = g.op("Conv", x, g.weight(filters, c // groups, 1, 1), g.vector(filters), group=groups)
        self.layers.add(y)
        for i, o in itertools.product(range(c), range(filters)):
            if i * groups // c == o * groups // filters:
                self.edges[x, i].append((y, o))
        return self._new(y, filters, x)

    def same(self, op: str, *operands: str) -> str:
        y = self.g.op(op, *operands)
        for x in dict.fromkeys(operands):
            for i in range(self.channels[x]):
                self.edges[x, i].append((y, i))
        return self._new(y, self.channels[operands[0]], *operands)

    def concat(self, *operands: str) -> str:
        y, offset = self.g.op("Concat", *operands, axis=1), 0
        for x in operands:
            for i in range(self.channels[x]):
                self.edges[x, i].append((y, offset + i))
            offset += self.channels[x]
        return self._new(y, offset, *operands)

    def _new(self, y: str, channels: int, *operands: str) -> str:
        self.channels[y] = channels
        self.tensors += [(x, y) for x in operands]
        return y


def drawn(seed: int) -> tuple[onnx.ModelProto, Drawn, str, str]:
    rng = np.random.default_rng(seed)
    g = GraphBuilder(17, seed=seed)
    x = g.input("x", (1, 3, 4, 4))
    d = Drawn(g, rng, {x: 3})
    first = d.conv(x, int(rng.integers(1, 4)) * 2, 1)
    made = [first]
    for _ in range(int(rng.integers(2, 6))):
        a = made[int(rng.integers(len(made)))]
        c = d.channels[a]
        like = [b for b in made if d.channels[b] == c and b != a]
        kind = rng.choice(["dense", "depthwise", "grouped", "relu", "add", "concat"])
        if kind == "add" and like:
            made.append(d.same("Add", a, like[0]))
        elif kind == "concat" and len(made) > 1 and made[0] != a:
            made.append(d.concat(a, made[0]))
        elif kind == "relu":
            made.append(d.same("Relu", a))
        elif kind == "depthwise":
            made.append(d.conv(a, c, c))
        elif kind == "grouped":
            made.append(d.conv(a, 2 * int(rng.integers(1, 4)), 2))
        else:
            made.append(d.conv(a, 2 * int(rng.integers(1, 4)), 1))
    y = d.conv(made[-1], 5, 1)
    g.output(y, (1, 5, 4, 4))
    return g.model(), d, x, y


def counted(d: Drawn, x: str, y: str) -> tuple[int, int, float]:
    """All ways one by one: how many, the longest, and the mean, in layers; the input is one beginning."""
    lengths: list[int] = []

    def go(point: tuple[str, int], length: int) -> None:
        if point[0] == y:
            lengths.append(length)
        for nearby in d.edges[point]:
            go(nearby, length + (nearby[0] in d.layers))

    go((x, 0), 0)
    return len(lengths), max(lengths), sum(lengths) / len(lengths)


def narrowest(d: Drawn, x: str, y: str) -> int:
    """The smallest of all sets of tensors without which nothing comes through."""
    flow = nx.DiGraph(d.tensors)
    between = [t for t in nx.descendants(flow, x) & nx.ancestors(flow, y) if t != x]
    best = math.inf
    for size in range(1, len(between) + 1):
        for chosen in itertools.combinations(between, size):
            left = flow.subgraph(flow.nodes - set(chosen))
            if sum(d.channels[t] for t in chosen) < best and not nx.has_path(left, x, y):
                best = sum(d.channels[t] for t in chosen)
    return int(best)


@pytest.mark.parametrize("seed", range(40))
def test_ways_are_those_that_counting_finds(seed: int) -> None:
    model, d, x, y = drawn(seed)
    found = onnxprune.analyze(model).connectivity
    ways, longest, mean = counted(d, x, y)
    assert found.paths == pytest.approx(math.log10(ways), abs=1e-9)
    assert found.depth == longest
    assert found.mean_depth == pytest.approx(mean)
    assert found.width == narrowest(d, x, y)


def test_a_plain_chain_by_hand() -> None:
    found = onnxprune.analyze(MODELS / "vgg_torchscript.onnx").connectivity
    filters = [layer.channels for layer in onnxprune.analyze(MODELS / "vgg_torchscript.onnx").layers]
    assert found.depth == found.mean_depth == len(filters)
    assert found.paths == pytest.approx(sum(math.log10(n) for n in filters))
    assert found.width == min(filters[:-1])


def test_pruning_narrows(tmp_path: Path) -> None:
    model = onnxprune.load(MODELS / "residual_torchscript.onnx")
    before = onnxprune.analyze(model).connectivity
    after = onnxprune.analyze(onnxprune.apply(model, onnxprune.plan(model, channels=0.5))).connectivity
    assert (after.depth, after.width) == (before.depth, (before.width or 0) // 2)
    assert after.paths < before.paths - 2


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ("{ y = Relu(x) }", "0 layers deep (0.0 on average), 10^0.0 ways through channels"),
        ("<float[4, 4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}> { a = MatMul(x, w)  y = Add(x, a) }", "1 layer deep"),
        (
            "<float[1, 4] w = {1, 2, 3, 4}> { y = Identity(w) }",
            "0 layers deep (0.0 on average), no way through channels",
        ),
    ],
)
def test_past_all_layers_there_is_no_narrowest_place(graph: str, said: str) -> None:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[1, 4] x) => (float[1, 4] y) {graph}'
    )
    found = onnxprune.analyze(model).connectivity
    assert found.width is None
    assert str(found).startswith(said)
