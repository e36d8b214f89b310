"""Sequences and optionals: of known content they are no obstacle, of unknown content they hold, and say why."""

from __future__ import annotations

import pytest

import onnxprune
from tests.helpers import GraphBuilder
from tests.ops.certifying import certify_often, conv, reasons

COVERS = frozenset(
    ("", op)
    for op in (
        "ConcatFromSequence", "Optional", "OptionalGetElement", "OptionalHasElement", "SequenceAt",
        "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
        "SplitToSequence",
    )
)  # fmt: skip

_SHAPE = (2, 3, 7, 5)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_maps_that_are_collected_and_joined(opset: int) -> None:
    g = GraphBuilder(opset)
    x = g.input("x", _SHAPE)
    maps = [conv(g, x, 3, filters, 3) for filters in (6, 4, 5)]
    collected = g.op("SequenceEmpty")
    for one in maps:
        collected = g.op("SequenceInsert", collected, one)
    joined = g.op("ConcatFromSequence", collected, axis=1)
    g.output(conv(g, joined, 15, 4), [2, 4, 7, 5])
    certify_often(g.model(), prunable=[(one, 1) for one in maps])


@pytest.mark.parametrize("opset", [11, 17])
def test_a_map_that_is_cut_and_stacked(opset: int) -> None:
    g = GraphBuilder(opset)
    h = conv(g, g.input("x", _SHAPE), 3, 12, 3)
    parts = g.op("SplitToSequence", h, g.ints(6, 6), axis=1)
    first, second = (g.op("SequenceAt", parts, g.constant(i)) for i in (0, -1))
    stacked = g.op("ConcatFromSequence", g.op("SequenceConstruct", first, second), axis=1, new_axis=1)
    g.output(conv(g, g.reduce("ReduceSum", stacked, 1, keepdims=0), 6, 4), [2, 4, 7, 5])
    certify_often(g.model(), prunable=[(h, 1)])


@pytest.mark.parametrize("reader", ["at", "insert"])
def test_what_is_read_at_run_time_stays(reader: str) -> None:
    g = GraphBuilder(17)
    x, i = g.input("x", _SHAPE), g.input("i", [], 7)
    h = conv(g, x, 3, 6, 3)
    collected = g.op("SequenceConstruct", h, h)
    if reader == "at":
        y = g.op("SequenceAt", collected, i)
    else:
        y = g.op("ConcatFromSequence", g.op("SequenceInsert", collected, h, i), axis=0)
    g.output(conv(g, y, 6, 4), ["b", 4, 7, 5])
    analysis = onnxprune.analyze(g.model())
    assert any("at run time" in reason for reason in reasons(analysis, h, 1))
    assert not any("Sequence" in node for node in analysis.unknown)


def test_an_optional_that_is_always_there() -> None:
    g = GraphBuilder(18)
    h = conv(g, g.input("x", _SHAPE), 3, 6, 3)
    y = g.op("OptionalGetElement", g.op("Optional", h))
    g.output(conv(g, y, 6, 4), [2, 4, 7, 5])
    certify_often(g.model(), prunable=[(h, 1)])
