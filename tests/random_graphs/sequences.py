"""Blocks on sequences (N, T, D) and vectors (N, D)."""

from __future__ import annotations

import numpy as np

from tests.random_graphs.state import Block, State, Tensor, divisors, reshape_to


def linear_of(s: State, x: str, before: int, after: int) -> str:
    """MatMul with a weight, perhaps with a bias on either side."""
    y = s.g.op("MatMul", x, s.g.weight(before, after, fan_in=before))
    if not s.flag():
        return y
    bias = s.g.vector(after)
    return s.g.op("Add", y, bias) if s.flag() else s.g.op("Add", bias, y)


def linear(s: State) -> None:
    """A dense layer on every token."""
    x = s.take(3)
    if x is not None:
        n, t, d = x.shape
        width = s.choose.integer(1, 8)
        s.add(linear_of(s, x.name, d, width), n, t, width)


def normalized_tokens(s: State, x: str, d: int) -> str:
    """LayerNorm over the features: the operator, or spelled out."""
    scale, bias = s.g.vector(d, positive=True), s.g.vector(d)
    if s.g.opset >= 17 and s.flag():
        return s.g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-2)
    centred = s.g.op("Sub", x, s.g.reduce("ReduceMean", x, -1 if s.g.opset >= 11 else 2))
    square = s.g.op("Pow", centred, s.g.constant(2.0, dtype=np.float32))
    mean = s.g.reduce("ReduceMean", square, -1 if s.g.opset >= 11 else 2)
    variance = s.g.op("Add", mean, s.g.constant(1e-2, dtype=np.float32))
    normal = s.g.op("Div", centred, s.g.op("Sqrt", variance))
    return s.g.op("Add", s.g.op("Mul", normal, scale), bias)


def layer_norm(s: State) -> None:
    """LayerNorm on its own."""
    x = s.take(3, lambda t: t.shape[2] > 1)
    if x is not None:
        s.add(normalized_tokens(s, x.name, x.shape[2]), *x.shape)


def attention(s: State) -> None:
    """Softmax or linear attention with heads; q, k and v from three layers, or from one that is cut in three ways."""
    x = s.take(3, lambda t: t.shape[1] <= 16)
    if x is None:
        return
    _, t, d = x.shape
    g = s.g
    heads, width = s.choose.integer(1, 3), s.choose.integer(1, 4)
    inner = heads * width
    source = normalized_tokens(s, x.name, d) if d > 1 and s.flag() else x.name
    kind = s.choose.pick(["separate", "split", "gather", "cut"])
    if kind == "gather":
        fused = reshape_to(s, linear_of(s, source, d, 3 * inner), [None, t, 3, heads, width], x.name)
        fused = g.op("Transpose", fused, perm=[2, 0, 3, 1, 4])
        q, k, v = (g.op("Gather", fused, g.constant(i, dtype=np.int64), axis=0) for i in range(3))
    elif kind == "cut":
        fused = reshape_to(s, linear_of(s, source, d, 3 * inner), [None, t, 3, heads, width], x.name)
        fused = g.op("Transpose", fused, perm=[2, 0, 3, 1, 4])
        q, k, v = (g.squeeze(part, 0) for part in g.split(fused, 0, [1, 1, 1]))
    else:
        if kind == "split":
            parts = g.split(linear_of(s, source, d, 3 * inner), 2, [inner] * 3)
        else:
            parts = [linear_of(s, source, d, inner) for _ in range(3)]
        cut = [reshape_to(s, p, [None, t, heads, width], x.name) for p in parts]
        q, k, v = (g.op("Transpose", p, perm=[0, 2, 1, 3]) for p in cut)
    if s.flag():
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
        scale = g.constant(float(width) ** -0.5, dtype=np.float32)
        mixed = g.op("MatMul", g.op("Softmax", g.op("Mul", scores, scale), axis=3), v)
    else:
        inner_product = g.op("MatMul", g.op("Transpose", g.op("Relu", k), perm=[0, 1, 3, 2]), v)
        mixed = g.op("MatMul", g.op("Relu", q), inner_product)
    joined = reshape_to(s, g.op("Transpose", mixed, perm=[0, 2, 1, 3]), [None, t, inner], x.name)
    s.add(g.op("Add", x.name, linear_of(s, joined, inner, d)), *x.shape)


def mlp(s: State) -> None:
    """The transformer's second half, with Gelu spelled out or a gated unit."""
    x = s.take(3)
    if x is None:
        return
    d, width, g = x.shape[2], s.choose.integer(2, 6), s.g
    if s.flag():
        wide = linear_of(s, x.name, d, width)
        if g.opset >= 9:
            root = g.constant(2.0**0.5, dtype=np.float32)
            one = g.op("Add", g.op("Erf", g.op("Div", wide, root)), g.constant(1.0, dtype=np.float32))
            wide = g.op("Mul", g.op("Mul", wide, one), g.constant(0.5, dtype=np.float32))
    else:
        value, gate = g.split(linear_of(s, x.name, d, 2 * width), 2, [width, width])
        wide = g.op("Mul", value, g.op("Sigmoid", gate))
    s.add(g.op("Add", linear_of(s, wide, width, d), x.name), *x.shape)


def join_tokens(s: State) -> None:
    """Features of two sequences added or concatenated; or tokens appended."""
    x = s.take(3, lambda t: t.shape[1] <= 20 and t.shape[2] <= 10)
    if x is None:
        return
    n, t, d = x.shape
    kind = s.choose.pick(["Add", "Mul", "features", "tokens", "class"])
    if kind == "class":
        token = s.g.vector(1, 1, d)
        if s.g.opset < 8 or s.dynamic:
            return
        s.add(s.g.op("Concat", s.g.op("Expand", token, s.g.ints(n, 1, d)), x.name, axis=1), n, t + 1, d)
        return
    if kind == "tokens":
        other = s.take(3, lambda o: o.shape[2] == d)
        assert other is not None
        s.add(s.g.op("Concat", x.name, other.name, axis=1), n, t + other.shape[1], d)
        return
    other = s.take(3, lambda o: o.shape[1] == t and (kind == "features" or o.shape[2] in (1, d)))
    assert other is not None
    if kind == "features":
        s.add(s.g.op("Concat", x.name, other.name, axis=2), n, t, d + other.shape[2])
    else:
        s.add(s.g.op(kind, x.name, other.name), *x.shape)


def map_of_tokens(s: State) -> None:
    """Tokens become pixels again: (N, T, D) → (N, D, T, 1)."""
    x = s.take(3)
    if x is None:
        return
    n, t, d = x.shape
    y = s.g.op("Transpose", x.name, perm=[0, 2, 1])
    height = s.choose.pick(divisors(t, 1))
    s.add(reshape_to(s, y, [None, d, height, t // height], x.name), n, d, height, t // height)


def vector_of_tokens(s: State) -> None:
    """One vector per sample: a token, the mean, all tokens behind each other."""
    x = s.take(3)
    if x is None:
        return
    n, t, d = x.shape
    kind = s.choose.pick(["token", "mean", "flat"])
    if kind == "token":
        s.add(s.g.op("Gather", x.name, s.g.constant(s.choose.integer(0, t - 1), dtype=np.int64), axis=1), n, d)
    elif kind == "mean":
        s.add(s.g.reduce("ReduceMean", x.name, 1, keepdims=0), n, d)
    elif t * d <= 300:
        s.add(reshape_to(s, x.name, [None, t * d], x.name), n, t * d)


def conv_tokens(s: State) -> None:
    """A one-dimensional convolution over tokens, dense or depthwise."""
    x = s.take(3)
    if x is None:
        return
    n, t, d = x.shape
    y = s.g.op("Transpose", x.name, perm=[0, 2, 1])
    group = s.choose.pick([1, d])
    width = d if group > 1 else s.choose.integer(2, 6)
    y = s.g.op("Conv", y, s.g.weight(width, d // group, 3), kernel_shape=[3], pads=[1, 1], group=group)
    s.add(s.g.op("Transpose", y, perm=[0, 2, 1]), n, t, width)


def gemm(s: State) -> None:
    """A dense layer on vectors: Gemm in its forms, or MatMul."""
    x = s.take(2)
    if x is None:
        return
    n, d = x.shape
    width = s.choose.integer(1, 8)
    kind = s.choose.pick(["plain", "transposed", "scaled", "matmul"])
    if kind == "matmul":
        y = linear_of(s, x.name, d, width)
    elif kind == "transposed":
        y = s.g.op("Gemm", x.name, s.g.weight(width, d), s.g.vector(width), transB=1)
    elif kind == "scaled":
        bias = s.g.vector(*s.choose.pick([(width,), (1, width), (1,)]))
        y = s.g.op("Gemm", x.name, s.g.weight(d, width, fan_in=d), bias, alpha=0.5, beta=2.0)
    else:
        y = s.g.op("Gemm", x.name, s.g.weight(d, width, fan_in=d), s.g.vector(width))
    s.add(s.g.op("Relu", y) if s.flag() else y, n, width)


def join_vectors(s: State) -> None:
    """Two vectors added, multiplied or concatenated."""
    x = s.take(2, lambda t: t.shape[1] <= 200)
    if x is None:
        return
    n, d = x.shape
    kind = s.choose.pick(["Add", "Mul", "Concat"])
    other = s.take(2, lambda t: t.shape[1] <= 200 and (kind == "Concat" or t.shape[1] in (1, d)))
    assert other is not None
    if kind == "Concat":
        s.add(s.g.op("Concat", x.name, other.name, axis=1), n, d + other.shape[1])
    else:
        s.add(s.g.op(kind, x.name, other.name), n, d)


def vector_norm(s: State) -> None:
    """BatchNormalization or a softmax on vectors."""
    x = s.take(2)
    if x is None:
        return
    d, g = x.shape[1], s.g
    if s.flag():
        vectors = [g.vector(d, positive=True), g.vector(d), g.vector(d), g.vector(d, positive=True)]
        s.add(g.op("BatchNormalization", x.name, *vectors), *x.shape)
    else:
        s.add(g.op("Softmax", x.name, axis=1), *x.shape)


def map_of_vector(s: State) -> None:
    """A vector becomes a map: channels of one pixel, or channels and pixels."""
    x = s.take(2)
    if x is None:
        return
    n, d = x.shape
    if d % 4 == 0 and s.flag():
        s.add(reshape_to(s, x.name, [None, d // 4, 2, 2], x.name), n, d // 4, 2, 2)
    else:
        s.add(s.g.unsqueeze(x.name, 2, 3), n, d, 1, 1)


def head(s: State, leaf: Tensor) -> Tensor:
    """What stands between a leaf and an output: nothing now and then, mostly a layer."""
    kind = s.choose.integer(0, 5)
    if kind == 0:
        return leaf
    if len(leaf.shape) < 4:
        width = leaf.shape[-1]
        y = s.g.op("MatMul", leaf.name, s.g.weight(width, 3, fan_in=width))
        return Tensor(y, (*leaf.shape[:-1], 3))
    n, c, h, w = leaf.shape
    if kind < 3:
        y = s.g.op("Conv", leaf.name, s.g.weight(3, c, 1, 1), kernel_shape=[1, 1])
        return Tensor(y, (n, 3, h, w))
    flat = s.g.op("Flatten", s.g.op("GlobalAveragePool", leaf.name))
    return Tensor(s.g.op("Gemm", flat, s.g.weight(3, c), s.g.vector(3), transB=1), (n, 3))


SEQUENCE_BLOCKS: tuple[Block, ...] = (
    linear, linear, layer_norm, attention, attention, attention, mlp, mlp, join_tokens, map_of_tokens,
    vector_of_tokens, conv_tokens,
)  # fmt: skip
VECTOR_BLOCKS: tuple[Block, ...] = (gemm, gemm, join_vectors, vector_norm, map_of_vector)
