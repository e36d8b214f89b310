"""Compensation by BatchNormalization: without data, and its statistics anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy import integrate, stats

import onnxprune
from onnxprune.errors import UsageError
from onnxprune.pruning.choosing import removed_by_axis
from onnxprune.pruning.compensation import compensate
from onnxprune.pruning.compensation.batchnorm import removed_means
from onnxprune.pruning.plan import Plan
from tests.helpers import GraphBuilder, run

CHANNELS = 8


def _network(between: str = "Relu", folded: bool = False, pads: int = 0) -> onnx.ModelProto:
    """Conv, BatchNormalization, an activation, Conv."""
    g = GraphBuilder(17)
    h = g.op("Conv", g.input("x", ("n", 3, 10, 10)), g.weight(CHANNELS, 3, 3, 3), pads=[1] * 4)
    if not folded:
        vectors = (g.vector(CHANNELS, positive=True), g.vector(CHANNELS), g.vector(CHANNELS))
        h = g.op("BatchNormalization", h, *vectors, g.vector(CHANNELS, positive=True))
    h = g.op(between, h) if between != "Clip" else g.op("Clip", h, *(g.constant(v, dtype=np.float32) for v in (0, 0.5)))
    h = g.op("Conv", h, g.weight(4, CHANNELS, 3, 3), pads=[pads] * 4)
    h = g.op("BatchNormalization", h, *(g.vector(4, positive=True) for _ in range(4)))
    g.output(g.op("Conv", g.op("Relu", h), g.weight(2, 4, 1, 1)), ["n", 2, 8 + 2 * pads, 8 + 2 * pads])
    return g.model()


def _plan(model: onnx.ModelProto, channels: list[int]) -> Plan:
    analysis = onnxprune.analyze(model)
    coupling = analysis.coupling
    owner = coupling.class_of[coupling.axes.id(model.graph.node[0].input[1], 0)]
    return Plan(removed_by_axis(analysis, coupling.class_labels(owner)[channels]))


def _vector(model: onnx.ModelProto, node: int, index: int) -> NDArray[Any]:
    name = model.graph.node[node].input[index]
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name).astype(np.float64)


@pytest.mark.parametrize("between", ["Relu", "Clip", "HardSwish", "Sigmoid"])
def test_means_are_integrals_over_the_normal_distribution(between: str) -> None:
    model = _network(between)
    plan = _plan(model, [0, 3])
    functions = {
        "Relu": lambda v: max(v, 0.0),
        "Clip": lambda v: min(max(v, 0.0), 0.5),
        "HardSwish": lambda v: v * min(max(v / 6 + 0.5, 0.0), 1.0),
        "Sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    }
    (found,) = removed_means(onnxprune.normalize(model), plan.removed).values()
    for channel, (gamma, beta) in enumerate(zip(_vector(model, 1, 1), _vector(model, 1, 2), strict=True)):
        density = stats.norm(beta, gamma).pdf

        def weighed(v: float, density: Any = density) -> float:
            return float(functions[between](v) * density(v))

        kinks = [p for p in (-3, 0, 0.5, 3) if abs(p - beta) < 8 * gamma]
        wanted = integrate.quad(weighed, beta - 8 * gamma, beta + 8 * gamma, points=kinks)[0]
        assert found[channel] == pytest.approx(wanted, abs=0.01)


def test_without_data_the_bias_takes_the_mean_of_what_went() -> None:
    model = _network()
    plan = _plan(model, [0, 3, 4])
    pruned = onnxprune.apply(model, plan)
    result = compensate(pruned, model, plan, method="bias")
    gamma, beta = _vector(model, 1, 1)[[0, 3, 4]], _vector(model, 1, 2)[[0, 3, 4]]
    # The mean of max(0, N(beta, gamma)), in closed form.
    means = beta * stats.norm.cdf(beta / gamma) + gamma * stats.norm.pdf(beta / gamma)
    change = np.einsum("oikl,i->o", _vector(model, 3, 1)[:, [0, 3, 4]], means)
    names = [node.input[3] for node in result.model.graph.node if node.op_type == "BatchNormalization"]
    np.testing.assert_allclose(_vector(model, 4, 3) - result.model.weights[names[1]].array, change, atol=0.02)
    assert len(result.changed) == 1
    assert result.samples == 0
    np.testing.assert_array_equal(result.model.weights[names[0]].array, pruned.weights[names[0]].array)


def test_what_nothing_is_known_about_is_named() -> None:
    model = _network(folded=True)
    plan = _plan(model, [0])
    pruned = onnxprune.apply(model, plan)
    result = compensate(pruned, model, plan, method="bias")
    assert list(result.skipped.values()) == ["no BatchNormalization tells what it reads"]
    x = np.random.default_rng(0).standard_normal((2, 3, 10, 10)).astype(np.float32)
    np.testing.assert_array_equal(run(result.model.to_proto(), {"x": x})[0], run(pruned.to_proto(), {"x": x})[0])
    for method in ("refit", "batchnorm"):
        with pytest.raises(UsageError, match=f"compensation '{method}' needs calibration data"):
            compensate(pruned, model, plan, method=method)


def test_statistics_anew_are_those_of_the_samples() -> None:
    model = _network(pads=1)
    plan = _plan(model, [1, 2, 5])
    x = np.random.default_rng(0).standard_normal((32, 3, 10, 10)).astype(np.float32)
    result = compensate(onnxprune.apply(model, plan), model, plan, {"x": x}, method="batchnorm")
    nodes = [node for node in result.model.graph.node if node.op_type == "BatchNormalization"]
    shown = result.model.to_proto()
    shown.graph.output.add().name = nodes[1].input[0]
    values = run(shown, {"x": x})[1].astype(np.float64)
    np.testing.assert_allclose(result.model.weights[nodes[1].input[3]].array, values.mean(axis=(0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(result.model.weights[nodes[1].input[4]].array, values.var(axis=(0, 2, 3)), rtol=1e-4)


def test_compress_needs_no_data_for_biases() -> None:
    result = onnxprune.compress(_network(), channels=0.4, compensate="bias")
    assert result.compensation is not None
    assert len(result.compensation.changed) >= 1
    assert result.fidelity is None
