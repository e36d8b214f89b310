"""What random networks found, by name and as small as it gets."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

import onnxprune
from tests.helpers import GraphBuilder, prune_random


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_targets_computed_by_old_operators_are_known(opset: int) -> None:
    """Shape → Gather → Unsqueeze with an attribute → Concat, as TorchScript writes it, leaves no shape unknown."""
    g = GraphBuilder(opset)
    g.input("x", [2, 3, 5, 4])
    x = g.op("Conv", "x", g.weight(6, 3, 1, 1))
    batch = g.unsqueeze(g.op("Gather", g.op("Shape", x), g.constant(0, dtype=np.int64), axis=0), 0)
    flat = g.op("Reshape", x, g.op("Concat", batch, g.ints(6), g.ints(-1), axis=0))
    g.output(g.op("MatMul", g.op("Transpose", flat, perm=[0, 2, 1]), g.weight(6, 3, fan_in=6)), [2, 20, 3])
    pruned = prune_random(g.model(), share=0.5)
    assert not pruned.analysis.unknown
    assert pruned.plan


def test_a_layer_of_unknown_shape_is_no_crash() -> None:
    """A slice whose bounds are data hides all shapes behind it; the layers there are left as they are."""
    g = GraphBuilder(13)
    g.input("x", [2, 3, 5, 4])
    start = g.input("start", [1], TensorProto.INT64)
    x = g.op("Conv", "x", g.weight(6, 3, 1, 1))
    hidden = g.op("Conv", g.op("Relu", x), g.weight(5, 6, 1, 1))
    rows = g.op("Slice", hidden, start, g.ints(5), g.ints(2))
    g.output(g.op("Conv", rows, g.weight(4, 5, 1, 1)), [2, 4, "rows", "columns"])
    pruned = prune_random(g.model(), share=0.5)
    assert pruned.analysis.unknown
    assert [layer.prunable > 0 for layer in pruned.analysis.layers[:2]] == [True, False]


def test_a_slice_of_nothing_stays_one() -> None:
    """Hostile files had it; a shape that is computed may come to it as well."""
    g = GraphBuilder(13)
    g.input("x", [2, 3, 5, 4])
    x = g.op("Relu", g.op("Conv", "x", g.weight(6, 3, 1, 1)))
    nothing = g.op("Slice", x, g.ints(0), g.ints(0), g.ints(1))
    g.output(g.op("Conv", g.op("Concat", x, nothing, axis=1), g.weight(4, 6, 1, 1)), [2, 4, 5, 4])
    model = g.model()
    result = onnxprune.compress(model, channels=0.5)
    assert result.certificate
    assert result.plan.removed


@pytest.mark.parametrize("join", ["Split", "Slice", "Gather", "Concat"])
def test_the_only_position_of_an_axis_stays(join: str) -> None:
    """A part of a single channel has nothing to give: the channel stays, wherever it comes from."""
    g = GraphBuilder(13)
    g.input("x", [2, 3, 5, 4])
    x = g.op("Conv", "x", g.weight(4, 3, 1, 1))
    if join == "Split":
        part, _ = g.split(x, 1, [1, 3])
    elif join == "Slice":
        part = g.slice(x, 1, 2, 1, -1)
    elif join == "Gather":
        part = g.op("Gather", x, g.ints(3), axis=1)
    else:
        x = g.op("Concat", x, g.op("Conv", "x", g.weight(1, 3, 1, 1)), axis=1)
        part = g.slice(x, 1, 0, 2)
    channels = 2 if join == "Concat" else 1
    g.output(g.op("Conv", part, g.weight(2, channels, 1, 1)))
    g.output(g.op("Conv", g.op("Relu", x), g.weight(2, 5 if join == "Concat" else 4, 1, 1)))
    for seed in range(4):
        pruned = prune_random(g.model(), seed, 1.0)
        assert pruned.plan


def test_a_plan_for_given_shapes_is_applied_for_them() -> None:
    """A Squeeze without axes takes a batch of one along: what holds for two samples need not hold for one."""
    g = GraphBuilder(13)
    g.input("x", ["N", 3, 4, 4])
    x = g.op("GlobalAveragePool", g.op("Conv", "x", g.weight(6, 3, 1, 1)))
    hidden = g.op("Gemm", g.op("Squeeze", x), g.weight(5, 6), g.vector(5), transB=1)
    g.output(g.op("Gemm", g.op("Relu", hidden), g.weight(3, 5), g.vector(3), transB=1), ["N", 3])
    shapes = {"x": (2, 3, 4, 4)}
    assert prune_random(g.model(), share=0.5, input_shapes=shapes).plan
    result = onnxprune.compress(g.model(), channels=0.5, input_shapes=shapes)
    assert result.certificate is not None
    assert result.certificate.passed
