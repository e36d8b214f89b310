"""Blocks that move the elements of feature maps: Concat, Split, Slice, Gather, Reshape, Transpose, Pad."""

from __future__ import annotations

import numpy as np

from tests.random_graphs.maps import conv_of, map_of_multiple
from tests.random_graphs.state import Block, State, divisors, reshape_to


def concat(s: State) -> None:
    """Two or three maps one behind the other, perhaps the same one twice."""
    first = s.take(4, lambda t: t.shape[1] <= 12)
    if first is None:
        return
    parts = [first]
    for _ in range(s.choose.integer(1, 2)):
        other = s.take(4, lambda t: t.shape[2:] == first.shape[2:] and t.shape[1] <= 12)
        assert other is not None
        parts.append(other)
    axis = s.choose.pick([1, 1, -3])
    y = s.g.op("Concat", *(p.name for p in parts), axis=axis if s.g.opset >= 11 else 1)
    s.add(y, first.shape[0], sum(p.shape[1] for p in parts), *first.shape[2:])


def spatial_concat(s: State) -> None:
    """Two maps of equal channels and width, one below the other."""
    first = s.take(4, lambda t: t.shape[2] <= 4)
    if first is None:
        return
    n, c, h, w = first.shape
    other = s.take(4, lambda t: t.shape[1] == c and t.shape[3] == w and t.shape[2] <= 4)
    assert other is not None
    s.add(s.g.op("Concat", first.name, other.name, axis=2), n, c, h + other.shape[2], w)


def split(s: State) -> None:
    """Two or three parts along the channels, equal or not."""
    x = s.take(4, lambda t: t.shape[1] >= 3)
    if x is None:
        return
    n, c, h, w = x.shape
    if c % 2 == 0 and s.flag():
        sizes = [c // 2, c // 2]
    else:
        first = s.choose.integer(1, c - 2)
        sizes = [first, c - first] if s.flag() else [first, 1, c - first - 1]
    for part, size in zip(s.g.split(x.name, 1, sizes), sizes, strict=True):
        s.add(part, n, size, h, w)


def slice_channels(s: State) -> None:
    """A range of channels, perhaps with a step, perhaps backwards."""
    x = s.take(4, lambda t: t.shape[1] >= 2)
    if x is None:
        return
    n, c, h, w = x.shape
    step = s.choose.pick([1, 1, 2, -1, -2]) if s.g.opset >= 10 else 1
    start = s.choose.integer(0, c - 1)
    end = s.choose.integer(start + 1, c)
    if step < 0:
        low, high = end - 1, start - 1
        bounds = (low, high if high >= 0 else -(2**31) - 1)
        size = len(range(low, high, step))
    else:
        bounds = (start, s.choose.pick([end, end - c if end < c else 2**31 - 1]))
        size = len(range(start, end, step))
    s.add(s.g.slice(x.name, 1, *bounds, step), n, size, h, w)


def gather_channels(s: State) -> None:
    """Channels picked by index: a permutation, or a choice with repetitions, or one channel."""
    x = s.take(4, lambda t: t.shape[1] >= 2)
    if x is None:
        return
    n, c, h, w = x.shape
    kind = s.choose.pick(["permute", "choose", "single"])
    if kind == "single":
        index = s.g.constant(s.choose.integer(0, c - 1), dtype=np.int64)
        s.add(s.g.unsqueeze(s.g.op("Gather", x.name, index, axis=1), 1), n, 1, h, w)
        return
    if kind == "permute":
        chosen = [int(i) for i in s.g.rng.permutation(c)]
    else:
        lowest = -c if s.g.opset >= 11 else 0
        chosen = [s.choose.integer(lowest, c - 1) for _ in range(s.choose.integer(1, 5))]
    s.add(s.g.op("Gather", x.name, s.g.ints(*chosen), axis=1), n, len(chosen), h, w)


def shuffle(s: State) -> None:
    """Channel shuffle as ShuffleNet does it."""
    x = map_of_multiple(s, s.choose.pick([4, 6]))
    if x is None:
        return
    _, c, h, w = x.shape
    groups = s.choose.pick(divisors(c)[:-1])
    cut = reshape_to(s, x.name, [None, groups, c // groups, h, w], x.name)
    swapped = s.g.op("Transpose", cut, perm=[0, 2, 1, 3, 4])
    s.add(reshape_to(s, swapped, [None, c, h, w] if s.flag() else [None, -1, h, w], x.name), *x.shape)


def depth_to_space(s: State) -> None:
    """Four channels become four pixels: the operator in both modes, or Reshape and Transpose."""
    x = map_of_multiple(s, 4)
    if x is None:
        return
    n, c, h, w = x.shape
    kind = s.choose.pick(["DCR", "CRD", "reshape"])
    if kind == "reshape":
        cut = reshape_to(s, x.name, [None, c // 4, 2, 2, h, w], x.name)
        swapped = s.g.op("Transpose", cut, perm=[0, 1, 4, 2, 5, 3])
        y = reshape_to(s, swapped, [None, c // 4, 2 * h, 2 * w], x.name)
    elif s.g.opset >= 11:
        y = s.g.op("DepthToSpace", x.name, blocksize=2, mode=kind)
    else:
        y = s.g.op("DepthToSpace", x.name, blocksize=2)
    s.add(y, n, c // 4, 2 * h, 2 * w)


def space_to_depth(s: State) -> None:
    """Pixels become channels: the operator, or four strided slices (YOLO's Focus)."""
    x = s.take(4, lambda t: t.shape[2] % 2 == 0 and t.shape[3] % 2 == 0 and t.shape[1] <= 6)
    if x is None:
        return
    n, c, h, w = x.shape
    if s.flag() or s.g.opset < 10:
        y = s.g.op("SpaceToDepth", x.name, blocksize=2)
    else:
        rows = [s.g.slice(x.name, 2, i, 2**31 - 1, 2) for i in (0, 1)]
        y = s.g.op("Concat", *(s.g.slice(r, 3, j, 2**31 - 1, 2) for j in (0, 1) for r in rows), axis=1)
    s.add(y, n, 4 * c, h // 2, w // 2)


def pad(s: State) -> None:
    """Channels of a constant, or a border of zeros, or mirrored pixels."""
    x = s.take(4, lambda t: t.shape[1] <= 8 and min(t.shape[2:]) >= 3 and max(t.shape[2:]) <= 6)
    if x is None:
        return
    n, c, h, w = x.shape
    kind = s.choose.pick(["channels", "border", "mirror"])
    if kind == "channels":
        low, high = s.choose.integer(0, 2), s.choose.integer(0, 2)
        y = s.g.pad(x.name, [0, low, 0, 0, 0, high, 0, 0], value=s.choose.pick([0.0, 0.5]))
        if s.flag():
            # A shortcut of PyramidNet: what is added has channels of its own where the padding stands.
            y = s.g.op("Add", y, conv_of(s, x, c + low + high).name)
        s.add(y, n, c + low + high, h, w)
    else:
        y = s.g.pad(x.name, [0, 0, 1, 1, 0, 0, 1, 1], mode="constant" if kind == "border" else "reflect")
        s.add(y, n, c, h + 2, w + 2)


def nhwc(s: State) -> None:
    """To channels last and back, with what Keras puts between: a bias, PRelu, a dense layer, a Concat."""
    x = s.take(4)
    if x is None:
        return
    n, c, h, w = x.shape
    y = s.g.op("Transpose", x.name, perm=[0, 2, 3, 1])
    for kind in [s.choose.pick(["bias", "prelu", "dense", "double", "split"]) for _ in range(s.choose.integer(0, 2))]:
        if kind == "bias":
            y = s.g.op("Add", y, s.g.vector(c))
        elif kind == "prelu":
            y = s.g.op("PRelu", y, s.g.vector(1, 1, c))
        elif kind == "dense":
            wide = s.choose.integer(2, 6)
            y, c = s.g.op("MatMul", y, s.g.weight(c, wide, fan_in=c)), wide
        elif kind == "double":
            y, c = s.g.op("Concat", y, s.g.op("Relu", y), axis=3), 2 * c
        elif c > 1:
            y, c = s.g.split(y, 3, [c // 2, c - c // 2])[1], c - c // 2
    if s.flag() and c * h * w <= 400:
        s.add(s.g.op("Flatten", y), n, c * h * w)
    else:
        s.add(s.g.op("Transpose", y, perm=[0, 3, 1, 2]), n, c, h, w)


def resize(s: State) -> None:
    """Nearest upsampling by two."""
    x = s.take(4, lambda t: max(t.shape[2:]) <= 4)
    if x is not None:
        n, c, h, w = x.shape
        s.add(s.g.upsample(x.name, [1, 1, 2, 2]), n, c, 2 * h, 2 * w)


def repeat(s: State) -> None:
    """Tile over channels, Expand of one pixel over a map, or of one channel over all."""
    x = s.take(4, lambda t: t.shape[1] <= 4)
    if x is None:
        return
    n, c, h, w = x.shape
    kind = s.choose.pick(["tile", "pixel", "single"]) if s.g.opset >= 8 else "tile"
    if kind == "pixel":
        pooled = s.g.op("GlobalAveragePool", x.name)
        s.add(s.g.op("Expand", pooled, s.g.ints(1, c if s.flag() else 1, 3, 2)), n, c, 3, 2)
    elif kind == "single":
        # The wide result shrinks with the map that it is added to.
        wide = s.g.op("Expand", s.g.reduce("ReduceSum", x.name, 1), s.g.ints(1, c, 1, 1))
        s.add(s.g.op("Add", wide, x.name), *x.shape)
    else:
        s.add(s.g.op("Tile", x.name, s.g.ints(1, 2, 1, 1)), n, 2 * c, h, w)


def flatten(s: State) -> None:
    """All of a map in one vector per sample: by Flatten or by Reshape."""
    x = s.take(4, lambda t: int(np.prod(t.shape[1:])) <= 400)
    if x is None:
        return
    n, size = x.shape[0], int(np.prod(x.shape[1:]))
    if s.flag():
        s.add(s.g.op("Flatten", x.name), n, size)
    else:
        s.add(reshape_to(s, x.name, [None, s.choose.pick([size, -1])], x.name), n, size)


def pooled_vector(s: State) -> None:
    """One number per channel."""
    x = s.take(4)
    if x is None:
        return
    n, c = x.shape[:2]
    if s.flag():
        s.add(s.g.reduce(s.choose.pick(["ReduceMean", "ReduceMax"]), x.name, 2, 3, keepdims=0), n, c)
    else:
        pooled = s.g.op("GlobalAveragePool", x.name)
        # Without axes, a batch of one would go as well.
        everything = c > 1 and not s.dynamic and s.flag()
        s.add(s.g.op("Squeeze", pooled) if everything else s.g.squeeze(pooled, 2, 3), n, c)


def tokens(s: State) -> None:
    """Pixels become tokens: (N, C, H, W) → (N, H·W, C)."""
    x = s.take(4, lambda t: t.shape[2] * t.shape[3] <= 36)
    if x is None:
        return
    n, c, h, w = x.shape
    flat = reshape_to(s, x.name, [None, c, s.choose.pick([h * w, -1])], x.name)
    s.add(s.g.op("Transpose", flat, perm=[0, 2, 1]), n, h * w, c)


LAYOUT_BLOCKS: tuple[Block, ...] = (
    concat, concat, spatial_concat, split, slice_channels, gather_channels, shuffle, depth_to_space, space_to_depth,
    pad, nhwc, resize, repeat, flatten, pooled_vector, tokens, tokens,
)  # fmt: skip
