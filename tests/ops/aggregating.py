"""Cases of operators that look at several positions: pooling, reductions, normalisations, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.helpers import GraphBuilder
from tests.ops.case import (
    CHANNELS,
    HEIGHT,
    LENGTH,
    WIDTH,
    Build,
    Case,
    approximate,
    as_float,
    feature_map,
    fixed,
    positive,
    read_last,
    read_map,
    scalar,
    sequence,
    tied,
)

_ADDITIVE = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSum", "ReduceSumSquare")
_OTHER = ("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")


def _pool(op_type: str, **attributes: Any) -> Build:
    def build(g: GraphBuilder) -> None:
        read_map(g, g.op(op_type, positive(g, feature_map(g)), **attributes))

    return build


def _pool_with_indices(g: GraphBuilder) -> None:
    y, at = g.ops("MaxPool", feature_map(g), outputs=2, kernel_shape=[2, 2])
    read_map(g, g.op("Add", y, as_float(g, at)))


def _reduce(op_type: str, axes: Sequence[int], keepdims: int) -> Build:
    def build(g: GraphBuilder) -> None:
        x = positive(g, feature_map(g))
        y = g.reduce(op_type, x, *axes, keepdims=keepdims)
        if keepdims:
            y = g.op("Mul", y, x)
        elif set(axes) == {1}:
            y = g.op("Mul", g.unsqueeze(y, 1), x)
        else:
            g.output(g.op("Gemm", y, g.weight(4, CHANNELS), g.vector(4), transB=1))
            return
        read_map(g, y)

    return build


def _reduce_everything(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        x = feature_map(g)
        read_map(g, g.op("Mul", g.op(op_type, g.op("Sigmoid", x), keepdims=0), x))

    return build


def _reduce_nothing(op_type: str) -> Build:
    def build(g: GraphBuilder) -> None:
        x = positive(g, feature_map(g))
        y = g.op(op_type, x, g.ints(), noop_with_empty_axes=1)
        read_map(g, y)

    return build


def _compared(op_type: str, axis: int, since: int = 7) -> Build:
    def build(g: GraphBuilder) -> None:
        x = sequence(g)
        read_last(g, g.op(op_type, x, axis=axis))

    return build


def _softmax_of_pixels(g: GraphBuilder) -> None:
    read_map(g, g.op("Softmax", feature_map(g), axis=3))


def _arg(op_type: str, axis: int, keepdims: int) -> Build:
    def build(g: GraphBuilder) -> None:
        x = feature_map(g)
        at = as_float(g, g.op(op_type, x, axis=axis, keepdims=keepdims))
        if axis == 1:
            at = at if keepdims else g.unsqueeze(at, 1)
        elif not keepdims:
            at = g.unsqueeze(at, axis)
        read_map(g, g.op("Add", x, at))

    return build


def _topk(axis: int) -> Build:
    def build(g: GraphBuilder) -> None:
        x = feature_map(g)
        if g.opset < 10:
            values, at = g.ops("TopK", x, outputs=2, k=3, axis=axis)
        else:
            values, at = g.ops("TopK", x, g.ints(3), outputs=2, axis=axis)
        read_map(g, g.op("Add", values, as_float(g, at)), 3 if axis == 1 else CHANNELS)

    return build


def _cumsum(axis: int) -> Build:
    def build(g: GraphBuilder) -> None:
        read_map(g, g.op("CumSum", feature_map(g), g.constant(axis, dtype=np.int32)))

    return build


def _batch_norm(g: GraphBuilder) -> None:
    x = feature_map(g)
    vectors = [g.vector(CHANNELS, positive=True), g.vector(CHANNELS), g.vector(CHANNELS)]
    read_map(g, g.op("BatchNormalization", x, *vectors, g.vector(CHANNELS, positive=True), epsilon=1e-3))


def _instance_norm(g: GraphBuilder) -> None:
    scale, bias = g.vector(CHANNELS, positive=True), g.vector(CHANNELS)
    read_map(g, g.op("InstanceNormalization", feature_map(g), scale, bias))


def _layer_norm(bias: bool) -> Build:
    def build(g: GraphBuilder) -> None:
        operands = [g.vector(CHANNELS, positive=True)] + ([g.vector(CHANNELS)] if bias else [])
        read_last(g, g.op("LayerNormalization", sequence(g), *operands, epsilon=1e-2))

    return build


def _layer_norm_of_tokens(g: GraphBuilder) -> None:
    scale, bias = g.vector(LENGTH, CHANNELS, positive=True), g.vector(LENGTH, CHANNELS)
    read_last(g, g.op("LayerNormalization", sequence(g), scale, bias, axis=1))


def _layer_norm_of_pixels(g: GraphBuilder) -> None:
    scale = g.vector(HEIGHT, WIDTH, positive=True)
    read_map(g, g.op("LayerNormalization", feature_map(g), scale, axis=2))


def _layer_norm_with_statistics(g: GraphBuilder) -> None:
    scale, bias = g.vector(CHANNELS, positive=True), g.vector(CHANNELS)
    y, mean, deviation = g.ops("LayerNormalization", sequence(g), scale, bias, outputs=3)
    read_last(g, g.op("Mul", g.op("Add", y, mean), deviation))


def _rms_norm(g: GraphBuilder) -> None:
    read_last(g, g.op("RMSNormalization", sequence(g), g.vector(CHANNELS, positive=True)))


def _spelled_out_layer_norm(g: GraphBuilder) -> None:
    x = sequence(g)
    centred = g.op("Sub", x, g.reduce("ReduceMean", x, 2))
    variance = g.reduce("ReduceMean", g.op("Mul", centred, centred), 2)
    normal = g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, scalar(g, 1e-3))))
    read_last(g, g.op("Mul", normal, g.vector(CHANNELS)))


def _lrn(g: GraphBuilder) -> None:
    read_map(g, g.op("LRN", feature_map(g), size=3, alpha=0.5, beta=0.75, bias=1.0))


def _lp_norm(axis: int, p: int) -> Build:
    def build(g: GraphBuilder) -> None:
        read_map(g, g.op("LpNormalization", positive(g, feature_map(g)), axis=axis, p=p))

    return build


def _mean_variance(*axes: int) -> Build:
    def build(g: GraphBuilder) -> None:
        attributes: dict[str, Any] = {"axes": list(axes)} if axes else {}
        read_map(g, g.op("MeanVarianceNormalization", feature_map(g), **attributes))

    return build


CASES: tuple[Case, ...] = (
    tied("AveragePool", "AveragePool", _pool("AveragePool", kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1])),
    tied("LpPool", "LpPool", _pool("LpPool", kernel_shape=[2, 2], p=3)),
    tied("MaxPool", "MaxPool", _pool("MaxPool", kernel_shape=[3, 3], strides=[2, 2])),
    tied(
        "MaxPool rounding up", "MaxPool", _pool("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1), since=10
    ),
    fixed("MaxPool whose indices are read", "MaxPool", "second output", _pool_with_indices, since=8),
    *(tied(op, op, _pool(op)) for op in ("GlobalAveragePool", "GlobalMaxPool")),
    # onnxruntime has no GlobalLpPool of opset 22.
    tied("GlobalLpPool", "GlobalLpPool", _pool("GlobalLpPool"), until=21),
    *(tied(f"{op} of pixels", op, _reduce(op, (2, 3), 1)) for op in (*_ADDITIVE, *_OTHER)),
    *(tied(f"{op} of pixels, dropped", op, _reduce(op, (2, 3), 0)) for op in ("ReduceMean", "ReduceMax", "ReduceSum")),
    tied("ReduceMean of negative axes", "ReduceMean", _reduce("ReduceMean", (-1, -2), 1), since=11),
    *(tied(f"{op} of channels", op, _reduce(op, (1,), 1)) for op in _ADDITIVE),
    tied("ReduceSum of channels, dropped", "ReduceSum", _reduce("ReduceSum", (1,), 0)),
    tied("ReduceSum of channels and pixels", "ReduceSum", _reduce("ReduceSum", (1, 2, 3), 1)),
    *(approximate(f"{op} of channels", op, _reduce(op, (1,), 1)) for op in _OTHER),
    approximate("ReduceMax of channels, dropped", "ReduceMax", _reduce("ReduceMax", (1,), 0)),
    approximate("ReduceMean of everything", "ReduceMean", _reduce_everything("ReduceMean")),
    tied("ReduceSum of everything", "ReduceSum", _reduce_everything("ReduceSum")),
    tied("ReduceSum of nothing", "ReduceSum", _reduce_nothing("ReduceSum"), since=13),
    tied("ReduceMean of nothing", "ReduceMean", _reduce_nothing("ReduceMean"), since=18),
    *(fixed(f"{op} of channels", op, op, _compared(op, 2)) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(tied(f"{op} of tokens", op, _compared(op, 1), since=13) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(fixed(f"{op} of tokens and channels", op, op, _compared(op, 1), until=12) for op in ("Softmax", "Hardmax")),
    tied("Softmax of pixels", "Softmax", _softmax_of_pixels),
    *(tied(f"{op} of rows", op, _arg(op, 2, 1)) for op in ("ArgMax", "ArgMin")),
    *(tied(f"{op} of rows, dropped", op, _arg(op, 2, 0)) for op in ("ArgMax", "ArgMin")),
    *(fixed(f"{op} of channels", op, op, _arg(op, 1, 1)) for op in ("ArgMax", "ArgMin")),
    fixed("TopK of channels", "TopK", "TopK", _topk(1)),
    tied("TopK of columns", "TopK", _topk(3)),
    tied("CumSum of rows", "CumSum", _cumsum(2)),
    fixed("CumSum of channels", "CumSum", "CumSum", _cumsum(1)),
    tied("BatchNormalization", "BatchNormalization", _batch_norm),
    tied("InstanceNormalization", "InstanceNormalization", _instance_norm),
    approximate("LayerNormalization", "LayerNormalization", _layer_norm(True)),
    approximate("LayerNormalization without bias", "LayerNormalization", _layer_norm(False)),
    approximate("LayerNormalization over tokens, too", "LayerNormalization", _layer_norm_of_tokens),
    approximate("LayerNormalization whose statistics are read", "LayerNormalization", _layer_norm_with_statistics),
    tied("LayerNormalization of pixels", "LayerNormalization", _layer_norm_of_pixels),
    approximate("LayerNormalization spelled out", "ReduceMean", _spelled_out_layer_norm),
    approximate("RMSNormalization", "RMSNormalization", _rms_norm),
    approximate("LRN", "LRN", _lrn),
    *(tied(f"LpNormalization of channels, p={p}", "LpNormalization", _lp_norm(1, p)) for p in (1, 2)),
    tied("LpNormalization of pixels", "LpNormalization", _lp_norm(3, 2)),
    tied("MeanVarianceNormalization of pixels", "MeanVarianceNormalization", _mean_variance()),
    approximate("MeanVarianceNormalization of channels", "MeanVarianceNormalization", _mean_variance(1, 2, 3)),
)
