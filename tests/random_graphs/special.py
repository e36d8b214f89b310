"""Rarer blocks: windows, maxout, channels folded into the batch, recurrence, control flow, tied and packed weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.random_graphs.maps import map_of_multiple
from tests.random_graphs.sequences import linear_of
from tests.random_graphs.state import Block, State, divisors, reshape_to


def maxout(s: State) -> None:
    """The larger of neighbouring channels, or their sum or mean: the channels are split into pairs."""
    x = map_of_multiple(s, 2)
    if x is None:
        return
    n, c, h, w = x.shape
    outer = s.flag()
    pair = [None, c // 2, 2, h, w] if outer else [None, 2, c // 2, h, w]
    cut = reshape_to(s, x.name, pair, x.name)
    kind = s.choose.pick(["ReduceMax", "ReduceSum", "ReduceMean", "ReduceL2"])
    s.add(s.g.reduce(kind, cut, 2 if outer else 1, keepdims=0), n, c // 2, h, w)


def group_norm(s: State) -> None:
    """GroupNorm: the operator, or means and variances over a map cut into groups."""
    x = s.take(4, lambda t: t.shape[1] > 1 and t.shape[2] * t.shape[3] > 1)
    if x is None:
        return
    _, c, h, w = x.shape
    groups = s.choose.pick(divisors(c, 1))
    g = s.g
    if g.opset >= 21 and s.flag():
        s.add(g.op("GroupNormalization", x.name, g.vector(c), g.vector(c), num_groups=groups, epsilon=1e-2), *x.shape)
        return
    cut = reshape_to(s, x.name, [None, groups, c // groups, h, w], x.name)
    centred = g.op("Sub", cut, g.reduce("ReduceMean", cut, 2, 3, 4))
    variance = g.reduce("ReduceMean", g.op("Mul", centred, centred), 2, 3, 4)
    normal = g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, g.constant(1e-2, dtype=np.float32))))
    scaled = g.op("Mul", reshape_to(s, normal, [None, c, h, w], x.name), g.vector(c, 1, 1))
    # Without a bias, a mean over the map would be zero but for rounding.
    s.add(g.op("Add", scaled, g.vector(c, 1, 1)), *x.shape)


def folded_into_batch(s: State) -> None:
    """Every channel a sample of its own, for a filter that all share."""
    x = s.take(4, lambda t: not s.dynamic and t.shape[2] * t.shape[3] > 1)
    if x is None:
        return
    n, c, h, w = x.shape
    single = s.g.op("Reshape", x.name, s.g.ints(n * c, 1, h, w))
    blurred = s.g.op("Conv", single, s.g.weight(1, 1, 3, 3), kernel_shape=[3, 3], pads=[1] * 4)
    s.add(s.g.op("Reshape", blurred, s.g.ints(n, c, h, w)), *x.shape)


def windows(s: State) -> None:
    """Attention within windows of two by two pixels, channels last, as Swin cuts them."""
    x = s.take(4, lambda t: t.shape[2] % 2 == 0 and t.shape[3] % 2 == 0 and t.shape[2] * t.shape[3] <= 36)
    if x is None:
        return
    _, c, h, w = x.shape
    g = s.g
    last = g.op("Transpose", x.name, perm=[0, 2, 3, 1])
    if s.flag():
        # Shifted by a row: the first one goes to the end.
        last = g.op("Concat", g.slice(last, 1, 1, h), g.slice(last, 1, 0, 1), axis=1)
    cut = reshape_to(s, last, [None, h // 2, 2, w // 2, 2, c], x.name)
    cut = g.op("Transpose", cut, perm=[0, 1, 3, 2, 4, 5])
    tokens = g.op("Reshape", cut, g.ints(-1, 4, c))
    heads, width = s.choose.integer(1, 2), s.choose.integer(1, 3)
    q, k, v = (
        g.op("Transpose", g.op("Reshape", linear_of(s, tokens, c, heads * width), g.ints(0, 0, heads, width)), perm=p)
        for p in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    bias = g.op("Gather", g.weight(3, heads, fan_in=1), g.ints(*g.rng.integers(0, 3, 16)), axis=0)
    bias = g.op("Transpose", g.op("Reshape", bias, g.ints(4, 4, heads)), perm=[2, 0, 1])
    scores = g.op("Add", g.op("MatMul", q, k), g.unsqueeze(bias, 0))
    mixed = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=3), v), perm=[0, 2, 1, 3])
    out = linear_of(s, g.op("Reshape", mixed, g.ints(0, 0, -1)), heads * width, c)
    back = g.op("Reshape", out, g.ints(-1, h // 2, w // 2, 2, 2, c))
    back = reshape_to(s, g.op("Transpose", back, perm=[0, 1, 3, 2, 4, 5]), [None, h, w, c], x.name)
    s.add(g.op("Add", g.op("Transpose", back, perm=[0, 3, 1, 2]), x.name), *x.shape)


def merged_patches(s: State) -> None:
    """Four neighbouring pixels one behind the other, channels last, then a dense layer (Swin's patch merging)."""
    x = s.take(4, lambda t: t.shape[2] % 2 == 0 and t.shape[3] % 2 == 0 and s.g.opset >= 10)
    if x is None:
        return
    n, c, h, w = x.shape
    last = s.g.op("Transpose", x.name, perm=[0, 2, 3, 1])
    rows = [s.g.slice(last, 1, i, 2**31 - 1, 2) for i in (0, 1)]
    y = s.g.op("Concat", *(s.g.slice(r, 2, j, 2**31 - 1, 2) for j in (0, 1) for r in rows), axis=3)
    wide = s.choose.integer(2, 6)
    y = linear_of(s, y, 4 * c, wide)
    s.add(s.g.op("Transpose", y, perm=[0, 3, 1, 2]), n, wide, h // 2, w // 2)


def einsum_attention(s: State) -> None:
    """Attention written with Einsum."""
    x = s.take(3, lambda t: t.shape[1] <= 16 and s.g.opset >= 12)
    if x is None:
        return
    _, t, d = x.shape
    g = s.g
    heads, width = s.choose.integer(1, 3), s.choose.integer(1, 4)
    if s.flag():
        parts = [linear_of(s, x.name, d, heads * width) for _ in range(3)]
        q, k, v = (reshape_to(s, p, [None, t, heads, width], x.name) for p in parts)
    else:
        q, k, v = (g.op("Einsum", x.name, g.weight(d, heads, width, fan_in=d), equation="btd,dhe->bthe") for _ in "qkv")
    scores = g.op("Softmax", g.op("Einsum", q, k, equation="bqhe,bkhe->bhqk"), axis=3)
    mixed = g.op("Einsum", scores, v, equation="bhqk,bkhe->bqhe")
    if s.flag():
        y = g.op("Einsum", mixed, g.weight(heads, width, d, fan_in=heads * width), equation="bthe,hed->btd")
    else:
        y = linear_of(s, reshape_to(s, mixed, [None, t, heads * width], x.name), heads * width, d)
    s.add(g.op("Add", x.name, y), *x.shape)


def cosine_attention(s: State) -> None:
    """Attention of normalised queries and keys, with a learned scale per head."""
    x = s.take(3, lambda t: t.shape[1] <= 16)
    if x is None:
        return
    _, t, d = x.shape
    g = s.g
    heads, width = s.choose.integer(1, 3), s.choose.integer(2, 4)

    def head_first(part: str) -> str:
        return g.op("Transpose", reshape_to(s, part, [None, t, heads, width], x.name), perm=[0, 2, 1, 3])

    def normal(part: str) -> str:
        return g.op("Div", part, g.op("Add", g.reduce("ReduceL2", part, 3), g.constant(0.1, dtype=np.float32)))

    q, k, v = (head_first(linear_of(s, x.name, d, heads * width)) for _ in range(3))
    scores = g.op("MatMul", normal(q), g.op("Transpose", normal(k), perm=[0, 1, 3, 2]))
    scores = g.op("Softmax", g.op("Mul", scores, g.vector(heads, 1, 1, positive=True)), axis=3)
    mixed = g.op("Transpose", g.op("MatMul", scores, v), perm=[0, 2, 1, 3])
    joined = reshape_to(s, mixed, [None, t, heads * width], x.name)
    s.add(g.op("Add", x.name, linear_of(s, joined, heads * width, d)), *x.shape)


def recurrent(s: State) -> None:
    """An LSTM or GRU over tokens, one or two directions."""
    x = s.take(3, lambda t: not s.dynamic and t.shape[1] <= 8)
    if x is None:
        return
    n, t, d = x.shape
    g = s.g
    kind, gates = s.choose.pick([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    hidden, directions = s.choose.integer(2, 5), s.choose.integer(1, 2)
    operands = [
        g.op("Transpose", x.name, perm=[1, 0, 2]),
        g.weight(directions, gates * hidden, d, fan_in=d),
        g.weight(directions, gates * hidden, hidden, fan_in=hidden),
    ]
    if s.flag():
        operands.append(g.vector(directions, 2 * gates * hidden))
    attributes: dict[str, Any] = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}
    if kind == "GRU":
        attributes["linear_before_reset"] = s.choose.integer(0, 1)
    y = g.op(kind, *operands, **attributes)
    y = g.op("Reshape", g.op("Transpose", y, perm=[2, 0, 1, 3]), g.ints(n, t, directions * hidden))
    s.add(y, n, t, directions * hidden)


def tied_linear(s: State) -> None:
    """One matrix used forwards and, transposed, backwards."""
    x = s.take(3)
    if x is None:
        return
    d, wide, g = x.shape[2], s.choose.integer(2, 6), s.g
    weight = g.weight(d, wide, fan_in=d)
    hidden = g.op("Relu", g.op("MatMul", x.name, weight))
    s.add(g.op("MatMul", hidden, g.op("Transpose", weight, perm=[1, 0])), *x.shape)


def packed_conv(s: State) -> None:
    """Filters kept in half precision, or with the axes in another order."""
    x = s.take(4)
    if x is None:
        return
    n, c, h, w = x.shape
    filters, g = s.choose.integer(2, 6), s.g
    if s.flag():
        half = g.constant(g.rng.standard_normal((filters, c, 1, 1)) / np.sqrt(c), "half", np.float16)
        weight = g.op("Cast", half, to=TensorProto.FLOAT)
    else:
        weight = g.op("Transpose", g.weight(1, 1, c, filters, fan_in=c), perm=[3, 2, 0, 1])
    s.add(g.op("Conv", x.name, weight, kernel_shape=[1, 1]), n, filters, h, w)


def branches(s: State) -> None:
    """An If that chooses between a map and its double at run time; its bodies capture the map."""
    x = s.take(4, lambda t: s.g.opset >= 11)
    if x is None:
        return
    g = s.g
    total = g.op("ReduceSum", x.name, keepdims=0)
    met = g.op("Greater", total, g.constant(0.0, dtype=np.float32))
    bodies: dict[str, Any] = {}
    for name, op_type in (("then_branch", "Identity"), ("else_branch", "Neg")):
        out = g.name(name)
        info = onnx.ValueInfoProto(name=out)
        info.type.tensor_type.elem_type = TensorProto.FLOAT
        bodies[name] = helper.make_graph([helper.make_node(op_type, [x.name], [out])], name, [], [info])
    s.add(g.op("If", met, **bodies), *x.shape)


def reported(s: State) -> None:
    """A tensor inside the network is an output as well."""
    x = s.take(s.choose.pick([2, 3, 4]), lambda t: t.name not in {o.name for o in s.g.outputs} | {"x"})
    if x is not None:
        s.g.output(x.name, ["N" if s.dynamic else x.shape[0], *x.shape[1:]])


def filled(s: State) -> None:
    """A constant of the extents of a map, subtracted or put beside it."""
    x = s.take(4, lambda t: s.g.opset >= 9 and t.shape[1] <= 8)
    if x is None:
        return
    n, c, h, w = x.shape
    value = onnx.numpy_helper.from_array(np.array([0.5], dtype=np.float32))
    constant = s.g.op("ConstantOfShape", s.g.op("Shape", x.name), value=value)
    if s.flag():
        s.add(s.g.op("Sub", x.name, constant), *x.shape)
    else:
        s.add(s.g.op("Concat", constant, x.name, axis=1), n, 2 * c, h, w)


def chosen(s: State) -> None:
    """Where: two maps, picked by the sign of a third, or by a constant per channel."""
    x = s.take(4, lambda t: s.g.opset >= 9)
    if x is None:
        return
    other = s.take(4, lambda t: t.shape == x.shape)
    assert other is not None
    if s.flag():
        condition = s.g.op("Greater", other.name, s.g.constant(0.0, dtype=np.float32))
        s.add(s.g.op("Where", condition, x.name, s.g.vector(x.shape[1], 1, 1)), *x.shape)
    else:
        picks = s.g.constant(s.g.rng.integers(0, 2, (x.shape[1], 1, 1)), dtype=np.bool_)
        s.add(s.g.op("Where", picks, x.name, other.name), *x.shape)


def upsampled_like(s: State) -> None:
    """Feature pyramid: a small map is scaled to the extents of a large one, read at run time, and added."""
    x = s.take(4, lambda t: s.g.opset >= 11 and min(t.shape[2:]) >= 2)
    if x is None:
        return
    n, c, h, w = x.shape
    g = s.g
    small = g.op("MaxPool", x.name, kernel_shape=[2, 2], strides=[2, 2])
    width = s.choose.pick([c, s.choose.integer(2, 6)])
    small = g.op("Conv", small, g.weight(width, c, 1, 1), kernel_shape=[1, 1])
    sizes = g.op("Concat", g.slice(g.op("Shape", small), 0, 0, 2), g.slice(g.op("Shape", x.name), 0, 2, 4), axis=0)
    absent = "" if g.opset >= 13 else g.constant([], dtype=np.float32)
    large = g.op("Resize", small, absent, absent, sizes, mode="nearest")
    if width == c:
        s.add(g.op("Add", large, x.name), *x.shape)
    else:
        s.add(g.op("Concat", large, x.name, axis=1), n, width + c, h, w)


SPECIAL_BLOCKS: tuple[Block, ...] = (
    maxout, group_norm, folded_into_batch, windows, merged_patches, einsum_attention, cosine_attention, recurrent,
    tied_linear, packed_conv, branches, reported, filled, chosen, upsampled_like,
)  # fmt: skip
