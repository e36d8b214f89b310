"""Cases of operators that multiply and add: Conv, ConvTranspose, Gemm, MatMul."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.helpers import GraphBuilder
from tests.ops.case import (
    BATCH,
    CHANNELS,
    HEIGHT,
    LENGTH,
    WIDTH,
    Build,
    Case,
    feature_map,
    fixed,
    read_last,
    read_map,
    sequence,
    tied,
    vectors,
)


def _conv(group: int, filters: int, channels: int = CHANNELS, bias: bool = True) -> Build:
    def build(g: GraphBuilder) -> None:
        operands = [feature_map(g, channels), g.weight(filters, channels // group, 3, 3)]
        operands += [g.vector(filters)] if bias else []
        read_map(g, g.op("Conv", *operands, group=group, strides=[2, 2], dilations=[1, 1]), filters)

    return build


def _conv_of_rank(rank: int) -> Build:
    def build(g: GraphBuilder) -> None:
        spatial = [5, 4, 3][: rank - 2]
        g.input("x", [BATCH, 3, *spatial])
        x = g.op("Conv", "x", g.weight(CHANNELS, 3, *[1] * len(spatial)), g.vector(CHANNELS))
        y = g.op("Conv", x, g.weight(5, CHANNELS, *[2] * len(spatial)))
        y = g.op("Conv", y, g.weight(5, 1, *[1] * len(spatial)), group=5)
        g.output(g.op("Conv", y, g.weight(4, 5, *[1] * len(spatial))))

    return build


def _conv_transpose(group: int, per_group: int, channels: int = CHANNELS) -> Build:
    def build(g: GraphBuilder) -> None:
        filters = group * per_group
        weight = g.weight(channels, per_group, 3, 3, fan_in=channels // group)
        y = g.op("ConvTranspose", feature_map(g, channels), weight, g.vector(filters), group=group, strides=[2, 2])
        read_map(g, y, filters)

    return build


def _conv_transpose_1d(g: GraphBuilder) -> None:
    g.input("x", [BATCH, 3, WIDTH])
    x = g.op("Conv", "x", g.weight(CHANNELS, 3, 1))
    y = g.op("ConvTranspose", x, g.weight(CHANNELS, 5, 3, fan_in=CHANNELS), strides=[2], output_padding=[1])
    g.output(g.op("Conv", y, g.weight(4, 5, 1)))


def _computed_filters(g: GraphBuilder) -> None:
    # The filters are the graph's input: their axes stay, and so do the channels they read.
    kernel = g.input("kernel", [4, CHANNELS, 1, 1])
    g.output(g.op("Conv", feature_map(g), kernel))


def _tied_filters(g: GraphBuilder) -> None:
    weight = g.weight(CHANNELS, CHANNELS, 3, 3)
    x = feature_map(g)
    for _ in range(2):
        x = g.op("Relu", g.op("Conv", x, weight, pads=[1] * 4))
    read_map(g, x)


def _gemm(trans_a: int, trans_b: int, *bias: int, **scales: Any) -> Build:
    def build(g: GraphBuilder) -> None:
        x = vectors(g)
        if trans_a:
            x = g.op("Transpose", x, perm=[1, 0])
        weight = g.weight(5, CHANNELS) if trans_b else g.weight(CHANNELS, 5, fan_in=CHANNELS)
        y = g.op("Gemm", x, weight, g.vector(*bias), transA=trans_a, transB=trans_b, **scales)
        read_last(g, g.op("Relu", y), 5)

    return build


def _gemm_without_bias(g: GraphBuilder) -> None:
    read_last(g, g.op("Gemm", vectors(g), g.weight(CHANNELS, 5, fan_in=CHANNELS)), 5)


def _gemm_with_weight_first(g: GraphBuilder) -> None:
    x = g.op("Transpose", vectors(g), perm=[1, 0])
    y = g.op("Gemm", g.weight(5, CHANNELS), x, g.vector(5, 1))
    g.output(g.op("Gemm", g.weight(4, 5), y, g.vector(4, 1)))


def _gemm_of_activations(g: GraphBuilder) -> None:
    a, b = vectors(g), vectors(g)
    g.output(g.op("Gemm", a, b, g.vector(1, 1), transB=1))


def _matmul(rank: int) -> Build:
    def build(g: GraphBuilder) -> None:
        shape = [BATCH, 4, LENGTH, 5][-rank:]
        g.input("x", shape)
        x = g.op("MatMul", "x", g.weight(5, CHANNELS, fan_in=5))
        read_last(g, g.op("Tanh", x))

    return build


def _matmul_with_weight_first(g: GraphBuilder) -> None:
    g.input("x", [BATCH, 5, LENGTH])
    x = g.op("MatMul", g.weight(CHANNELS, 5), "x")
    g.output(g.op("MatMul", g.weight(4, CHANNELS), g.op("Relu", x)))


def _matmul_with_vector(g: GraphBuilder) -> None:
    g.output(g.op("MatMul", sequence(g), g.vector(CHANNELS)))


def _vector_with_matmul(g: GraphBuilder) -> None:
    transposed = g.op("Transpose", sequence(g), perm=[0, 2, 1])
    g.output(g.op("MatMul", g.vector(CHANNELS), transposed))


def _matmul_of_activations(g: GraphBuilder) -> None:
    q, k = sequence(g), g.op("Transpose", sequence(g), perm=[0, 2, 1])
    g.output(g.op("MatMul", q, k))


def _matmul_with_weight_per_sample(g: GraphBuilder) -> None:
    # Weights with leading dimensions are as many matrices; each row of the batch has its own.
    weight = g.constant(g.rng.standard_normal((BATCH, CHANNELS, 5)), dtype=np.float32)
    read_last(g, g.op("MatMul", sequence(g), weight), 5)


def _matmul_with_broadcast_weight(g: GraphBuilder) -> None:
    x = g.op("MatMul", sequence(g), g.constant(g.rng.standard_normal((1, CHANNELS, 5)), dtype=np.float32))
    read_last(g, x, 5)


def _channels_over_rows(g: GraphBuilder) -> None:
    # Mixing over height: the channels, a batch dimension of the product, go through.
    read_map(g, g.op("MatMul", g.weight(HEIGHT, HEIGHT), feature_map(g)))


def _attention(g: GraphBuilder) -> None:
    q, k, v = sequence(g), sequence(g), sequence(g)
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1]))
    read_last(g, g.op("MatMul", g.op("Softmax", scores, axis=2), v))


CASES: tuple[Case, ...] = (
    tied("dense Conv", "Conv", _conv(1, 5)),
    tied("dense Conv without bias", "Conv", _conv(1, 5, bias=False)),
    tied("depthwise Conv", "Conv", _conv(6, 6)),
    tied("depthwise Conv with two filters per channel", "Conv", _conv(6, 12)),
    tied("grouped Conv", "Conv", _conv(2, 8)),
    tied("grouped Conv of three groups", "Conv", _conv(3, 9)),
    tied("grouped Conv with fewer filters than channels", "Conv", _conv(2, 4, channels=8)),
    tied("grouped Conv with one filter per group", "Conv", _conv(2, 2, channels=8)),
    tied("grouped Conv without bias", "Conv", _conv(2, 6, bias=False)),
    *(tied(f"Conv of rank {rank}", "Conv", _conv_of_rank(rank)) for rank in (3, 4, 5)),
    tied("one filter bank used twice", "Conv", _tied_filters),
    fixed("filters that are a graph input", "Conv", "graph input", _computed_filters),
    tied("dense ConvTranspose", "ConvTranspose", _conv_transpose(1, 5)),
    tied("depthwise ConvTranspose", "ConvTranspose", _conv_transpose(6, 1)),
    tied("depthwise ConvTranspose with two filters per channel", "ConvTranspose", _conv_transpose(6, 2)),
    tied("grouped ConvTranspose", "ConvTranspose", _conv_transpose(2, 4)),
    tied("grouped ConvTranspose with one filter per group", "ConvTranspose", _conv_transpose(2, 1)),
    tied("ConvTranspose of rank 3", "ConvTranspose", _conv_transpose_1d),
    *(tied(f"Gemm transA={a} transB={b}", "Gemm", _gemm(a, b, 5)) for a in (0, 1) for b in (0, 1)),
    tied("Gemm with alpha and beta", "Gemm", _gemm(0, 1, 5, alpha=0.5, beta=1.5)),
    tied("Gemm with a bias of rank two", "Gemm", _gemm(0, 0, 1, 5)),
    tied("Gemm with one bias for all", "Gemm", _gemm(0, 0, 1)),
    tied("Gemm with a bias per sample", "Gemm", _gemm(0, 0, BATCH, 1)),
    tied("Gemm without bias", "Gemm", _gemm_without_bias, since=11),
    tied("Gemm with the weight first", "Gemm", _gemm_with_weight_first),
    tied("Gemm of two activations", "Gemm", _gemm_of_activations),
    *(tied(f"MatMul of rank {rank}", "MatMul", _matmul(rank)) for rank in (1, 2, 3, 4)),
    tied("MatMul with the weight first", "MatMul", _matmul_with_weight_first),
    tied("MatMul with a vector", "MatMul", _matmul_with_vector),
    tied("MatMul of a vector", "MatMul", _vector_with_matmul),
    tied("MatMul of two activations", "MatMul", _matmul_of_activations),
    tied("MatMul with a matrix per sample", "MatMul", _matmul_with_weight_per_sample),
    tied("MatMul with a matrix of rank three", "MatMul", _matmul_with_broadcast_weight),
    tied("MatMul over rows of a map", "MatMul", _channels_over_rows),
    tied("attention", "MatMul", _attention),
)
