"""Floors hold for the axes of layers; a group of few units on an axis of many need not keep them all."""

from __future__ import annotations

import pytest
from onnx import ModelProto

import onnxprune
from tests.helpers import GraphBuilder

_CHANNELS = 12
_CYCLES = ((0, 1, 2), (3, 4, 5, 6), (7, 8, 9, 10, 11))


def _shuffled() -> ModelProto:
    """A layer added to its own shuffle: a cycle of channels goes as one, and no two cycles are alike."""
    follower = {a: b for cycle in _CYCLES for a, b in zip(cycle, (*cycle[1:], cycle[0]), strict=True)}
    g = GraphBuilder(17)
    x = g.op("Conv", g.input("x", (1, 3, 5, 4)), g.weight(_CHANNELS, 3, 1, 1, base="first"))
    moved = g.op("Gather", x, g.ints(*(follower[i] for i in range(_CHANNELS))), axis=1)
    g.output(g.op("Conv", g.op("Add", x, moved), g.weight(4, _CHANNELS, 1, 1)), (1, 4, 5, 4))
    return g.model()


@pytest.mark.parametrize("floor", [0.05, 0.1, 0.3, 0.5, 0.7])
def test_groups_of_one_unit_go_as_far_as_the_floor_of_their_layer_allows(floor: float) -> None:
    result = onnxprune.compress(_shuffled(), channels=0.9, floor=floor)
    assert result.certificate
    removed = set(result.plan.removed["first_0"][0])
    assert _CHANNELS - len(removed) >= floor * _CHANNELS
    assert removed in [{p for cycle in _CYCLES if cycle != stays for p in cycle} for stays in _CYCLES] + [
        set(cycle) for cycle in _CYCLES
    ]


def test_half_of_the_channels_is_near_half() -> None:
    plan = onnxprune.plan(onnxprune.analyze(_shuffled()), channels=0.5)
    assert 5 <= len(plan.removed["first_0"][0]) <= 9


def test_every_group_that_is_alone_on_an_axis_keeps_its_floor() -> None:
    g = GraphBuilder(17)
    x = g.op("Relu", g.op("Conv", g.input("x", (1, 3, 5, 4)), g.weight(7, 3, 1, 1, base="first")))
    g.output(g.op("Conv", x, g.weight(4, 7, 1, 1)), (1, 4, 5, 4))
    plan = onnxprune.plan(onnxprune.analyze(g.model()), channels=0.9, floor=0.3)
    assert len(plan.removed["first_0"][0]) == 4  # 0.3 of 7 is rounded up to 3
