"""Networks of any number of nodes: residual, dense and transformer graphs with narrow layers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
CHANNELS = 16
"""Of a residual stream, and of what enters a dense block."""
GROWTH = 8
"""Channels that every layer of a dense block adds."""
DEPTH = 16
"""Layers of a dense block: as in DenseNets a transition follows, so that the operands grow with the nodes."""
WIDTH, HEADS, LENGTH = 32, 4, 8
"""Of a transformer: width of the stream, attention heads, tokens."""


class Builder:
    """Nodes and weights in the making."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def node(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Add a node; returns its only output."""
        name = f"{op_type.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def weight(self, *shape: int) -> str:
        """Add random values."""
        return self._add(self._random.standard_normal(shape, dtype=np.float32))

    def ints(self, *values: int) -> str:
        """Add an operand."""
        return self._add(np.array(values, dtype=np.int64))

    def model(self, shape: tuple[int, ...], output: str, output_shape: tuple[int, ...]) -> onnx.ModelProto:
        """The model from ``input`` to a tensor, with their shapes."""
        graph = helper.make_graph(
            self.nodes,
            "generated",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)

    def conv(self, x: str, channels: int, filters: int, size: int = 3) -> str:
        """A convolution that keeps the image's size."""
        weight, bias = self.weight(filters, channels, size, size), self.weight(filters)
        return self.node("Conv", x, weight, bias, kernel_shape=[size, size], pads=[size // 2] * 4)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A matrix product and a bias."""
        return self.node("Add", self.node("MatMul", x, self.weight(inputs, outputs)), self.weight(outputs))

    def norm(self, x: str, width: int) -> str:
        """LayerNormalization over the last dimension."""
        return self.node("LayerNormalization", x, self.weight(width), self.weight(width), axis=-1)

    def _add(self, array: NDArray[np.generic]) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name


def residual(nodes: int) -> onnx.ModelProto:
    """Blocks of Conv, Relu, Conv, Add, Relu on streams of four blocks each."""
    build = Builder()
    x = build.conv("input", 3, CHANNELS)
    block = 0
    while len(build.nodes) < nodes - 1:
        inner = build.node("Relu", build.conv(x, CHANNELS, CHANNELS))
        x = build.node("Relu", build.node("Add", x, build.conv(inner, CHANNELS, CHANNELS)))
        block += 1
        if block % 4 == 0:
            x = build.node("Relu", build.conv(x, CHANNELS, CHANNELS, 1))
    return build.model((1, 3, 8, 8), build.conv(x, CHANNELS, 10, 1), (1, 10, 8, 8))


def dense(nodes: int) -> onnx.ModelProto:
    """Blocks whose layers (Concat, Relu, Conv) read all layers before them, as in DenseNets."""
    build = Builder()
    x = build.conv("input", 3, CHANNELS)
    while len(build.nodes) < nodes - 1:
        parts, channels = [x], CHANNELS
        for _ in range(DEPTH):
            joined = build.node("Concat", *parts, axis=1)
            parts.append(build.conv(build.node("Relu", joined), channels, GROWTH))
            channels += GROWTH
        x = build.node("Relu", build.conv(build.node("Concat", *parts, axis=1), channels, CHANNELS, 1))
    return build.model((1, 3, 8, 8), build.conv(x, CHANNELS, 10, 1), (1, 10, 8, 8))


def nested(nodes: int) -> onnx.ModelProto:
    """The same, but every Concat extends the one before it: concatenations of concatenations."""
    build = Builder()
    x = build.conv("input", 3, CHANNELS)
    while len(build.nodes) < nodes - 1:
        channels = CHANNELS
        for _ in range(DEPTH):
            x = build.node("Concat", x, build.conv(build.node("Relu", x), channels, GROWTH), axis=1)
            channels += GROWTH
        x = build.node("Relu", build.conv(x, channels, CHANNELS, 1))
    return build.model((1, 3, 8, 8), build.conv(x, CHANNELS, 10, 1), (1, 10, 8, 8))


def transformer(nodes: int) -> onnx.ModelProto:
    """Layers of attention over heads and of two linear layers, normalised first."""
    build = Builder()
    x = build.linear("input", 10, WIDTH)
    while len(build.nodes) < nodes - 2:
        normal = build.norm(x, WIDTH)
        query, key, value = (_heads(build, build.linear(normal, WIDTH, WIDTH), key=part == 1) for part in range(3))
        weights = build.node("Softmax", build.node("MatMul", query, key), axis=-1)
        joined = build.node("Transpose", build.node("MatMul", weights, value), perm=[0, 2, 1, 3])
        merged = build.node("Reshape", joined, build.ints(1, LENGTH, WIDTH))
        x = build.node("Add", x, build.linear(merged, WIDTH, WIDTH))
        inner = build.node("Relu", build.linear(build.norm(x, WIDTH), WIDTH, 2 * WIDTH))
        x = build.node("Add", x, build.linear(inner, 2 * WIDTH, WIDTH))
    return build.model((1, LENGTH, 10), build.linear(x, WIDTH, 10), (1, LENGTH, 10))


def shapely(nodes: int) -> onnx.ModelProto:
    """Transformers as TorchScript writes them: every Reshape target is computed from extents."""
    build = Builder()
    x = build.linear("input", 10, WIDTH)
    while len(build.nodes) < nodes - 2:
        batch = build.node("Gather", build.node("Shape", x), build.ints(0), axis=0)
        length = build.node("Gather", build.node("Shape", x), build.ints(1), axis=0)
        split = build.node("Concat", batch, length, build.ints(HEADS), build.ints(WIDTH // HEADS), axis=0)
        heads = build.node("Reshape", build.linear(x, WIDTH, WIDTH), split)
        turned = build.node("Transpose", heads, perm=[0, 2, 1, 3])
        back = build.node("Transpose", build.node("Relu", turned), perm=[0, 2, 1, 3])
        width = build.node("Mul", build.ints(HEADS), build.ints(WIDTH // HEADS))
        merged = build.node("Reshape", back, build.node("Concat", batch, length, width, axis=0))
        x = build.node("Add", x, build.linear(merged, WIDTH, WIDTH))
    return build.model((1, LENGTH, 10), build.linear(x, WIDTH, 10), (1, LENGTH, 10))


def _heads(build: Builder, x: str, key: bool) -> str:
    """Split the width into heads: (batch, heads, tokens, width) or, for keys, (batch, heads, width, tokens)."""
    split = build.node("Reshape", x, build.ints(1, LENGTH, HEADS, WIDTH // HEADS))
    return build.node("Transpose", split, perm=[0, 2, 3, 1] if key else [0, 2, 1, 3])


NETWORKS: dict[str, Callable[[int], onnx.ModelProto]] = {
    "residual": residual,
    "dense": dense,
    "dense, nested": nested,
    "transformer": transformer,
    "computed shapes": shapely,
}
"""Of at least so many nodes, and few more."""
