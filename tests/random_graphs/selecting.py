"""Blocks that jump: thresholds, spikes, rounding, quantisers, the best of several, non-maximum suppression."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.random_graphs.maps import conv_of
from tests.random_graphs.state import Block, State, Tensor

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def _scalar(s: State, value: float) -> str:
    return s.g.constant(value, dtype=np.float32)


def threshold(s: State) -> None:
    """A map where another passes a threshold, or that comparison itself as numbers, or its sign."""
    x = s.take(4, lambda t: s.g.opset >= 9)
    if x is None:
        return
    g = s.g
    kind = s.choose.pick(["gate", "spike", "sign", "where", "channels"])
    if kind == "sign":
        s.add(g.op("Sign", g.op("Sub", x.name, _scalar(s, 0.1))), *x.shape)
        return
    limit = g.vector(x.shape[1], 1, 1) if kind == "channels" else _scalar(s, 0.2)
    passed = g.op(s.choose.pick(["Greater", "Less"]), x.name, limit)
    if kind == "where":
        s.add(g.op("Where", passed, x.name, _scalar(s, -0.5)), *x.shape)
        return
    spikes = g.op("Cast", passed, to=FLOAT)
    s.add(spikes if kind == "spike" else g.op("Mul", spikes, x.name), *x.shape)


def spiking(s: State) -> None:
    """A leaky neuron over two or three steps: it fires where its potential passes a threshold, and starts anew."""
    x = s.take(4)
    if x is None:
        return
    g, limit = s.g, _scalar(s, 0.5)
    current = conv_of(s, x, s.choose.integer(2, 6))
    potential, counts = current.name, []
    for _ in range(s.choose.integer(2, 3)):
        spikes = g.op("Cast", g.op("Greater", potential, limit), to=FLOAT)
        counts.append(spikes)
        leaked = g.op("Add", g.op("Mul", potential, _scalar(s, 0.8)), current.name)
        potential = g.op("Sub", leaked, g.op("Mul", spikes, limit))
    total = counts[0]
    for more in counts[1:]:
        total = g.op("Add", total, more)
    s.add(total, *current.shape)
    if s.flag():
        s.add(potential, *current.shape)


def rounded(s: State) -> None:
    """Rounding, up, down or to the nearest, or by way of an integer, perhaps with a remainder."""
    x = s.take(4)
    if x is None:
        return
    g = s.g
    large = g.op("Mul", x.name, _scalar(s, 3.0))
    kind = s.choose.pick(["Floor", "Ceil", "Cast", *(["Round"] if g.opset >= 11 else []), *(["Mod"] * (g.opset >= 10))])
    if kind in ("Cast", "Mod"):
        whole = g.op("Cast", large, to=INT64)
        if kind == "Mod":
            whole = g.op("Mod", whole, g.constant(3, dtype=np.int64))
        s.add(g.op("Cast", whole, to=FLOAT), *x.shape)
        return
    s.add(g.op(kind, large), *x.shape)


def quantised(s: State) -> None:
    """A convolution as quantisers write it: its input rounded to eight bits, its filters kept in them."""
    x = s.take(4, lambda t: s.g.opset >= 13)
    if x is None:
        return
    n, c, h, w = x.shape
    g, filters = s.g, s.choose.integer(2, 6)
    symmetric = s.flag()
    scale = _scalar(s, 0.04)
    zero = g.constant(0 if symmetric else 110, dtype=np.int8 if symmetric else np.uint8)
    codes = g.op("QuantizeLinear", x.name, scale, zero)
    real = g.op("DequantizeLinear", codes, scale, zero)
    integers = g.constant(g.rng.integers(-127, 128, (filters, c, 1, 1)), "codes", np.int8)
    scales = g.constant(g.rng.uniform(0.5, 1.5, filters) / (127 * np.sqrt(c)), "scales", np.float32)
    zeros = g.constant(np.zeros(filters), "zeros", np.int8)
    weight = g.op("DequantizeLinear", integers, scales, zeros, axis=0)
    s.add(g.op("Conv", real, weight, g.vector(filters), kernel_shape=[1, 1]), n, filters, h, w)


def best(s: State) -> None:
    """The best pixels of every channel (TopK), or what another map holds at them; or the best channel of a pixel."""
    x = s.take(4, lambda t: s.g.opset >= 11 and t.shape[1] > 1 and t.shape[2] * t.shape[3] >= 3)
    if x is None:
        return
    n, c, h, w = x.shape
    g = s.g
    kind = s.choose.pick(["pixels", "elsewhere", "channels", "table"])
    if kind == "channels":
        s.add(g.ops("TopK", x.name, g.ints(min(c, 2)), outputs=2, axis=1)[0], n, min(c, 2), h, w)
        return
    if kind == "table":
        which = g.op("ArgMax", conv_of(s, x, 4).name, axis=1, keepdims=0)
        wide = s.choose.integer(2, 5)
        rows = g.op("Gather", g.weight(4, wide, fan_in=1), which, axis=0)
        s.add(g.op("Transpose", rows, perm=[0, 3, 1, 2]), n, wide, h, w)
        return
    flat = g.op("Reshape", x.name, g.ints(0, 0, -1))
    count = s.choose.integer(1, 3)
    values, at = g.ops("TopK", flat, g.ints(count), outputs=2, axis=2)
    if kind == "elsewhere":
        other = g.op("Reshape", conv_of(s, x, c).name, g.ints(0, 0, -1))
        values = g.op("GatherElements", other, at, axis=2)
    s.add(values, n, c, count)


def peaks(s: State) -> None:
    """Suppression of all but local maxima, spelled out by pooling and comparing."""
    x = s.take(4, lambda t: s.g.opset >= 11 and min(t.shape[2:]) >= 3)
    if x is None:
        return
    g = s.g
    pooled = g.op("MaxPool", x.name, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    found = g.op("Equal", pooled, x.name)
    if s.flag():
        s.add(g.op("Where", found, x.name, _scalar(s, 0.0)), *x.shape)
    else:
        s.add(g.op("Mul", g.op("Cast", found, to=FLOAT), x.name), *x.shape)


def boxes(s: State) -> None:
    """A detector's head: boxes and scores of every pixel, and which of them non-maximum suppression leaves."""
    x = s.take(4, lambda t: s.g.opset >= 11 and not s.dynamic)
    if x is None:
        return
    n, _, h, w = x.shape
    g = s.g
    classes = s.choose.integer(1, 3)
    centre = _flat(s, conv_of(s, x, 2))
    size = g.op("Abs", _flat(s, conv_of(s, x, 2)))
    corners = g.op("Concat", g.op("Sub", centre, size), g.op("Add", centre, size), axis=1)
    listed = g.op("Transpose", corners, perm=[0, 2, 1])
    scores = g.op("Sigmoid", _flat(s, conv_of(s, x, classes)))
    most, overlap, least = g.constant([3], dtype=np.int64), g.constant([0.4], dtype=np.float32), g.vector(1)
    found = g.op("NonMaxSuppression", listed, scores, most, overlap, least)
    kept = g.op("Gather", g.op("Reshape", listed, g.ints(-1, 4)), _column(s, found, 2), axis=0)
    g.output(kept, ["boxes" + kept, 4])
    g.output(found, ["boxes" + kept, 3], INT64)
    s.add(scores, n, classes, h * w)


def _flat(s: State, x: Tensor) -> str:
    n, c, h, w = x.shape
    return s.g.op("Reshape", x.name, s.g.ints(n, c, h * w))


def _column(s: State, table: str, column: int) -> str:
    return s.g.op("Gather", table, s.g.constant(column, dtype=np.int64), axis=1)


SELECTING_BLOCKS: tuple[Block, ...] = (threshold, threshold, spiking, rounded, quantised, quantised, best, peaks, boxes)
