"""Global allocation: channels of all layers compete."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.pruning.criteria import Scoring, as_criterion
from tests.helpers import GraphBuilder
from tests.ops.certifying import conv


def _chain(widths: tuple[int, ...] = (6, 8, 5), scale: tuple[float, ...] = (1.0, 1.0, 1.0)) -> onnx.ModelProto:
    g = GraphBuilder(17)
    h, before = g.input("x", (1, 3, 8, 8)), 3
    for width, factor in zip(widths, scale, strict=True):
        values = factor * g.rng.standard_normal((width, before, 3, 3))
        h = g.op("Relu", g.op("Conv", h, g.constant(values, dtype=np.float32), pads=[1] * 4))
        before = width
    g.output(conv(g, h, before, 2), [1, 2, 8, 8])
    return g.model()


def _channels_left(model: onnx.ModelProto, plan: onnxprune.Plan) -> tuple[int, ...]:
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Conv"][:-1]
    extents = {t.name: t.dims[0] for t in model.graph.initializer}
    return tuple(extents[w] - len(plan.removed.get(w, {}).get(0, ())) for w in weights)


def _equal_worth(value: float) -> Any:
    @as_criterion("equal", comparable=True)
    def equal(scoring: Scoring) -> np.ndarray:
        return np.full(scoring.count, value)

    return equal


def test_it_loses_hardly_more_than_the_best_allocation() -> None:
    """Against all combinations of widths: the loss is that of lamp scores, the budget one of MACs."""
    model = _chain()
    analysis = onnxprune.analyze(model)
    scores = onnxprune.pruning.criteria.criterion("lamp").scores(Scoring(analysis, np.random.default_rng(0)))
    groups = sorted(analysis.coupling.groups, key=lambda group: group.units)  # widths 5, 6, 8
    curves = [group.losses(scores, scores) for group in groups]
    for reduce in (0.2, 0.4, 0.6):
        limit = analysis.totals["flops"] * (1 - reduce)
        best = np.inf
        for c, a, b in product(range(5), range(6), range(8)):
            kept = (6 - a, 8 - b, 5 - c)
            macs = 64 * 9 * (3 * kept[0] + kept[0] * kept[1] + kept[1] * kept[2]) + 64 * 2 * kept[2]
            if macs <= limit:
                best = min(best, curves[0][c] + curves[1][a] + curves[2][b])
        plan = onnxprune.plan(model, reduce=reduce, allocation="global", criterion="lamp", floor=1, round_to=1)
        found = sum(
            curve[group.units - left]
            for curve, group, left in zip(
                curves, groups, [_channels_left(model, plan)[i] for i in (2, 0, 1)], strict=True
            )
        )
        assert plan.after["flops"] <= limit
        assert best <= found <= 1.25 * best + 1e-9


def test_where_all_are_worth_the_same_the_dearest_go() -> None:
    model = _chain((8, 8, 8))
    plan = onnxprune.plan(model, reduce=0.3, allocation="global", criterion=_equal_worth(1.0))
    first, second, third = _channels_left(model, plan)
    # The first and second width lie between two convolutions of 8 inputs, the third before a small one.
    assert third == 8
    assert first < 8 or second < 8
    assert plan.after["flops"] <= 0.7 * plan.before["flops"]


def test_weak_layers_give_before_strong_ones_whatever_their_units() -> None:
    model = _chain((8, 8, 8), (1.0, 100.0, 1.0))
    weak = next(t for t in model.graph.initializer if t.dims[:2] == [8, 3])
    values = numpy_helper.to_array(weak).copy()
    values[:5] *= 1e-3
    weak.CopyFrom(numpy_helper.from_array(values, weak.name))
    plan = onnxprune.plan(model, reduce=0.2, allocation="global", criterion="l2")
    assert set(plan.removed[weak.name][0]) <= set(range(5))
    assert _channels_left(model, plan)[1:] == (8, 8)


def test_every_budget_holds_and_floors_and_multiples_too() -> None:
    model = _chain((32, 48, 32))
    analysis = onnxprune.analyze(model)
    limits = {"max_params": 0.7 * analysis.totals["params"], "max_memory": 0.8 * analysis.totals["memory"]}
    plan = onnxprune.plan(analysis, reduce=0.5, allocation="global", criterion="lamp", floor=0.25, round_to=8, **limits)
    assert plan.after["flops"] <= 0.5 * plan.before["flops"]
    assert plan.after["params"] <= limits["max_params"]
    assert plan.after["memory"] <= limits["max_memory"]
    left = _channels_left(model, plan)
    assert all(n % 8 == 0 for n in left)
    assert all(n >= full / 4 for n, full in zip(left, (32, 48, 32), strict=True))
    assert plan == onnxprune.plan(
        analysis, reduce=0.5, allocation="global", criterion="lamp", floor=0.25, round_to=8, **limits
    )
    with pytest.raises(onnxprune.BudgetError, match="smallest reachable"):
        onnxprune.plan(model, reduce=0.99, allocation="global")


def test_the_gradient_of_a_cost_is_its_derivative() -> None:
    analysis = onnxprune.analyze("models/depthwise_torchscript.onnx")
    costs = analysis.costs
    rng = np.random.default_rng(0)
    kept = costs.full.astype(np.float64)
    kept[:-1] *= rng.uniform(0.4, 1.0, len(kept) - 1)
    for metric in ("params", "flops", "memory"):
        gradient = costs.gradient(metric, kept)
        for index in rng.choice(len(kept) - 1, 8, replace=False):
            step = np.zeros(len(kept))
            step[index] = 1e-3
            change = (costs.total(metric, kept + step) - costs.total(metric, kept - step)) / 2e-3
            assert gradient[index] == pytest.approx(change, rel=1e-6, abs=1e-6)
