"""Cases of operators that join, cut, choose, pad and scale: Concat, Split, Slice, Gather, Pad, Resize."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

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
    partly,
    read_last,
    read_map,
    scalar,
    sequence,
    tied,
    vectors,
)

_PIXELS = HEIGHT * WIDTH
_LAST = 2**31 - 1


def _concat(axis: int) -> Build:
    def build(g: GraphBuilder) -> None:
        a, b = feature_map(g), feature_map(g, 5)
        read_map(g, g.op("Concat", a, b, a, axis=axis), 2 * CHANNELS + 5)

    return build


def _concat_pixels(g: GraphBuilder) -> None:
    read_map(g, g.op("Concat", feature_map(g), feature_map(g), axis=2))


def _concat_with_input(g: GraphBuilder) -> None:
    x = feature_map(g)
    read_map(g, g.op("Concat", "x", x, axis=1), CHANNELS + 3)


def _concat_of_single_channels(g: GraphBuilder) -> None:
    x = feature_map(g)
    parts = g.split(x, 1, [1, 2, CHANNELS - 3])
    read_map(g, g.op("Concat", parts[2], parts[0], axis=1), CHANNELS - 2)


def _concat_with_constant(g: GraphBuilder) -> None:
    constant = g.vector(BATCH, 2, HEIGHT, WIDTH)
    read_map(g, g.op("Concat", feature_map(g), constant, axis=1), CHANNELS + 2)


def _split(*sizes: int) -> Build:
    def build(g: GraphBuilder) -> None:
        parts = g.split(feature_map(g), 1, sizes)
        for part, size in zip(parts, sizes, strict=True):
            read_map(g, part, size)

    return build


def _split_equally(g: GraphBuilder) -> None:
    x = feature_map(g)
    attributes: dict[str, Any] = {"num_outputs": 3} if g.opset >= 18 else {}
    for part in g.ops("Split", x, outputs=3, axis=1, **attributes):
        read_map(g, part, 2)


def _split_with_remainder(g: GraphBuilder) -> None:
    a, b = g.ops("Split", feature_map(g, 7), outputs=2, axis=1, num_outputs=2)
    read_map(g, a, 4)
    read_map(g, b, 3)


def _split_with_unread_part(g: GraphBuilder) -> None:
    a, _, b = g.split(feature_map(g), -3 if g.opset >= 11 else 1, [3, 1, 2])
    read_map(g, g.op("Concat", b, a, axis=1), 5)


def _split_rows(g: GraphBuilder) -> None:
    top, _ = g.split(feature_map(g), 2, [3, 4])
    read_map(g, top)


def _slice(start: int, end: int, step: int, channels: int) -> Build:
    def build(g: GraphBuilder) -> None:
        read_map(g, g.slice(feature_map(g), 1, start, end, step), channels)

    return build


def _slice_and_rest(g: GraphBuilder) -> None:
    x = feature_map(g)
    read_map(g, g.slice(x, 1, 1, -1), CHANNELS - 2)
    read_map(g, g.op("Relu", x))


def _slice_several_axes(g: GraphBuilder) -> None:
    x = feature_map(g)
    if g.opset < 10:
        y = g.op("Slice", x, starts=[0, 1, 1], ends=[2, 5, 6], axes=[0, 1, 2])
    else:
        y = g.op("Slice", x, g.ints(0, 1, 1), g.ints(2, 5, 6), g.ints(0, -3, 2))
    read_map(g, y, 4)


def _slice_without_axes(g: GraphBuilder) -> None:
    x = feature_map(g)
    if g.opset < 10:
        y = g.op("Slice", x, starts=[0, 1], ends=[_LAST, 4])
    else:
        y = g.op("Slice", x, g.ints(0, 1), g.ints(_LAST, 4))
    read_map(g, y, 3)


def _slice_at_run_time(g: GraphBuilder) -> None:
    x = feature_map(g)
    start = g.op("Cast", g.op("Floor", g.op("Sigmoid", g.reduce("ReduceMean", x, 0, 1, 2, 3, keepdims=0))), to=7)
    y = g.op("Slice", x, g.unsqueeze(start, 0), g.ints(2), g.ints(1))
    g.output(g.op("GlobalAveragePool", g.reduce("ReduceMax", y, 1)))


def _focus(g: GraphBuilder) -> None:
    x = g.slice(g.slice(feature_map(g), 2, 0, 6), 3, 0, 4)
    rows = [g.slice(x, 2, i, _LAST, 2) for i in (0, 1)]
    parts = [g.slice(row, 3, j, _LAST, 2) for j in (0, 1) for row in rows]
    read_map(g, g.op("Concat", *parts, axis=1), 4 * CHANNELS)


def _gather(*indices: int) -> Build:
    def build(g: GraphBuilder) -> None:
        read_map(g, g.op("Gather", feature_map(g), g.ints(*indices), axis=1), len(indices))

    return build


def _gather_one(g: GraphBuilder) -> None:
    x = feature_map(g)
    one = g.op("Gather", x, g.constant(2, dtype=np.int64), axis=1)
    read_map(g, g.op("Mul", x, g.unsqueeze(one, 1)))


def _gather_table(g: GraphBuilder) -> None:
    table = g.constant([[0, 2], [1, 3], [4, 5]], dtype=np.int64)
    y = g.op("Gather", vectors(g), table, axis=1)
    read_last(g, g.op("Flatten", y), 6)


def _gather_token(g: GraphBuilder) -> None:
    token = g.op("Gather", sequence(g), g.constant(0, dtype=np.int64), axis=1)
    g.output(g.op("Gemm", token, g.weight(4, CHANNELS), g.vector(4), transB=1))


def _gather_int32(g: GraphBuilder) -> None:
    indices = g.constant([3, 1, 4, 1], dtype=np.int32)
    read_map(g, g.op("Gather", feature_map(g), indices, axis=1), 4)


def _gather_at_run_time(g: GraphBuilder) -> None:
    index = g.input("index", [2], TensorProto.INT64)
    read_map(g, g.op("Gather", feature_map(g), index, axis=1), 2)


def _embedding(g: GraphBuilder) -> None:
    index = g.input("index", [BATCH, LENGTH], TensorProto.INT64)
    table = g.weight(7, CHANNELS, fan_in=1)
    y = g.op("Add", g.op("Gather", table, index, axis=0), sequence(g))
    read_last(g, y)


def _pad(*pads: int, mode: str = "constant", channels: int = CHANNELS) -> Build:
    def build(g: GraphBuilder) -> None:
        read_map(g, g.pad(feature_map(g), pads, value=0.5, mode=mode), channels)

    return build


def _pad_along_axes(g: GraphBuilder) -> None:
    y = g.op("Pad", feature_map(g), g.ints(1, 2, 0, 1), scalar(g, 0.0), g.ints(1, -1))
    read_map(g, y, CHANNELS + 1)


def _resize_by_scales(g: GraphBuilder) -> None:
    read_map(g, g.upsample(feature_map(g), [1, 1, 2, 2]))


def _resize_by_sizes(mode: str) -> Build:
    def build(g: GraphBuilder) -> None:
        sizes = g.ints(BATCH, CHANNELS, 9, 4)
        roi = "" if g.opset >= 13 else g.constant([], dtype=np.float32)
        empty = "" if g.opset >= 13 else g.constant([], dtype=np.float32)
        read_map(g, g.op("Resize", feature_map(g), roi, empty, sizes, mode=mode))

    return build


def _resize_like_another(g: GraphBuilder) -> None:
    """Sizes joined from the extents of two tensors, as TorchScript writes interpolate."""
    x = feature_map(g)
    small = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    head = g.slice(g.op("Shape", small), 0, 0, 2)
    tail = g.slice(g.op("Shape", x), 0, 2, 4)
    sizes = g.op("Concat", head, tail, axis=0)
    roi = "" if g.opset >= 13 else g.constant([], dtype=np.float32)
    empty = "" if g.opset >= 13 else g.constant([], dtype=np.float32)
    y = g.op("Resize", small, roi, empty, sizes, mode="nearest")
    read_map(g, g.op("Concat", x, y, axis=1), 2 * CHANNELS)


def _resize_some_axes(g: GraphBuilder) -> None:
    y = g.op("Resize", feature_map(g), "", "", g.ints(9, 4), mode="linear", axes=[2, 3])
    read_map(g, y)


def _resize_channels(g: GraphBuilder) -> None:
    scales = g.constant([1, 2, 1, 1], dtype=np.float32)
    roi = "" if g.opset >= 13 else g.constant([], dtype=np.float32)
    y = g.op("Resize", feature_map(g), roi, scales) if g.opset > 10 else g.op("Resize", feature_map(g), scales)
    read_map(g, y, 2 * CHANNELS)


def _upsample(g: GraphBuilder) -> None:
    read_map(g, g.upsample(feature_map(g), [1, 1, 2, 3]))


CASES: tuple[Case, ...] = (
    tied("Concat of three, one of them twice", "Concat", _concat(1)),
    tied("Concat with a negative axis", "Concat", _concat(-3), since=11),
    tied("Concat of pixels", "Concat", _concat_pixels),
    tied("Concat with a graph input", "Concat", _concat_with_input),
    partly("Concat of single channels", "Concat Split", "only", _concat_of_single_channels),
    tied("Concat with a constant", "Concat", _concat_with_constant),
    tied("Split into unequal parts", "Split", _split(4, 2)),
    tied("Split into three", "Split", _split(2, 2, 2)),
    tied("Split into equal parts that are not spelled out", "Split", _split_equally),
    tied("Split with a remainder", "Split", _split_with_remainder, since=18),
    partly("Split with a part that nobody reads", "Split", "only", _split_with_unread_part),
    tied("Split of rows", "Split", _split_rows),
    tied("Slice of the first channels", "Slice", _slice(0, 4, 1, 4)),
    tied("Slice from the middle", "Slice", _slice(2, 5, 1, 3)),
    tied("Slice from the end", "Slice", _slice(-4, _LAST, 1, 4)),
    tied("Slice up to one from the end", "Slice", _slice(1, -1, 1, 4)),
    tied("Slice with a step", "Slice", _slice(1, _LAST, 2, 3), since=10),
    tied("Slice backwards", "Slice", _slice(-1, -_LAST, -1, 6), since=10),
    tied("Slice backwards with a step", "Slice", _slice(4, 0, -2, 2), since=10),
    tied("Slice and the rest", "Slice", _slice_and_rest),
    tied("Slice of several axes", "Slice", _slice_several_axes),
    tied("Slice without axes", "Slice", _slice_without_axes),
    fixed("Slice at run time", "Slice", "not known", _slice_at_run_time, since=10),
    tied("Focus", "Slice", _focus, since=10),
    tied("Gather of a permutation", "Gather", _gather(3, 1, 0, 5, 4, 2)),
    tied("Gather of a choice", "Gather", _gather(4, 1)),
    tied("Gather with repetitions", "Gather", _gather(0, 3, 3, 5, 0)),
    tied("Gather of negative indices", "Gather", _gather(-1, 2, -5), since=11),
    partly("Gather of one channel", "Gather", "Gather", _gather_one),
    tied("Gather by a table", "Gather", _gather_table),
    tied("Gather of a token", "Gather", _gather_token),
    tied("Gather by indices of 32 bits", "Gather", _gather_int32),
    fixed("Gather at run time", "Gather", "run time", _gather_at_run_time),
    tied("Gather of embeddings", "Gather", _embedding),
    tied("Pad of pixels", "Pad", _pad(0, 0, 1, 2, 0, 0, 1, 0)),
    tied("Pad of pixels by reflection", "Pad", _pad(0, 0, 1, 2, 0, 0, 1, 0, mode="reflect")),
    tied("Pad of pixels by the edge", "Pad", _pad(0, 0, 1, 2, 0, 0, 1, 0, mode="edge")),
    tied("Pad of channels", "Pad", _pad(0, 2, 0, 0, 0, 1, 0, 0, channels=CHANNELS + 3)),
    tied("Pad of channels and pixels", "Pad", _pad(0, 0, 1, 0, 0, 2, 0, 1, channels=CHANNELS + 2)),
    tied("Pad that cuts pixels", "Pad", _pad(0, 0, -1, 0, 0, 0, 0, -2)),
    fixed("Pad of channels by reflection", "Pad", "Pad", _pad(0, 1, 0, 0, 0, 1, 0, 0, mode="reflect", channels=8)),
    tied("Pad along axes", "Pad", _pad_along_axes, since=18),
    tied("Resize by scales", "Resize", _resize_by_scales, since=10),
    tied("Resize by sizes", "Resize", _resize_by_sizes("nearest"), since=11),
    tied("Resize by sizes, linear", "Resize", _resize_by_sizes("linear"), since=11),
    tied("Resize like another", "Resize Shape", _resize_like_another, since=11),
    tied("Resize of some axes", "Resize", _resize_some_axes, since=18),
    fixed("Resize of channels", "Resize", "Resize", _resize_channels, since=10),
    tied("Upsample", "Upsample", _upsample, until=9),
)
