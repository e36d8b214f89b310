"""Layers as matrix products: features times matrix plus bias is what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxprune.ir.graph import Graph
from onnxprune.ir.model import load
from onnxprune.ir.shapes import infer_shapes
from onnxprune.ops.layers import linear_layer
from tests.helpers import GraphBuilder, run

Build = Callable[[GraphBuilder], str]


def _conv(shape: tuple[int, ...], weight: tuple[int, ...], op_type: str = "Conv", **attributes: Any) -> Build:
    def build(g: GraphBuilder) -> str:
        outputs = weight[0] if op_type == "Conv" else weight[1] * attributes.get("group", 1)
        return g.op(op_type, g.input("x", shape), g.weight(*weight), g.vector(outputs), **attributes)

    return build


def _gemm(**attributes: Any) -> Build:
    def build(g: GraphBuilder) -> str:
        weight = (4, 6) if attributes.get("transB") else (6, 4)
        return g.op("Gemm", g.input("x", (5, 6)), g.weight(*weight), g.vector(4), **attributes)

    return build


def _matmul(g: GraphBuilder) -> str:
    return g.op("MatMul", g.input("x", (2, 3, 6)), g.weight(6, 4))


CASES: dict[str, Build] = {
    "conv": _conv((2, 4, 7, 8), (6, 4, 3, 3), pads=[1, 0, 2, 1]),
    "strided": _conv((2, 4, 9, 8), (6, 4, 3, 2), strides=[2, 3], pads=[1, 1, 1, 1]),
    "dilated": _conv((2, 4, 9, 9), (6, 4, 3, 3), dilations=[2, 1]),
    "grouped": _conv((2, 4, 6, 6), (6, 2, 3, 3), group=2),
    "depthwise": _conv((2, 4, 6, 6), (8, 1, 3, 3), group=4, pads=[1, 1, 1, 1]),
    "same upper": _conv((2, 3, 7, 7), (4, 3, 3, 2), auto_pad="SAME_UPPER", strides=[2, 2]),
    "same lower": _conv((2, 3, 8, 8), (4, 3, 3, 2), auto_pad="SAME_LOWER", strides=[2, 2]),
    "valid": _conv((2, 3, 8, 8), (4, 3, 3, 2), auto_pad="VALID"),
    "one dimension": _conv((2, 3, 11), (4, 3, 3), pads=[1, 1]),
    "three dimensions": _conv((2, 3, 5, 4, 6), (4, 3, 3, 1, 2), strides=[2, 1, 1]),
    "transposed": _conv((2, 4, 5, 5), (4, 6, 3, 3), "ConvTranspose", strides=[2, 2], pads=[1, 0, 1, 0]),
    "transposed, extended": _conv(
        (2, 4, 5, 5), (4, 6, 2, 3), "ConvTranspose", strides=[3, 2], output_padding=[1, 1], dilations=[1, 2]
    ),
    "transposed, cut": _conv((2, 4, 5, 5), (4, 6, 2, 2), "ConvTranspose", pads=[2, 2, 1, 1]),
    "transposed, grouped": _conv((2, 4, 5, 5), (4, 3, 3, 3), "ConvTranspose", strides=[2, 2], group=2),
    "gemm": _gemm(),
    "gemm, transposed and scaled": _gemm(transB=1, alpha=0.5, beta=2.0),
    "matmul": _matmul,
}


@pytest.mark.parametrize("case", CASES)
def test_rows_times_matrix_is_the_output(case: str) -> None:
    g = GraphBuilder(17)
    g.output(CASES[case](g))
    proto = g.model()
    model = load(proto)
    graph = Graph(model, infer_shapes(model))
    node = graph.nodes[0]
    layer = linear_layer(node)
    assert layer is not None
    x = np.random.default_rng(1).standard_normal(node.in_shape(0)).astype(np.float32)
    (y,) = run(proto, {"x": x})
    weight = model.weights[layer.weight].array
    matrix = layer.matrix(weight)
    chosen = np.random.default_rng(2).permutation(layer.count(y))[:10]
    features, outputs = layer.rows(x, y, np.sort(chosen))
    found = features @ matrix
    if layer.bias >= 0:
        scale = float(node.attr("beta", 1.0))
        found += scale * model.weights[node.inputs[layer.bias]].array.reshape(len(matrix), 1, -1)
    np.testing.assert_allclose(found, outputs, atol=2e-5)
    assert outputs.size == min(10, layer.count(y)) * y.shape[layer.out_dim]
    np.testing.assert_allclose(layer.weights(matrix, weight), weight, rtol=1e-6)
    # A channel's features are those that its values reach.
    channel = layer.in_dim and x.shape[layer.in_dim] - 1
    only = np.zeros_like(x)
    only[(slice(None),) * layer.in_dim + (channel,)] = 1
    reached, _ = layer.rows(only, y, np.arange(layer.count(y)))
    np.testing.assert_array_equal(reached.any(axis=1), layer.feature_channels(weight) == channel)


def test_other_nodes_are_no_matrix_products() -> None:
    g = GraphBuilder(17)
    x = g.input("x", (2, 3, 6, 6))
    h = g.op("Relu", x)
    h = g.op("Conv", h, g.op("Relu", g.input("w", (4, 3, 1, 1))))  # weights that are computed
    rows = g.op("Flatten", h)
    g.output(g.op("Gemm", rows, g.weight(2, 5), transA=1))
    model = load(g.model())
    graph = Graph(model, infer_shapes(model))
    assert [linear_layer(node) for node in graph.nodes] == [None] * 5
