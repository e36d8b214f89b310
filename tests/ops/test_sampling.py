"""Sampling feature maps, regions and deformable convolution."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from tests.helpers import GraphBuilder
from tests.ops.certifying import certify_often, conv, reasons

COVERS = frozenset(
    ("", operator)
    for operator in ("AffineGrid", "Col2Im", "DeformConv", "Det", "GridSample", "MaxRoiPool", "MaxUnpool", "RoiAlign")
)


@pytest.mark.parametrize("opset", [16, 20, 23])
def test_grid_sample(opset: int) -> None:
    g = GraphBuilder(opset)
    h = conv(g, g.input("x", (2, 3, 6, 5)), 3, 8)
    grid = g.constant(g.rng.uniform(-1, 1, (2, 4, 7, 2)), dtype=np.float32)
    g.output(conv(g, g.op("GridSample", h, grid), 8, 2))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 0)])


def test_grid_sample_by_a_learned_grid() -> None:
    g = GraphBuilder(16)
    x = g.input("x", (1, 3, 6, 6))
    grid = g.op("Transpose", g.op("Tanh", conv(g, conv(g, x, 3, 5), 5, 2)), perm=[0, 2, 3, 1])
    g.output(conv(g, g.op("GridSample", conv(g, x, 3, 8), grid), 8, 2))
    result = certify_often(g.model(), prunable=[(g.nodes[0].input[1], 0)])
    assert any("coordinates" in r for r in reasons(result.analysis, grid, 3))


@pytest.mark.parametrize("opset", [10, 16, 21])
def test_roi_align(opset: int) -> None:
    g = GraphBuilder(opset)
    h = conv(g, g.input("x", (2, 3, 8, 8)), 3, 8)
    rois = g.constant([[0, 0, 4, 4], [1, 2, 6, 7], [0, 0, 7, 7]], dtype=np.float32)
    batch = g.constant([0, 1, 1], dtype=np.int64)
    y = g.op("RoiAlign", h, rois, batch, output_height=2, output_width=3, sampling_ratio=2)
    g.output(conv(g, y, 8, 2))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 0)])


def test_max_roi_pool() -> None:
    g = GraphBuilder(13)
    h = conv(g, g.input("x", (2, 3, 8, 8)), 3, 8)
    rois = g.constant([[0, 0, 0, 4, 4], [1, 1, 2, 6, 7]], dtype=np.float32)
    g.output(conv(g, g.op("MaxRoiPool", h, rois, pooled_shape=[2, 2]), 8, 2))
    certify_often(g.model(), prunable=[(g.nodes[0].input[1], 0)])


@pytest.mark.parametrize(("opset", "group", "offset_group"), [(19, 1, 1), (22, 1, 1), (19, 1, 2), (19, 2, 1)])
def test_deform_conv(opset: int, group: int, offset_group: int) -> None:
    g = GraphBuilder(opset)
    x = g.input("x", (1, 3, 6, 6))
    offset = conv(g, conv(g, x, 3, 5), 5, offset_group * 18)
    weighting = g.op("Sigmoid", conv(g, x, 3, offset_group * 9))
    h = conv(g, x, 3, 8)
    w, b = g.weight(6, 8 // group, 3, 3), g.vector(6)
    y = g.op(
        "DeformConv", h, w, offset, b, weighting, kernel_shape=[3, 3], pads=[1] * 4,
        group=group, offset_group=offset_group,
    )  # fmt: skip
    g.output(conv(g, y, 6, 2))
    expected = [(g.nodes[0].input[1], 0)]
    if group == 1:
        expected.append((w, 0))
        if offset_group == 1:
            expected.append((w, 1))
    result = certify_often(g.model(), prunable=expected)
    if group * offset_group > 1:
        assert "DeformConv has groups" in reasons(result.analysis, h, 1)
    layer = next(found for found in result.analysis.layers if found.op_type == "DeformConv")
    assert layer.flops == 36 * 6 * (8 // group) * 9


def test_what_mixes_channels_and_positions_holds_them() -> None:
    g = GraphBuilder(18)
    h = conv(g, g.input("x", (1, 3, 4, 4)), 3, 8)
    flat = g.op("Reshape", h, g.ints(1, 8, 16))
    g.output(g.op("Col2Im", flat, g.ints(5, 5), g.ints(2, 2)))
    assert any(r.startswith("Col2Im") for r in reasons(onnxprune.analyze(g.model()), h, 1))


def test_indices_of_unpooling_hold_channels() -> None:
    g = GraphBuilder(13)
    h = conv(g, g.input("x", (1, 3, 4, 4)), 3, 8)
    pooled, where = g.ops("MaxPool", h, outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    y = g.op("MaxUnpool", pooled, where, kernel_shape=[2, 2], strides=[2, 2])
    g.output(conv(g, y, 8, 2))
    assert any(r.startswith("Max") for r in reasons(onnxprune.analyze(g.model()), h, 1))
