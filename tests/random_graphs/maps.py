"""Blocks that compute on feature maps (N, C, H, W)."""

from __future__ import annotations

import numpy as np

from tests.random_graphs.state import Block, State, Tensor, divisors, reshape_to


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


def softmax_channels(s: State) -> None:
    """Softmax over the channels, which pins them."""
    x = s.take(4)
    if x is not None:
        y = s.g.op("Transpose", x.name, perm=[0, 2, 3, 1])
        y = s.g.op("Softmax", y, axis=3)
        s.add(s.g.op("Transpose", y, perm=[0, 3, 1, 2]), *x.shape)


MAP_BLOCKS: tuple[Block, ...] = (
    conv, conv, conv, grouped_conv, depthwise_conv, transposed_conv, shared_conv, elementwise, elementwise, residual,
    squeeze_excite, pool, instance_norm, spatial_gate, channel_norm, affine, prelu, softmax_channels,
)  # fmt: skip
