"""Cases of operators that move elements without computing: Reshape, Transpose, Concat, Slice, Gather, Pad, Resize …"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.helpers import GraphBuilder
from tests.ops.case import (
    BATCH,
    CHANNELS,
    HEIGHT,
    LENGTH,
    WIDTH,
    Build,
    Case,
    as_float,
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


def _reshape(*target: int, channels: int = CHANNELS) -> Build:
    def build(g: GraphBuilder) -> None:
        read_last(g, g.op("Reshape", feature_map(g, channels), g.ints(*target)), channels * _PIXELS)

    return build


def _shuffle(groups: int) -> Build:
    def build(g: GraphBuilder) -> None:
        cut = g.op("Reshape", feature_map(g), g.ints(BATCH, groups, CHANNELS // groups, HEIGHT, WIDTH))
        swapped = g.op("Transpose", cut, perm=[0, 2, 1, 3, 4])
        read_map(g, g.op("Reshape", swapped, g.ints(BATCH, -1, HEIGHT, WIDTH)))

    return build


def _heads(g: GraphBuilder) -> None:
    cut = g.op("Reshape", sequence(g), g.ints(0, 0, 2, CHANNELS // 2))
    joined = g.op("Reshape", g.op("Relu", cut), g.ints(0, 0, -1))
    read_last(g, joined)


def _allow_zero(g: GraphBuilder) -> None:
    y = g.op("Reshape", feature_map(g), g.ints(BATCH, CHANNELS * _PIXELS), allowzero=1)
    read_last(g, y, CHANNELS * _PIXELS)


def _dynamic_reshape(g: GraphBuilder) -> None:
    """Flatten as TorchScript writes it: the target is built from the batch extent."""
    x = feature_map(g)
    batch = g.op("Gather", g.op("Shape", x), g.constant(0, dtype=np.int64), axis=0)
    y = g.op("Reshape", x, g.op("Concat", g.unsqueeze(batch, 0), g.ints(-1), axis=0))
    read_last(g, y, CHANNELS * _PIXELS)


def _reshape_by_whole_shape(g: GraphBuilder) -> None:
    """Every extent of the target is read from the tensor itself, the channels included."""
    x = feature_map(g)
    shape = g.op("Shape", x)
    parts = [g.unsqueeze(g.op("Gather", shape, g.constant(i, dtype=np.int64), axis=0), 0) for i in range(2)]
    flat = g.op("Reshape", x, g.op("Concat", *parts, g.ints(-1), axis=0))
    read_map(g, g.op("Reshape", g.op("Relu", flat), shape))


def _flatten(axis: int) -> Build:
    def build(g: GraphBuilder) -> None:
        y = g.op("Flatten", feature_map(g), axis=axis)
        flat = int(np.prod((BATCH, CHANNELS, HEIGHT, WIDTH)[axis:]))
        read_last(g, y, flat)

    return build


def _flatten_channels_last(g: GraphBuilder) -> None:
    y = g.op("Flatten", g.op("Transpose", feature_map(g), perm=[0, 2, 3, 1]))
    read_last(g, y, CHANNELS * _PIXELS)


def _squeeze(g: GraphBuilder) -> None:
    read_last(g, g.squeeze(g.op("GlobalAveragePool", feature_map(g)), 2, 3))


def _squeeze_everything(g: GraphBuilder) -> None:
    read_last(g, g.op("Squeeze", g.op("GlobalAveragePool", feature_map(g))))


def _squeeze_negative(g: GraphBuilder) -> None:
    read_last(g, g.squeeze(g.op("GlobalAveragePool", feature_map(g)), -1, -2))


def _unsqueeze(g: GraphBuilder) -> None:
    read_map(g, g.unsqueeze(vectors(g), 2, 3))


def _unsqueeze_in_front(g: GraphBuilder) -> None:
    read_last(g, g.unsqueeze(vectors(g), 0, 2))


def _transpose(*perm: int) -> Build:
    def build(g: GraphBuilder) -> None:
        y = g.op("Transpose", feature_map(g), **({"perm": list(perm)} if perm else {}))
        order = perm or (3, 2, 1, 0)
        back = [order.index(dim) for dim in range(4)]
        read_map(g, g.op("Transpose", g.op("Relu", y), perm=back))

    return build


def _expand_pixel(g: GraphBuilder) -> None:
    pooled = g.op("GlobalAveragePool", feature_map(g))
    read_map(g, g.op("Expand", pooled, g.ints(BATCH, CHANNELS, 3, 2)))


def _expand_with_short_target(g: GraphBuilder) -> None:
    pooled = g.op("GlobalAveragePool", feature_map(g))
    read_map(g, g.op("Expand", pooled, g.ints(1, 3, 2)))


def _expand_single_channel(g: GraphBuilder) -> None:
    x = feature_map(g)
    wide = g.op("Expand", feature_map(g, 1), g.ints(1, CHANNELS, 1, 1))
    read_map(g, g.op("Add", x, wide))


def _expand_to_shape(g: GraphBuilder) -> None:
    x = feature_map(g)
    wide = g.op("Expand", g.op("GlobalAveragePool", x), g.op("Shape", x))
    read_map(g, g.op("Concat", wide, x, axis=1), 2 * CHANNELS)


def _tile_channels(g: GraphBuilder) -> None:
    read_map(g, g.op("Tile", feature_map(g), g.ints(1, 2, 1, 1)), 2 * CHANNELS)


def _tile_pixels(g: GraphBuilder) -> None:
    read_map(g, g.op("Tile", g.op("GlobalMaxPool", feature_map(g)), g.ints(1, 1, 3, 2)))


def _tile_single_channel(g: GraphBuilder) -> None:
    x = feature_map(g)
    wide = g.op("Tile", feature_map(g, 1), g.ints(1, CHANNELS, 1, 1))
    read_map(g, g.op("Mul", x, wide))


def _depth_to_space(mode: str | None) -> Build:
    def build(g: GraphBuilder) -> None:
        attributes = {"mode": mode} if mode else {}
        read_map(g, g.op("DepthToSpace", feature_map(g, 12), blocksize=2, **attributes), 3)

    return build


def _space_to_depth(g: GraphBuilder) -> None:
    even = g.slice(g.slice(feature_map(g), 2, 0, 6), 3, 0, 4)
    read_map(g, g.op("SpaceToDepth", even, blocksize=2), 4 * CHANNELS)


def _shape_in_sums(g: GraphBuilder) -> None:
    """The extents are numbers in a computation: they have to stay what they were."""
    x = feature_map(g)
    read_map(g, g.op("Mul", x, g.op("Gather", as_float(g, g.op("Shape", x)), g.constant(1, dtype=np.int64))))


def _shape_from_to(g: GraphBuilder) -> None:
    x = feature_map(g)
    channels = as_float(g, g.op("Shape", x, start=1, end=-1))
    read_map(g, g.op("Mul", x, g.op("Gather", channels, g.constant(0, dtype=np.int64))))


def _reverse_sequence(g: GraphBuilder) -> None:
    lengths = g.ints(*[2] * BATCH)
    read_last(g, g.op("ReverseSequence", sequence(g), lengths, batch_axis=0, time_axis=1))


def _reversed_channels(g: GraphBuilder) -> None:
    channels_first = g.op("Transpose", sequence(g), perm=[2, 0, 1])
    y = g.op("ReverseSequence", channels_first, g.ints(*[CHANNELS] * BATCH), batch_axis=1, time_axis=0)
    read_last(g, g.op("Transpose", y, perm=[1, 2, 0]))


def _constant_of_shape(g: GraphBuilder) -> None:
    x = feature_map(g)
    value = numpy_helper.from_array(np.array([0.5], dtype=np.float32))
    filled = g.op("ConstantOfShape", g.op("Shape", x), value=value)
    read_map(g, g.op("Sub", x, filled))


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
    attributes = {"num_outputs": 3} if g.opset >= 18 else {}
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
    tied("Reshape to rows", "Reshape", _reshape(BATCH, CHANNELS * _PIXELS)),
    tied("Reshape with -1", "Reshape", _reshape(BATCH, -1)),
    tied("Reshape with 0 and -1", "Reshape", _reshape(0, -1)),
    tied("Reshape with -1 in front", "Reshape", _reshape(-1, CHANNELS * _PIXELS)),
    tied("Reshape that allows zero", "Reshape", _allow_zero, since=14),
    tied("Reshape by a computed target", "Reshape Gather", _dynamic_reshape),
    tied("Reshape by the operand's own extents", "Reshape Shape", _reshape_by_whole_shape),
    *(tied(f"shuffle of {n} groups", "Reshape Transpose", _shuffle(n)) for n in (2, 3)),
    tied("heads split and joined", "Reshape", _heads),
    *(tied(f"Flatten from {axis}", "Flatten", _flatten(axis)) for axis in (1, 0)),
    fixed("Flatten that merges channels with the batch", "Flatten", "graph output", _flatten(2)),
    tied("Flatten from -3", "Flatten", _flatten(-3), since=11),
    tied("Flatten of channels last", "Flatten Transpose", _flatten_channels_last),
    tied("Squeeze", "Squeeze", _squeeze),
    tied("Squeeze of everything", "Squeeze", _squeeze_everything),
    tied("Squeeze of negative axes", "Squeeze", _squeeze_negative, since=11),
    tied("Unsqueeze", "Unsqueeze", _unsqueeze),
    tied("Unsqueeze in front", "Unsqueeze", _unsqueeze_in_front),
    tied("Transpose to channels last", "Transpose", _transpose(0, 2, 3, 1)),
    tied("Transpose to channels first of all", "Transpose", _transpose(1, 0, 3, 2)),
    tied("Transpose without perm", "Transpose", _transpose()),
    tied("Expand of a pixel", "Expand", _expand_pixel, since=8),
    tied("Expand with a short target", "Expand", _expand_with_short_target, since=8),
    tied("Expand of a single channel", "Expand", _expand_single_channel, since=8),
    tied("Expand to the extents of another", "Expand Shape", _expand_to_shape, since=8),
    tied("Tile of channels", "Tile", _tile_channels),
    tied("Tile of a pixel", "Tile", _tile_pixels),
    tied("Tile of a single channel", "Tile", _tile_single_channel),
    tied("DepthToSpace", "DepthToSpace", _depth_to_space(None)),
    *(tied(f"DepthToSpace {mode}", "DepthToSpace", _depth_to_space(mode), since=11) for mode in ("DCR", "CRD")),
    tied("SpaceToDepth", "SpaceToDepth", _space_to_depth),
    tied("Shape whose numbers are multiplied", "Shape", _shape_in_sums),
    tied("Shape from one dimension to another", "Shape", _shape_from_to, since=15),
    tied("ReverseSequence of tokens", "ReverseSequence", _reverse_sequence),
    fixed("ReverseSequence of channels", "ReverseSequence", "ReverseSequence", _reversed_channels),
    tied("ConstantOfShape", "ConstantOfShape", _constant_of_shape),
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
