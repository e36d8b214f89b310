"""Criteria: scores of channels, and where their weights come from."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import RegistryError, UsageError
from onnxprune.pruning.criteria import Scoring, as_criterion, comparable, criterion, default_registry
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


def _filters(model: onnx.ModelProto) -> np.ndarray:
    return numpy_helper.to_array(model.graph.initializer[0]).reshape(model.graph.initializer[0].dims[0], -1)


def _two_convs(filters: int = 12) -> onnx.ModelProto:
    g = GraphBuilder(17)
    h = conv(g, g.input("x", (2, 3, 5, 5)), 3, filters)
    g.output(conv(g, g.op("Relu", h), filters, 3), [2, 3, 5, 5])
    return g.model()


def _scores(model: onnx.ModelProto, name: str) -> np.ndarray:
    """Scores of the first layer's filters."""
    analysis = onnxprune.analyze(model)
    scoring = Scoring(analysis, np.random.default_rng(0))
    owner = analysis.coupling.class_of[analysis.coupling.axes.id(model.graph.initializer[0].name, 0)]
    return criterion(name).scores(scoring)[analysis.coupling.class_labels(owner)]


def test_fpgm_adds_distances_between_filters() -> None:
    model = _two_convs()
    rows = _filters(model).astype(np.float64)
    wanted = [sum(np.linalg.norm(a - b) for b in rows) for a in rows]
    np.testing.assert_allclose(_scores(model, "fpgm"), wanted, rtol=1e-6)


def test_lamp_divides_by_what_is_not_smaller() -> None:
    model = _two_convs()
    squares = np.square(_filters(model).astype(np.float64)).sum(axis=1)
    wanted = [s / squares[squares >= s].sum() for s in squares]
    np.testing.assert_allclose(_scores(model, "lamp"), wanted, rtol=1e-6)


def test_bn_scale_is_the_scale_behind_a_filter() -> None:
    g = GraphBuilder(17)
    h = conv(g, g.input("x", (2, 3, 5, 5)), 3, 8)
    scale = g.vector(8)
    h = g.op("BatchNormalization", h, scale, g.vector(8), g.vector(8), g.vector(8, positive=True))
    g.output(conv(g, g.op("Relu", h), 8, 3), [2, 3, 5, 5])
    model = g.model()
    values = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == scale)
    np.testing.assert_allclose(_scores(model, "bn_scale"), np.abs(values), rtol=1e-6)
    with pytest.raises(UsageError, match="needs BatchNormalization, and this model has none"):
        _scores(_two_convs(), "bn_scale")


def test_comparable_scores_have_the_producers_for_a_mean() -> None:
    """A stream that two layers write to counts 2 on average, an inner width 1, whatever the units of the weights."""
    g = GraphBuilder(17)
    x = conv(g, g.input("x", (2, 3, 5, 5)), 3, 8)
    inner = g.op("Conv", x, g.constant(1000 * g.rng.standard_normal((6, 8, 1, 1)), dtype=np.float32))
    stream = g.op("Add", x, conv(g, g.op("Relu", inner), 6, 8))
    g.output(conv(g, stream, 8, 3), [2, 3, 5, 5])
    analysis = onnxprune.analyze(g.model())
    scoring = Scoring(analysis, np.random.default_rng(0))
    scaled = comparable(scoring, criterion("l2").scores(scoring))
    means = {group.units: scaled[group.atoms].mean() for group in analysis.coupling.groups}
    assert means == pytest.approx({8: 2.0, 6: 1.0})


def test_a_criterion_of_ones_own() -> None:
    @as_criterion("last first")
    def mine(scoring: Scoring) -> np.ndarray:
        return -np.arange(scoring.count, dtype=np.float64)

    model = _two_convs()
    plan = onnxprune.plan(model, channels=0.5, criterion=mine)
    assert plan.settings["criterion"] == "last first"
    assert plan.removed[model.graph.initializer[0].name][0] == tuple(range(6, 12))
    assert default_registry().extended(mine).find("last first") is mine
    with pytest.raises(RegistryError, match="two criteria are called 'last first'"):
        default_registry().extended(mine, mine)
