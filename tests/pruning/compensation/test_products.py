"""Heads that lose width: queries and keys make good for one another."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxprune
from onnxprune.data.pairs import pairs
from onnxprune.ir.graph import Graph
from onnxprune.ir.shapes import infer_shapes
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.choosing import removed_by_axis
from onnxprune.pruning.compensation import closed_form, compensate, refit
from onnxprune.pruning.plan import Plan
from tests.helpers import GraphBuilder, run

ROWS, WIDTH, HEADS = 10, 24, 3
SAMPLES = np.random.default_rng(3).standard_normal((64, ROWS, WIDTH)).astype(np.float32)


def _attention(*, between: str | None = None, softmax: bool = True) -> tuple[onnx.ModelProto, list[str]]:
    """Three heads of width 8 over one stream, whose queries and keys have rank 4; the three weights."""
    g, rng = GraphBuilder(17), np.random.default_rng(0)
    x = g.input("x", ("n", ROWS, WIDTH))
    operands, weights = [], []
    for place in range(3):
        w = rng.standard_normal((WIDTH, HEADS, 4))
        if place < 2:
            w = np.einsum("ihr,hrd->ihd", w, rng.standard_normal((HEADS, 4, 8)))
        else:
            w = rng.standard_normal((WIDTH, HEADS, 8))
        weights.append(g.constant((w * 0.4).reshape(WIDTH, WIDTH).astype(np.float32)))
        h = g.op("Add", g.op("MatMul", x, weights[-1]), g.vector(WIDTH))
        if between and place < 2:
            h = g.op(between, h)
        h = g.op("Reshape", h, g.constant(np.array([0, ROWS, HEADS, 8], dtype=np.int64)))
        operands.append(g.op("Transpose", h, perm=[0, 2, 3, 1] if place == 1 else [0, 2, 1, 3]))
    logits = g.op("Mul", g.op("MatMul", *operands[:2]), g.constant(np.float32(0.1)))
    h = g.op("MatMul", g.op("Softmax", logits, axis=-1) if softmax else logits, operands[2])
    h = g.op("Reshape", g.op("Transpose", h, perm=[0, 2, 1, 3]), g.constant(np.array([0, ROWS, WIDTH], dtype=np.int64)))
    g.output(g.op("MatMul", h, g.weight(WIDTH, WIDTH)), ["n", ROWS, WIDTH])
    return g.model(), weights


def _narrower(model: onnx.ModelProto, weight: str, columns: list[int]) -> Plan:
    analysis = onnxprune.analyze(model)
    coupling = analysis.coupling
    owner = coupling.class_of[coupling.axes.id(weight, 1)]
    return Plan(removed_by_axis(analysis, coupling.class_labels(owner)[columns]))


def _error(model: Any, wanted: NDArray[Any]) -> float:
    given = model.to_proto() if isinstance(model, onnxprune.Model) else model
    return float(np.square(np.asarray(run(given, {"x": SAMPLES})[0]) - wanted).mean() / wanted.var())


@pytest.mark.parametrize("softmax", [True, False])
def test_columns_that_follow_from_the_others_are_taken_up(softmax: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, weights = _attention(softmax=softmax)
    plan = _narrower(model, weights[0], [0, 1, 2])
    wanted = np.asarray(run(model, {"x": SAMPLES})[0])
    pruned = onnxprune.apply(model, plan)
    good = _error(compensate(pruned, model, plan, {"x": SAMPLES}).model, wanted)
    # Each layer for itself, as a refit without products has it.
    monkeypatch.setattr(closed_form, "mixes", lambda walk, layer: False)
    monkeypatch.setattr(refit, "mixture_for", lambda walk, layer: None)
    alone = _error(compensate(pruned, model, plan, {"x": SAMPLES}).model, wanted)
    assert good < 0.03 * alone


def test_a_nonlinearity_between_is_noticed() -> None:
    model, weights = _attention(between="Tanh")
    plan = _narrower(model, weights[0], [0, 1, 2])
    pruned = onnxprune.apply(model, plan)
    found = compensate(pruned, model, plan, {"x": SAMPLES})
    wanted = np.asarray(run(model, {"x": SAMPLES})[0])
    assert _error(found.model, wanted) <= _error(pruned, wanted)
    for name, held in (("query", weights[0]), ("key", weights[1])):
        kept = pruned.weights[held].array
        np.testing.assert_allclose(found.model.weights[held].array, kept, atol=1e-4, err_msg=name)


def test_columns_that_meet_nothing_go_first() -> None:
    model, weights = _attention()
    for tensor in model.graph.initializer:
        if tensor.name == weights[1]:
            weight = numpy_helper.to_array(tensor).reshape(WIDTH, HEADS, 8).copy()
            weight[:, :, [2, 5]] *= 1e-3
            tensor.CopyFrom(numpy_helper.from_array(weight.reshape(WIDTH, WIDTH), tensor.name))
    made = onnxprune.compress(model, channels=0.25, calibration={"x": SAMPLES}, certify=False)
    columns = made.plan.removed[weights[0]][1]
    assert {2, 5} <= {column % 8 for column in columns}


def test_only_a_softmax_makes_means_nothing() -> None:
    for softmax in (True, False):
        model = normalize(onnxprune.load(_attention(softmax=softmax)[0]))
        found = list(pairs(Graph(model, infer_shapes(model))))
        assert [pair.centred for pair in found][:2] == [softmax, False]
