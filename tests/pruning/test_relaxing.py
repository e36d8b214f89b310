"""Activations that could be missing: what their absence does is measured, and layers merge where it is taken."""

from __future__ import annotations

import numpy as np

import onnxprune
from onnxprune.data.samples import collect
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session
from onnxprune.passes.merge_linear import MergeLinear
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.regions.relaxing import measured, relaxations
from tests.helpers import GraphBuilder


def two_activations(shift: float, slope: float = 0.0) -> Model:
    """Two Relus between products: one whose operands are far above zero with a large shift, and one that bends."""
    g = GraphBuilder(17)
    bias = g.constant(np.full(24, shift, dtype=np.float32))
    h = g.op("Gemm", g.input("x", ("n", 8)), g.weight(24, 8), bias, transB=1)
    h = g.op("LeakyRelu", h, alpha=slope)
    # Rows that sum to 0: what is behind does not see the shift, and bends in the middle.
    second = g.rng.standard_normal((6, 24)) / 5
    centred = g.constant(second - second.mean(axis=1, keepdims=True), dtype=np.float32)
    h = g.op("Relu", g.op("Gemm", h, centred, transB=1))
    g.output(g.op("Gemm", h, g.weight(4, 6), transB=1), ("n", 4))
    return onnxprune.load(g.model())


def samples(model: Model) -> object:
    x = np.random.default_rng(0).standard_normal((256, 8)).astype(np.float32)
    return collect({"x": x}, model)


def test_what_hardly_bends_comes_first_and_costs_nothing() -> None:
    model = two_activations(20.0)
    analysis = onnxprune.analyze(model)
    first, second = measured(analysis, samples(analysis.model))  # type: ignore[arg-type]
    assert first.identity < 1e-9
    assert first.loss is not None
    assert second.loss is not None
    assert first.loss < 1e-9 < second.loss
    # Without it, 24 channels between two products are not needed.
    (one, *_) = relaxations(analysis, "params")
    assert (one.replacement.entry, one.replacement.exit) == (first.entry, first.exit)
    small = MergeLinear()(onnxprune.apply(model, Plan({}, replaced=(one.replacement,)))).model
    assert onnxprune.analyze(small).totals["params"] == 8 * 6 + 6 + 6 * 4
    x = {"x": np.random.default_rng(1).standard_normal((16, 8)).astype(np.float32)}
    outputs = [next(iter(Session(m, "a model", threads=1).run(x).values())) for m in (model, small)]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-3)


def test_a_slope_stands_for_what_is_linear_but_for_a_factor() -> None:
    model = two_activations(-20.0, slope=0.1)
    analysis = onnxprune.analyze(model)
    found = {one.exit: one for one in measured(analysis, samples(analysis.model))}  # type: ignore[arg-type]
    leaky = next(node.output[0] for node in analysis.model.graph.node if node.op_type == "LeakyRelu")
    assert found[leaky].slope < 1e-6
    assert found[leaky].identity > 1


def test_what_bends_is_noticed() -> None:
    model = two_activations(0.0)
    analysis = onnxprune.analyze(model)
    assert all(one.slope > 0.05 for one in measured(analysis, samples(analysis.model)))  # type: ignore[arg-type]
