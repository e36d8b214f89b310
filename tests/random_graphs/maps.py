"""Blocks on feature maps (N, C, H, W)."""

from __future__ import annotations

import numpy as np

from tests.random_graphs.state import Block, State, Tensor, divisors


def conv_of(
    s: State, x: Tensor, filters: int, kernel: int = 1, group: int = 1, stride: int = 1, bias: bool = True
) -> Tensor:
    """A convolution that keeps height and width, but for its stride."""
    n, c, h, w = x.shape
    weight = s.g.weight(filters, c // group, kernel, kernel)
    operands = [weight, s.g.vector(filters)] if bias else [weight]
    y = s.g.op(
        "Conv", x.name, *operands,
        kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, strides=[stride] * 2, group=group,
    )  # fmt: skip
    return Tensor(y, (n, filters, (h - 1) // stride + 1, (w - 1) // stride + 1))


def map_of_multiple(s: State, multiple: int, most_pixels: int = 6) -> Tensor | None:
    """A map whose channels are a multiple of a number; a convolution makes one where there is none."""
    x = s.take(4, lambda t: t.shape[1] % multiple == 0 and max(t.shape[2:]) <= most_pixels)
    if x is None or not s.choose.integer(0, 2):
        other = s.take(4, lambda t: max(t.shape[2:]) <= most_pixels)
        return None if other is None else conv_of(s, other, multiple * s.choose.integer(1, 3))
    return x


def conv(s: State) -> None:
    """Dense convolution, perhaps with BatchNormalization and an activation."""
    x = s.take(4)
    if x is None:
        return
    kernel = s.choose.pick([1, 3])
    stride = s.choose.pick([1, 1, 2]) if min(x.shape[2:]) > 3 else 1
    y = conv_of(s, x, s.choose.pick([1, 2, 3, 4, 5, 6, 8, 12]), kernel, stride=stride, bias=s.flag())
    s.add(activated(s, normalized(s, y.name, y.shape[1])), *y.shape)


def normalized(s: State, x: str, channels: int) -> str:
    """BatchNormalization, or nothing."""
    if not s.flag():
        return x
    g = s.g
    vectors = [g.vector(channels, positive=True), g.vector(channels), g.vector(channels)]
    return g.op("BatchNormalization", x, *vectors, g.vector(channels, positive=True))


def activated(s: State, x: str) -> str:
    """An activation, or nothing."""
    kind = s.choose.pick(["", "Relu", "LeakyRelu", "Sigmoid", "Swish", "HardSwish", "Clip"])
    g = s.g
    if kind == "Swish":
        return g.op("Mul", x, g.op("Sigmoid", x))
    if kind == "HardSwish":
        three, six = g.constant(3.0, dtype=np.float32), g.constant(6.0, dtype=np.float32)
        shifted = g.op("Add", x, three)
        gate = (
            g.op("Clip", shifted, min=0.0, max=6.0)
            if g.opset < 11
            else g.op("Clip", shifted, g.constant(0.0, dtype=np.float32), six)
        )
        return g.op("Div", g.op("Mul", x, gate), six)
    if kind == "Clip":
        return g.op("Clip", x, min=-1.0, max=1.0) if g.opset < 11 else g.op("Relu", x)
    return g.op(kind, x) if kind else x


def grouped_conv(s: State) -> None:
    """Grouped convolution."""
    x = map_of_multiple(s, s.choose.pick([4, 6]))
    if x is None:
        return
    group = s.choose.pick(divisors(x.shape[1])[:-1])
    y = conv_of(s, x, group * s.choose.integer(1, 3), s.choose.pick([1, 3]), group, bias=s.flag())
    s.add(activated(s, normalized(s, y.name, y.shape[1])), *y.shape)


def depthwise_conv(s: State) -> None:
    """Depthwise convolution, one or two filters per channel."""
    x = s.take(4, lambda t: t.shape[1] > 1)
    if x is None:
        return
    y = conv_of(s, x, x.shape[1] * s.choose.pick([1, 1, 2]), 3, x.shape[1], bias=s.flag())
    s.add(normalized(s, y.name, y.shape[1]), *y.shape)


def transposed_conv(s: State) -> None:
    """ConvTranspose that doubles height and width: dense, grouped or depthwise."""
    x = s.take(4, lambda t: max(t.shape[2:]) <= 4)
    if x is None:
        return
    n, c, h, w = x.shape
    group = s.choose.pick([1, 1, *divisors(c)])
    per_group = s.choose.integer(1, 4)
    operands = [s.g.weight(c, per_group, 2, 2, fan_in=c // group)]
    if s.flag():
        operands.append(s.g.vector(per_group * group))
    y = s.g.op("ConvTranspose", x.name, *operands, kernel_shape=[2, 2], strides=[2, 2], group=group)
    s.add(y, n, per_group * group, 2 * h, 2 * w)


def shared_conv(s: State) -> None:
    """The weight of one convolution used for two inputs, or twice in a row."""
    x = s.take(4)
    if x is None:
        return
    c = x.shape[1]
    known = [w for w in s.shared if w[2][1] == c]
    if not known:
        f = s.choose.pick([c, s.choose.integer(2, 6)])
        known = [(s.g.weight(f, c, 3, 3), s.g.vector(f), (f, c))]
        s.shared.append(known[0])
    weight, bias, (f, _) = s.choose.pick(known)
    for _ in range(2 if f == c and s.flag() else 1):
        y = s.g.op("Conv", x.name, weight, bias, kernel_shape=[3, 3], pads=[1] * 4)
        x = s.add(y, x.shape[0], f, *x.shape[2:])


def elementwise(s: State) -> None:
    """Two maps added, multiplied or compared, with broadcasting; the result joins their couplings."""
    x = s.take(4)
    if x is None:
        return

    def fits(t: Tensor) -> bool:
        return t.shape == x.shape or (t.shape[1] in (1, x.shape[1]) and t.shape[2:] in ((1, 1), x.shape[2:]))

    y = s.take(4, fits)
    if y is None:
        return
    operands = [x.name, y.name] if s.flag() else [y.name, x.name]
    kinds = ["Add", "Add", "Mul", "Sub"]
    if s.g.opset >= 8 or x.shape == y.shape:
        kinds += ["Max", "Sum"]
    kind = s.choose.pick(kinds)
    s.add(s.g.op(kind, *operands, *([x.name] if kind == "Sum" else [])), *x.shape)


def residual(s: State) -> None:
    """x + f(x), where f has an inner width of its own; perhaps a bottleneck with a depthwise or grouped middle."""
    x = s.take(4)
    if x is None:
        return
    c, width = x.shape[1], s.choose.integer(2, 6)
    inner = conv_of(s, x, width, 1)
    inner = Tensor(s.g.op("Relu", normalized(s, inner.name, width)), inner.shape)
    inner = conv_of(s, inner, width, 3, s.choose.pick([1, *divisors(width)]))
    y = conv_of(s, inner, c, 1)
    s.add(activated(s, s.g.op("Add", x.name, normalized(s, y.name, c))), *x.shape)


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


def reshape_to(s: State, x: str, target: list[int | None], like: str) -> str:
    """Reshape with constants, with 0 and -1, or with a target computed from shapes; None means the batch."""
    if not s.dynamic and s.flag():
        return s.g.op("Reshape", x, s.g.ints(*(2 if t is None else t for t in target)))
    if s.flag():
        rest = [0 if t is None else t for t in target]
        return s.g.op("Reshape", x, s.g.ints(*rest))
    shape = s.g.op("Shape", like)
    parts = []
    for extent in target:
        if extent is None:
            batch = s.g.op("Gather", shape, s.g.constant(0, dtype=np.int64), axis=0)
            parts.append(s.g.unsqueeze(batch, 0))
        else:
            parts.append(s.g.ints(extent))
    return s.g.op("Reshape", x, s.g.op("Concat", *parts, axis=0))


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


def squeeze_excite(s: State) -> None:
    """A gate per channel from pooled channels: with 1×1 convolutions or with Gemm."""
    x = s.take(4)
    if x is None:
        return
    n, c = x.shape[:2]
    width = s.choose.integer(1, 4)
    pooled = s.g.op("GlobalAveragePool", x.name) if s.flag() else s.g.reduce("ReduceMean", x.name, 2, 3, keepdims=1)
    if s.flag():
        squeezed = conv_of(s, Tensor(pooled, (n, c, 1, 1)), width)
        gate = conv_of(s, Tensor(s.g.op("Relu", squeezed.name), squeezed.shape), c).name
    else:
        flat = s.g.op("Flatten", pooled)
        hidden = s.g.op("Relu", s.g.op("Gemm", flat, s.g.weight(width, c), s.g.vector(width), transB=1))
        wide = s.g.op("Gemm", hidden, s.g.weight(c, width), s.g.vector(c), transB=1)
        gate = s.g.unsqueeze(wide, 2, 3) if s.flag() else reshape_to(s, wide, [None, c, 1, 1], wide)
    s.add(s.g.op("Mul", x.name, s.g.op("Sigmoid", gate)), *x.shape)


def pool(s: State) -> None:
    """Maximum or average, in windows or over everything."""
    x = s.take(4)
    if x is None:
        return
    n, c, h, w = x.shape
    kind = s.choose.pick(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    if kind.startswith("Global"):
        s.add(s.g.op(kind, x.name), n, c, 1, 1)
    elif min(h, w) >= 2:
        s.add(s.g.op(kind, x.name, kernel_shape=[2, 2], strides=[2, 2]), n, c, h // 2, w // 2)


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


def instance_norm(s: State) -> None:
    """InstanceNormalization, on channels or on groups of them (GroupNorm as PyTorch exports it)."""
    x = s.take(4, lambda t: t.shape[2] * t.shape[3] > 1)
    if x is None:
        return
    c, h, w = x.shape[1:]
    if s.flag():
        y = s.g.op("InstanceNormalization", x.name, s.g.vector(c, positive=True), s.g.vector(c))
        s.add(y, *x.shape)
        return
    groups = s.choose.pick(divisors(c, 1))
    ones, zeros = s.g.constant(np.ones(groups), dtype=np.float32), s.g.constant(np.zeros(groups), dtype=np.float32)
    cut = reshape_to(s, x.name, [None, groups, -1], x.name)
    normal = s.g.op("InstanceNormalization", cut, ones, zeros)
    y = reshape_to(s, normal, [None, c, h, w], x.name)
    y = s.g.op("Mul", y, s.g.vector(c, 1, 1, positive=True))
    s.add(s.g.op("Add", y, s.g.vector(c, 1, 1)), *x.shape)


def spatial_gate(s: State) -> None:
    """A gate per pixel from a reduction over channels."""
    x = s.take(4)
    if x is None:
        return
    kind = s.choose.pick(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"])
    gate = s.g.op("Sigmoid", s.g.reduce(kind, x.name, 1))
    s.add(s.g.op("Mul", x.name, gate), *x.shape)


def channel_norm(s: State) -> None:
    """What normalises over channels: LayerNorm spelled out, an L2 norm, LRN."""
    x = s.take(4, lambda t: t.shape[1] > 1)
    if x is None:
        return
    c = x.shape[1]
    kind = s.choose.pick(["layer", "l2", "lrn", "lp"])
    if kind == "lrn":
        s.add(s.g.op("LRN", x.name, size=3), *x.shape)
    elif kind == "lp":
        s.add(s.g.op("LpNormalization", s.g.op("Exp", s.g.op("Sigmoid", x.name)), axis=1, p=2), *x.shape)
    elif kind == "l2":
        norm = s.g.op("Add", s.g.reduce("ReduceL2", x.name, 1), s.g.constant(0.1, dtype=np.float32))
        s.add(s.g.op("Div", x.name, norm), *x.shape)
    else:
        centred = s.g.op("Sub", x.name, s.g.reduce("ReduceMean", x.name, 1))
        square = s.g.op("Pow", centred, s.g.constant(2.0, dtype=np.float32))
        variance = s.g.op("Add", s.g.reduce("ReduceMean", square, 1), s.g.constant(1e-2, dtype=np.float32))
        normal = s.g.op("Div", centred, s.g.op("Sqrt", variance))
        s.add(s.g.op("Mul", normal, s.g.vector(1, c, 1, 1)), *x.shape)


def affine(s: State) -> None:
    """A constant per channel, per pixel or for all, added or multiplied; a constant branch of its own now and then."""
    x = s.take(4)
    if x is None:
        return
    c, h, w = x.shape[1:]
    shape = s.choose.pick([(c, 1, 1), (1, c, 1, 1), (1,), (), (h, w), (1, c, h, w), (1, 1, 1)])
    operand = s.g.vector(*shape)
    if s.flag():
        operand = s.g.op("Tanh", operand)
    s.add(s.g.op(s.choose.pick(["Add", "Mul", "Sub", "Div"][:3]), x.name, operand), *x.shape)


def prelu(s: State) -> None:
    """PRelu with a slope per channel."""
    x = s.take(4)
    if x is not None:
        s.add(s.g.op("PRelu", x.name, s.g.vector(x.shape[1], 1, 1)), *x.shape)


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


def softmax_channels(s: State) -> None:
    """Softmax over the channels, which pins them."""
    x = s.take(4)
    if x is not None:
        y = s.g.op("Transpose", x.name, perm=[0, 2, 3, 1])
        y = s.g.op("Softmax", y, axis=3)
        s.add(s.g.op("Transpose", y, perm=[0, 3, 1, 2]), *x.shape)


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


MAP_BLOCKS: tuple[Block, ...] = (
    conv, conv, conv, grouped_conv, depthwise_conv, transposed_conv, shared_conv, elementwise, elementwise, residual,
    concat, concat, spatial_concat, split, slice_channels, gather_channels, shuffle, squeeze_excite, pool,
    depth_to_space, space_to_depth, pad, nhwc, instance_norm, spatial_gate, channel_norm, affine, prelu, resize,
    repeat, softmax_channels, flatten, pooled_vector, tokens, tokens,
)  # fmt: skip
