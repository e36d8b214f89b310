"""Reading and writing by index, and operators that hold their axes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

import onnxprune
from tests.helpers import GraphBuilder
from tests.ops.certifying import certify_often, conv, linear, reasons

COVERS = frozenset(
    ("", operator)
    for operator in (
        "Compress", "EyeLike", "GatherElements", "GatherND", "Multinomial", "NonMaxSuppression", "NonZero", "OneHot",
        "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range", "Scatter",
        "ScatterElements", "ScatterND", "Size", "Trilu", "Unique",
    )
)  # fmt: skip


def _rows(g: GraphBuilder) -> str:
    """Rows (5, 8) that a layer produces."""
    return linear(g, g.input("x", (5, 6)), 6, 8)


@pytest.mark.parametrize("opset", [11, 13, 18, 23])
def test_gather_nd_passes_axes_behind_the_indexed_ones(opset: int) -> None:
    g = GraphBuilder(opset)
    h = _rows(g)
    y = g.op("GatherND", h, g.constant([[3], [0], [3]], dtype=np.int64))
    g.output(linear(g, y, 8, 3))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 1)])


def test_gather_nd_with_batch_dimensions() -> None:
    g = GraphBuilder(13)
    h = linear(g, g.input("x", (2, 5, 6)), 6, 8)
    at = g.input("at", (2, 3, 1), TensorProto.INT64)
    y = g.op("GatherND", h, at, batch_dims=1)
    g.output(linear(g, y, 8, 3))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 1)])


def test_gather_nd_over_channels_is_pinned() -> None:
    g = GraphBuilder(13)
    g.output(g.op("GatherND", h := _rows(g), g.constant([[3, 1], [0, 0]], dtype=np.int64)))
    assert "positions are picked by GatherND" in reasons(onnxprune.analyze(g.model()), h, 1)


@pytest.mark.parametrize("opset", [11, 13, 16, 18])
def test_scatter_nd_passes_axes_behind_the_indexed_ones(opset: int) -> None:
    g = GraphBuilder(opset)
    h = _rows(g)
    updates = linear(g, g.input("z", (2, 6)), 6, 8)
    y = g.op("ScatterND", h, g.constant([[3], [0]], dtype=np.int64), updates)
    g.output(linear(g, y, 8, 3))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 1)])


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_elements_go_through_but_for_the_indexed_axis(opset: int) -> None:
    g = GraphBuilder(opset)
    h = _rows(g)
    at = g.constant(g.rng.integers(0, 5, (3, 8)), dtype=np.int64)
    taken = g.op("GatherElements", h, at, axis=0)
    y = g.op("ScatterElements", h, g.constant([[4] * 8, [1] * 8, [2] * 8], dtype=np.int64), taken, axis=0)
    g.output(linear(g, y, 8, 3))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 1), (at, 1)])


def test_elements_of_the_first_positions_only_are_pinned() -> None:
    g = GraphBuilder(13)
    h = _rows(g)
    taken = g.op("GatherElements", h, g.constant([[0] * 4, [2] * 4], dtype=np.int64), axis=0)
    g.output(g.op("ScatterElements", h, g.constant([[1]], dtype=np.int64), g.vector(1, 1), axis=0))
    g.output(taken)
    found = reasons(onnxprune.analyze(g.model()), h, 1)
    assert found, "an axis of which only first positions are used must stay"


def test_scatter_before_opset_11() -> None:
    g = GraphBuilder(9)
    h = _rows(g)
    y = g.op("Scatter", h, g.constant([[4] * 8], dtype=np.int64), g.vector(1, 8), axis=0)
    g.output(linear(g, y, 8, 3))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 1)])


def test_trilu_passes_batch_dimensions() -> None:
    g = GraphBuilder(14)
    y = g.op("Trilu", conv(g, g.input("x", (1, 3, 4, 4)), 3, 6), upper=0)
    g.output(conv(g, y, 6, 2))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 0)])


def test_compress_along_another_axis() -> None:
    g = GraphBuilder(13)
    h = _rows(g)
    y = g.op("Compress", h, g.constant([True, False, True, True, False]), axis=0)
    g.output(linear(g, y, 8, 3), ["rows", 3])
    certify_often(g.model())


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [("NonZero", {}), ("Size", {}), ("Unique", {}), ("EyeLike", {}), ("RandomNormalLike", {"seed": 1.0})],
)
def test_what_counts_positions_holds_them(op_type: str, attributes: dict[str, float]) -> None:
    g = GraphBuilder(13)
    h = _rows(g)
    y = g.op(op_type, h, **attributes)
    g.output(y, {"NonZero": [2, "n"], "Unique": ["n"]}.get(op_type), 1 if op_type == "Unique" else TensorProto.INT64)
    assert any(r.startswith(op_type) for r in reasons(onnxprune.analyze(g.model()), h, 1))


def test_one_hot_passes_the_axes_of_its_indices() -> None:
    g = GraphBuilder(13)
    h = g.op("Cast", g.op("Clip", _rows(g), g.constant(0, dtype=np.float32), g.constant(2, dtype=np.float32)), to=7)
    y = g.op("OneHot", h, g.constant([3], dtype=np.int64), g.constant([0, 1], dtype=np.float32), axis=1)
    y = g.op("Transpose", y, perm=[0, 1, 2])
    g.output(linear(g, y, 8, 3))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 1)])


def test_non_max_suppression_holds_boxes_and_scores() -> None:
    g = GraphBuilder(13)
    x = g.input("x", (1, 5, 6))
    boxes = linear(g, x, 6, 4)
    scores = g.op("Transpose", linear(g, x, 6, 7), perm=[0, 2, 1])
    g.output(g.op("NonMaxSuppression", boxes, scores, g.constant([5], dtype=np.int64)), ["n", 3], TensorProto.INT64)
    analysis = onnxprune.analyze(g.model())
    assert any("NonMaxSuppression" in r for r in reasons(analysis, boxes, 2))
    assert any("NonMaxSuppression" in r for r in reasons(analysis, scores, 1))
