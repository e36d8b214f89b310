"""Cases of operators that move elements without computing: Reshape, Transpose, Expand, Tile, Shape …"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper

from tests.helpers import GraphBuilder
from tests.ops.case import (
    BATCH,
    CHANNELS,
    HEIGHT,
    WIDTH,
    Build,
    Case,
    as_float,
    feature_map,
    fixed,
    read_last,
    read_map,
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
        attributes: dict[str, Any] = {"perm": list(perm)} if perm else {}
        y = g.op("Transpose", feature_map(g), **attributes)
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
)
