"""Regions: found by dominators, whatever the nodes are."""

from __future__ import annotations

import pytest

from onnxprune import load
from onnxprune.errors import PlanError
from onnxprune.ir.graph import Graph
from onnxprune.ir.regions import Regions
from onnxprune.ops.layers import linear_layer
from tests.helpers import GraphBuilder


def residual(*, watched: bool = False) -> tuple[Graph, dict[str, str]]:
    """x → a → r (Relu) → b, added to x, then a last layer; ``watched``: r is read outside the block, too."""
    g = GraphBuilder()
    x = g.input("x", (1, 4, 8, 8))
    names = {"x": x, "a": g.op("Conv", x, g.weight(4, 4, 3, 3), pads=[1, 1, 1, 1])}
    names["r"] = g.op("Relu", names["a"])
    names["b"] = g.op("Conv", names["r"], g.weight(4, 4, 3, 3), pads=[1, 1, 1, 1])
    names["y"] = g.op("Add", names["x"], names["b"])
    names["z"] = g.op("Conv", names["y"], g.weight(2, 4, 1, 1))
    g.output(g.op("Add", names["z"], g.op("Conv", names["r"], g.weight(2, 4, 1, 1))) if watched else names["z"])
    return Graph(load(g.model())), names


def ends(graph: Graph, most: int = 4) -> set[tuple[str, str]]:
    layers = [node.index for node in graph.nodes if linear_layer(node)]
    return {(region.entry, region.exit) for region in Regions(graph).find(layers, most)}


def test_branches_blocks_and_what_follows_are_regions() -> None:
    graph, n = residual()
    assert ends(graph) == {
        *((n["x"], n["a"]), (n["r"], n["b"]), (n["x"], n["b"]), (n["y"], n["z"])),
        (n["x"], n["z"]),  # the smallest region with all three layers
    }
    assert ends(graph, 1) == {(n["x"], n["a"]), (n["r"], n["b"]), (n["y"], n["z"])}


def test_what_is_read_outside_is_in_no_region() -> None:
    graph, n = residual(watched=True)
    regions = ends(graph)
    assert (n["x"], n["a"]) in regions
    assert (n["r"], n["b"]) in regions
    assert (n["x"], n["b"]) not in regions
    with pytest.raises(PlanError, match="no region"):
        Regions(graph).between(n["x"], n["b"])
    assert len(Regions(graph).between(n["r"], n["b"])) == 1


def test_an_entry_has_to_dominate() -> None:
    graph, n = residual()
    for entry, exit in ((n["a"], n["y"]), (n["b"], n["y"]), (n["z"], n["x"]), (n["x"], n["x"]), ("none", n["y"])):
        with pytest.raises(PlanError, match="no region"):
            Regions(graph).between(entry, exit)
