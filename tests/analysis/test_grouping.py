"""Grouped convolutions: the same channels of every group, each group its own, or whole groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.analysis.analyzing import analyze
from onnxprune.analysis.atoms import Grouping
from onnxprune.analysis.cost import METRICS
from onnxprune.errors import BudgetError, UsageError
from onnxprune.pruning.choosing import _first_met
from tests.helpers import GraphBuilder, assert_certified, random_atoms
from tests.ops.certifying import conv

GROUPINGS = (Grouping.ALIGNED, Grouping.BALANCED, Grouping.WHOLE)


def _bottleneck() -> ModelProto:
    """Conv, a convolution of four groups of six channels, Conv."""
    g = GraphBuilder(17)
    h = conv(g, g.input("x", (2, 3, 5, 5)), 3, 24)
    h = conv(g, g.op("Relu", h), 24, 24, group=4)
    g.output(conv(g, g.op("Relu", h), 24, 3), [2, 3, 5, 5])
    return g.model()


def _overlapping() -> ModelProto:
    """Blocks of 7 in front of blocks of 9, moved by a Concat: hardly any position lies equally in both."""
    g = GraphBuilder(17)
    x = g.input("x", (2, 3, 5, 5))
    h = conv(g, g.op("Relu", conv(g, x, 3, 28)), 28, 28, group=4)
    joined = g.op("Concat", conv(g, x, 3, 8), h, axis=1)
    g.output(conv(g, conv(g, joined, 36, 36, group=4), 36, 3), [2, 3, 5, 5])
    return g.model()


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("build", [_bottleneck, _overlapping])
@pytest.mark.parametrize("seed", range(5))
def test_any_units_may_go(build: object, grouping: Grouping, seed: int) -> None:
    assert callable(build)
    model = build()
    analysis = analyze(model).under(grouping)
    assert_certified(model, analysis, random_atoms(analysis, np.random.default_rng(seed)))


def test_aligned_takes_the_same_place_of_every_group() -> None:
    plan = onnxprune.plan(_bottleneck(), channels=0.5)
    model = onnxprune.normalize(_bottleneck())
    weight = next(n.input[1] for n in model.graph.node if n.op_type == "Conv" and any(a.i == 4 for a in n.attribute))
    places = plan.removed[weight][1]
    inputs = next(n.input[0] for n in model.graph.node if weight in n.input)
    assert len(places) == 3
    assert plan.removed[inputs][1] == tuple(6 * group + place for group in range(4) for place in places)


def test_balanced_keeps_the_strongest_of_every_group() -> None:
    model = _bottleneck()
    first = model.graph.initializer[0]
    weak = [0, 1, 2, 9, 10, 11, 12, 14, 16, 21, 22, 23]  # three of every six, in other places each time
    values = np.ones(numpy_helper.to_array(first).shape, dtype=np.float32)
    values[weak] = 0.01
    first.CopyFrom(numpy_helper.from_array(values, first.name))
    plan = onnxprune.plan(model, channels=0.5, grouped="balanced")
    assert plan.removed[first.name][0] == tuple(weak)


def test_whole_groups_shrink_the_group_attribute() -> None:
    plan = onnxprune.plan(_bottleneck(), channels=0.5, grouped="whole")
    pruned = onnxprune.apply(_bottleneck(), plan)
    groups = [a.i for n in pruned.graph.node for a in n.attribute if a.name == "group"]
    assert 2 in groups
    assert onnxprune.verify(_bottleneck(), pruned, plan).passed


def test_best_loses_no_more_than_the_others() -> None:
    assert onnxprune.plan(_bottleneck(), channels=0.5, grouped="best").settings["grouped"] in ("balanced", "whole")
    with pytest.raises(UsageError, match="aligned, balanced, whole, best"):
        onnxprune.plan(_bottleneck(), channels=0.5, grouped="some")


def test_overlapping_blocks_leave_fine_units() -> None:
    groups = analyze(_overlapping()).coupling.groups
    trunk = [group for group in groups if group.width > 1]
    assert sum(group.units for group in trunk) >= 3
    for mode in METRICS:
        for reduce in (0.3, 0.5, 0.7):
            plan = onnxprune.plan(_overlapping(), mode=mode, reduce=reduce)
            assert plan.after[mode] <= (1 - reduce) * plan.before[mode]


@pytest.mark.parametrize(
    ("groups", "options", "wanted"),
    [
        (32, {"round_to": "auto:16"}, "whole"),
        (4, {"round_to": "auto:16"}, "aligned"),  # a group less is a quarter of the layer
        (8, {"round_to": "auto:4"}, "aligned"),  # four blocks per group
        (32, {"round_to": 1}, "aligned"),
        (32, {"round_to": "auto:16", "grouped": "aligned"}, "aligned"),
    ],
    ids=str,
)
def test_whole_groups_go_where_they_are_too_narrow_for_blocks(
    groups: int, options: dict[str, Any], wanted: str
) -> None:
    g = GraphBuilder(17)
    h = conv(g, g.input("x", (1, 3, 5, 5)), 3, 128)
    h = conv(g, g.op("Relu", h), 128, 128, group=groups)
    g.output(conv(g, g.op("Relu", h), 128, 3), [1, 3, 5, 5])
    model = g.model()
    plan = onnxprune.plan(model, **{"reduce": 0.5, **options})
    assert plan.settings["grouped"] == wanted
    assert plan.after["flops"] <= 0.5 * plan.before["flops"]
    assert onnxprune.verify(model, onnxprune.apply(model, plan), plan).passed


def test_what_whole_groups_cannot_meet_aligned_ones_may() -> None:
    tried = []

    def choose(grouping: Grouping) -> Any:
        tried.append(grouping)
        if grouping is not refusing:
            return grouping
        raise BudgetError("no")

    refusing = Grouping.WHOLE
    assert _first_met(choose, (Grouping.WHOLE, Grouping.ALIGNED)) is Grouping.ALIGNED
    assert tried == [Grouping.WHOLE, Grouping.ALIGNED]
    refusing = Grouping.ALIGNED
    with pytest.raises(BudgetError):
        _first_met(choose, (Grouping.ALIGNED,))
