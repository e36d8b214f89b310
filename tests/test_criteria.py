"""Criteria: scores of channels, and where their weights come from."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import UsageError
from tests.helpers import GraphBuilder
from tests.ops.certifying import conv


def _first_weak(weak: list[int], filters: int = 8) -> np.ndarray:
    values = np.ones((filters, 3, 1, 1), dtype=np.float32)
    values[weak] = 0.1
    return values


@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_the_weakest_filters_go(criterion: str) -> None:
    g = GraphBuilder(17)
    h = conv(g, g.input("x", (2, 3, 5, 5)), 3, 8)
    g.output(conv(g, g.op("Relu", h), 8, 3), [2, 3, 5, 5])
    model = g.model()
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(_first_weak([1, 4, 5, 7]), weight.name))
    assert onnxprune.plan(model, channels=0.5, criterion=criterion).removed[weight.name][0] == (1, 4, 5, 7)


def test_scales_of_quantised_weights_count() -> None:
    """All int8 values are equal; only the scales of the channels tell weak from strong."""
    g = GraphBuilder(17)
    x = g.input("x", (2, 3, 5, 5))
    stored = g.constant(np.full((8, 3, 1, 1), 100, dtype=np.int8))
    scales = np.ones(8, dtype=np.float32)
    scales[[0, 2, 3, 6]] = 0.01
    w = g.op("DequantizeLinear", stored, g.constant(scales), g.constant(np.zeros(8, dtype=np.int8)), axis=0)
    h = g.op("Conv", x, w)
    g.output(conv(g, g.op("Relu", h), 8, 3), [2, 3, 5, 5])
    model = g.model()
    plan = onnxprune.plan(model, channels=0.5)
    assert plan.removed[h][1] == (0, 2, 3, 6)
    assert onnxprune.verify(model, onnxprune.apply(model, plan), plan).passed


def test_random_is_seeded_and_unknown_names_are_refused() -> None:
    g = GraphBuilder(17)
    g.output(conv(g, conv(g, g.input("x", (2, 3, 5, 5)), 3, 32), 32, 3), [2, 3, 5, 5])
    model = g.model()
    plans = [onnxprune.plan(model, channels=0.5, criterion="random", seed=seed).removed for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    with pytest.raises(UsageError, match="random, l1, l2"):
        onnxprune.plan(model, channels=0.5, criterion="magnitude")
