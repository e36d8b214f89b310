"""Normalisations that compute, on request, as if removed channels were there and zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.pruning.certificate import TOLERANCE
from onnxprune.pruning.choosing import removed_by_axis
from onnxprune.pruning.plan import Plan
from tests.helpers import GraphBuilder, random_atoms, run
from tests.ops.certifying import conv, linear

CHANNELS = 12
Build = Callable[[GraphBuilder, str], str]


def _trailing(op_type: str, outputs: int = 1, **attributes: object) -> Build:
    def build(g: GraphBuilder, h: str) -> str:
        operands = [g.vector(CHANNELS, positive=True)]
        if op_type == "LayerNormalization":
            operands.append(g.vector(CHANNELS))
        y = g.ops(op_type, h, *operands, outputs=outputs, epsilon=0.1, **attributes)
        for statistic in y[1:]:
            y[0] = g.op("Add", y[0], statistic)
        return y[0]

    return build


def _computed_scale(g: GraphBuilder, h: str) -> str:
    scale = g.op("Mul", g.vector(CHANNELS), g.op("ReduceMax", "x", keepdims=0))
    return g.op("RMSNormalization", h, scale)


def _tokens_too(g: GraphBuilder, h: str) -> str:
    return g.op("LayerNormalization", h, g.vector(5, CHANNELS), g.vector(5, CHANNELS), axis=1)


def _skip(op_type: str) -> Build:
    def build(g: GraphBuilder, h: str) -> str:
        beta = [g.vector(CHANNELS)] if op_type == "SkipLayerNormalization" else []
        operands = [linear(g, "x", 6, CHANNELS), g.vector(CHANNELS, positive=True), *beta, g.vector(CHANNELS)]
        y, _, _, total = g.ops(op_type, h, *operands, outputs=4, domain="com.microsoft", epsilon=0.1)
        g.nodes[-1].output[1:3] = ["", ""]
        return g.op("Add", y, total)

    return build


def _mean(g: GraphBuilder, h: str) -> str:
    return g.op("Mul", h, g.reduce("ReduceMean", h, 2))


TOKENS: dict[str, tuple[int, int, Build]] = {
    # Opset, extra nodes, operator.
    "LayerNormalization": (17, 2, _trailing("LayerNormalization")),
    "its statistics": (17, 2, _trailing("LayerNormalization", 3)),
    "over tokens, too": (17, 2, _tokens_too),
    "RMSNormalization": (23, 0, _trailing("RMSNormalization")),
    "of a computed scale": (23, 1, _computed_scale),
    "SimplifiedLayerNormalization": (17, 0, _trailing("SimplifiedLayerNormalization")),
    "SkipLayerNormalization": (17, 4, _skip("SkipLayerNormalization")),
    "SkipSimplifiedLayerNormalization": (17, 0, _skip("SkipSimplifiedLayerNormalization")),
    "ReduceMean": (17, 1, _mean),
    "ReduceMean 18": (18, 1, _mean),
}


def _certify(model: onnx.ModelProto, extra: int) -> None:
    """Exact at the tolerance of exact groups, against an oracle, too; and not without the option."""
    analysis = onnxprune.analyze(model)
    assert all(group.mendable or not group.approximate for group in analysis.coupling.groups)
    assert any(group.mendable for group in analysis.coupling.groups)
    for seed in range(3):
        atoms = random_atoms(analysis, np.random.default_rng(seed), 0.5 if seed else None)
        plan = Plan(removed_by_axis(analysis, atoms), {"exact_norm": True})
        pruned = onnxprune.apply(model, plan)
        certificate = onnxprune.verify(model, pruned, plan)
        assert certificate.passed, certificate.outputs
        assert not certificate.approximate
        assert certificate.tolerance == TOLERANCE
    assert len(pruned.graph.node) == len(analysis.model.graph.node) + extra
    usual = replace(plan, settings={})
    assert not onnxprune.verify(model, onnxprune.apply(model, usual), plan).passed
    assert onnxprune.verify(model, onnxprune.apply(model, usual), usual).approximate


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(name: str) -> None:
    opset, extra, build = TOKENS[name]
    g = GraphBuilder(opset, domains={"com.microsoft": 1} if "Skip" in name or "Simplified" in name else {})
    h = linear(g, g.input("x", (2, 5, 6)), 6, CHANNELS)
    g.output(linear(g, build(g, h), CHANNELS, 3), [2, 5, 3])
    _certify(g.model(), extra)


@pytest.mark.parametrize(
    ("opset", "extra", "op_type", "attributes"),
    [
        (21, 3, "GroupNormalization", {"num_groups": 3}),
        (21, 2, "GroupNormalization", {"num_groups": 1}),
        (17, 2, "MeanVarianceNormalization", {"axes": [1, 2, 3]}),
        (10, 2, "MeanVarianceNormalization", {"axes": [1, 2, 3]}),
        (9, 2, "MeanVarianceNormalization", {"axes": [1, 2, 3]}),
    ],
)
def test_maps(opset: int, extra: int, op_type: str, attributes: dict[str, object]) -> None:
    g = GraphBuilder(opset)
    h = conv(g, g.input("x", (2, 3, 5, 4)), 3, CHANNELS)
    vectors = [g.vector(CHANNELS, positive=True), g.vector(CHANNELS)] if op_type == "GroupNormalization" else []
    g.output(conv(g, g.op(op_type, h, *vectors, **attributes), CHANNELS, 3), [2, 3, 5, 4])
    _certify(g.model(), extra)


def test_groups_as_exporters_write_them() -> None:
    """PyTorch writes GroupNorm as InstanceNormalization of its groups."""
    g = GraphBuilder(17)
    h = conv(g, g.input("x", (2, 3, 5, 4)), 3, 24)
    ones, zeros = g.constant(np.ones(3, dtype=np.float32)), g.constant(np.zeros(3, dtype=np.float32))
    y = g.op("InstanceNormalization", g.op("Reshape", h, g.ints(0, 3, -1)), ones, zeros, epsilon=0.1)
    g.output(conv(g, g.op("Reshape", y, g.ints(2, 24, 5, 4)), 24, 3), [2, 3, 5, 4])
    _certify(g.model(), 2)


def test_it_is_what_the_layer_makes_of_zeros() -> None:
    """Without any of the library's own masking: zero rows of the layer before give the same result."""
    g = GraphBuilder(17)
    w, scale, bias = g.weight(6, CHANNELS), g.vector(CHANNELS), g.vector(CHANNELS)
    h = g.op("MatMul", g.input("x", (2, 5, 6)), w)
    last = g.weight(CHANNELS, 3)
    g.output(g.op("MatMul", g.op("LayerNormalization", h, scale, bias), last))
    model = g.model()
    result = onnxprune.compress(model, channels=0.5, exact_norm=True)
    gone = list(result.plan.removed[h][2])
    by_name = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, place in ((w, (slice(None), gone)), (last, (gone, slice(None)))):
        array = onnx.numpy_helper.to_array(by_name[name]).copy()
        array[place] = 0
        by_name[name].CopyFrom(onnx.numpy_helper.from_array(array, name))
    x = {"x": np.random.default_rng(3).standard_normal((2, 5, 6)).astype(np.float32)}
    np.testing.assert_allclose(run(result.model.to_proto(), x)[0], run(model, x)[0], rtol=1e-4, atol=1e-5)


def test_exact_only_allows_what_can_be_mended() -> None:
    g = GraphBuilder(17)
    h = linear(g, g.input("x", (2, 5, 6)), 6, CHANNELS)
    y = g.op("LayerNormalization", h, g.vector(CHANNELS), g.vector(CHANNELS))
    g.output(linear(g, y, CHANNELS, 3), [2, 5, 3])
    model = g.model()
    assert onnxprune.plan(model, channels=0.5, exact_only=True, exact_norm=True).removed
    assert not onnxprune.plan(model, channels=0.5, exact_only=True).removed


def test_what_cannot_be_mended_stays_approximate() -> None:
    """A LayerNormalization and an LRN on the same channels."""
    g = GraphBuilder(17)
    h = conv(g, g.input("x", (2, 3, 5, 4)), 3, CHANNELS)
    y = g.op("LRN", g.op("MeanVarianceNormalization", h, axes=[1]), size=3)
    g.output(conv(g, y, CHANNELS, 3), [2, 3, 5, 4])
    (group,) = onnxprune.analyze(g.model()).coupling.groups
    assert group.approximate == "LRN over the axis"
    assert not group.is_exact(exact_norm=True)
    result = onnxprune.compress(g.model(), channels=0.5, exact_norm=True)
    assert result.certificate
    assert result.certificate.approximate
