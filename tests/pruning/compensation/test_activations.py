"""Fits of what comes out of an activation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import as_model
from onnxprune.ir.shapes import infer_shapes
from onnxprune.ops import default_registry
from onnxprune.ops.layers import linear_layer
from onnxprune.pruning.compensation.activations import MOST_KEPT, Bend, Rows, bend_of
from onnxprune.pruning.compensation.gathering import Piece
from onnxprune.pruning.compensation.solving import solve_moments
from tests.helpers import GraphBuilder, run

Array = NDArray[Any]


def _pieces(rows: int, seed: int) -> list[Piece]:
    """Outputs that are mostly far below 0, of features of which some are gone."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((rows, 12)).astype(np.float32)
    hidden[:, 0] = 8 * np.abs(hidden[:, 0])
    matrix = np.random.default_rng(0).standard_normal((12, 5)).astype(np.float32)
    matrix[0] = -2.0
    y = hidden @ matrix + 2
    # What is left tells of the first, which is lost, where it is large; where it is small, it hardly does.
    x = np.concatenate([hidden[:, 1:9], np.sqrt(hidden[:, :1])], axis=1)
    sample = np.arange(rows) // 10
    cut = rows // 10
    return [
        Piece(x[None, at : at + cut], y[None, at : at + cut], sample[at : at + cut], place % 4 == 3)
        for place, at in enumerate(range(0, rows, cut))
    ]


def _error(pieces: list[Piece], matrix: Array, bias: Array, bend: Bend) -> float:
    errors = [bend.cut(piece.x @ matrix + bias[:, None]) - bend.cut(piece.y) for piece in pieces]
    return float(np.square(np.concatenate(errors, axis=1)).mean())


def test_errors_that_an_activation_hides_do_not_count() -> None:
    bend = Bend(np.zeros(5), np.full(5, np.inf))
    start, now = np.zeros((1, 9, 5)), np.zeros((1, 5))
    before = solve_moments(_pieces(4000, 1), start, now, intercept=True)
    after = solve_moments(_pieces(4000, 1), start, now, intercept=True, bend=bend)
    assert before.matrix is not None
    assert before.bias is not None
    assert after.matrix is not None
    assert after.bias is not None
    others = _pieces(4000, 2)
    plain, bent = (_error(others, found.matrix, found.bias, bend) for found in (before, after))
    assert bent < 0.8 * plain
    assert after.after > before.after  # what goes in is further off: that is the price


def test_where_nothing_is_hidden_nothing_changes() -> None:
    open_ended = Bend(np.full(5, -np.inf), np.full(5, np.inf))
    start, now = np.zeros((1, 9, 5)), np.zeros((1, 5))
    plain = solve_moments(_pieces(1000, 1), start, now, intercept=True)
    bent = solve_moments(_pieces(1000, 1), start, now, intercept=True, bend=open_ended)
    np.testing.assert_allclose(bent.matrix, plain.matrix, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(bent.bias, plain.bias, rtol=1e-3, atol=1e-3)


def test_targets_ask_for_no_more_than_what_comes_out() -> None:
    bend = Bend(np.zeros(1), np.full(1, 6.0))
    wanted = np.array([-5.0, -5.0, 3.0, 9.0, 9.0])[:, None]
    given = np.array([-2.0, 1.0, -1.0, 7.0, 5.0])[:, None]
    assert bend.target(wanted, given).ravel().tolist() == [-2.0, 0.0, 3.0, 7.0, 6.0]
    np.testing.assert_array_equal(bend.cut(bend.target(wanted, given)), bend.cut(wanted))


def test_what_is_told_of_unseen_rows_is_of_what_is_kept() -> None:
    bend = Bend(np.zeros(5), np.full(5, np.inf))
    start, now = np.zeros((1, 9, 5)), np.zeros((1, 5))
    plain = solve_moments(_pieces(40000, 4), start, now, intercept=True)
    bent = solve_moments(_pieces(40000, 4), start, now, intercept=True, bend=bend)
    open_ended = Bend(np.full(5, -np.inf), np.full(5, np.inf))
    for found in (plain, bent):
        assert found.matrix is not None
        assert found.bias is not None
        # Of what goes into the activation, as before and after are; summed over the five outputs.
        assert found.unseen == pytest.approx(
            5 * _error(_pieces(100000, 2), found.matrix, found.bias, open_ended), rel=0.05
        )
    assert plain.unseen is not None
    assert bent.unseen is not None
    assert bent.unseen > 1.1 * plain.unseen
    (one,) = _pieces(4000, 1)[:1]
    alone = solve_moments([replace(one, held_out=False)], start, now, intercept=True, bend=bend)
    assert alone.unseen is None


def test_too_many_rows_are_not_kept() -> None:
    pieces = _pieces(400, 1)
    kept = Rows(pieces, MOST_KEPT)
    assert list(kept) == pieces == kept.kept
    room = sum(piece.x.nbytes + piece.y.nbytes for piece in pieces)
    for most, count in ((room, 10), (room - 1, 0), (0, 0)):
        some = Rows(pieces, most)
        assert list(some) == pieces
        assert len(some.kept) == count
    bend = Bend(np.zeros(5), np.full(5, np.inf))
    start, now = np.zeros((1, 9, 5)), np.zeros((1, 5))
    plain = solve_moments(pieces, start, now, intercept=True)
    scarce, ample = (
        solve_moments(pieces, start, now, intercept=True, bend=bend, spare=spare) for spare in (room - 1, room)
    )
    assert plain.matrix is not None
    np.testing.assert_array_equal(scarce.matrix, plain.matrix)
    assert scarce.unseen == plain.unseen
    assert not np.array_equal(ample.matrix, plain.matrix)


def _behind(activation: str, *, normalised: bool = False, groups: int = 1, twice: bool = False) -> Bend | None:
    g = GraphBuilder(17)
    x = g.input("x", ("n", 4, 5, 5))
    h = conv = g.op("Conv", x, g.weight(4, 4 // groups, 1, 1), group=groups)
    if normalised:
        scale, shift = (g.constant(v, dtype=np.float32) for v in ([1, 2, -1, 4], [0, 1, 2, -4]))
        mean, variance = (g.constant(v, dtype=np.float32) for v in ([0, 0, 1, 0], [1, 1, 1, 1]))
        h = g.op("BatchNormalization", h, scale, shift, mean, variance, epsilon=0.0)
    bounds = [g.constant(v, dtype=np.float32) for v in (0, 6)] if activation == "Clip" else []
    g.output(g.op(activation, h, *bounds), ("n", 4, 5, 5))
    if twice:
        g.output(g.op("Neg", conv), ("n", 4, 5, 5))
    graph = Graph(model := as_model(g.model()), infer_shapes(model))
    layer = linear_layer(graph.nodes[0])
    assert layer is not None
    return bend_of(graph, layer)


def test_the_edges_are_those_of_the_reader_behind_a_normalisation() -> None:
    relu, clip, swish = (_behind(name) for name in ("Relu", "Clip", "HardSwish"))
    assert relu is not None
    assert clip is not None
    assert swish is not None
    assert (relu.low[0], relu.high[0]) == (0, np.inf)
    assert (clip.low[0], clip.high[0]) == (0, 6)
    assert (swish.low[0], swish.high[0]) == (-3, np.inf)
    normalised = _behind("Clip", normalised=True)
    assert normalised is not None
    np.testing.assert_allclose(normalised.low, [0, -0.5, -3, 1])
    np.testing.assert_allclose(normalised.high, [6, 2.5, 3, 2.5])


@pytest.mark.parametrize("how", [{"activation": "Sigmoid"}, {"groups": 4}, {"twice": True}])
def test_where_all_matters_there_are_no_edges(how: dict[str, Any]) -> None:
    assert _behind(**{"activation": "Relu", **how}) is None


@pytest.mark.parametrize("op_type", ["Relu", "HardSwish", "HardSigmoid", "Clip"])
def test_beyond_its_edges_an_operator_gives_the_same(op_type: str) -> None:
    attributes = {"HardSigmoid": {"alpha": 0.25, "beta": 0.3}}.get(op_type, {})
    g = GraphBuilder(17)
    x = g.input("x", ("n",))
    bounds = [g.constant(v, dtype=np.float32) for v in (-1, 2)] if op_type == "Clip" else []
    g.output(g.op(op_type, x, *bounds, **attributes), ("n",))
    model: onnx.ModelProto = g.model()
    node = Graph(as_model(model)).nodes[0]
    operator = default_registry().find(node)
    assert operator is not None
    edges = operator.varies(node)
    assert edges is not None
    for edge, beyond in zip(edges, (-1.0, 1.0), strict=True):
        if np.isfinite(edge):
            there = np.array([edge, edge + beyond, edge + 9 * beyond, edge - 0.1 * beyond], dtype=np.float32)
            given = run(model, {"x": there})[0]
            assert np.ptp(given[:3]) < 1e-6 < abs(given[3] - given[0])


def test_a_normalisation_of_another_dimension_has_no_edges() -> None:
    g = GraphBuilder()
    made = g.op("MatMul", g.input("x", (2, 6, 4)), g.weight(4, 6))
    normalised = g.op("BatchNormalization", made, *(g.vector(6) for _ in range(3)), g.constant(np.ones(6, np.float32)))
    g.output(g.op("Relu", normalised), (2, 6, 6))
    graph = Graph(model := as_model(g.model()), infer_shapes(model))
    layer = linear_layer(graph.nodes[0])
    assert layer is not None
    assert layer.out_dim == 2
    assert bend_of(graph, layer) is None
