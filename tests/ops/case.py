"""What a case of an operator is, and what stands before and after the operator in its graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from tests.helpers import GraphBuilder

#: Extents are odd and differ from each other, so that no axis can be taken for another.
BATCH, CHANNELS, HEIGHT, WIDTH, LENGTH = 2, 6, 7, 5, 3
NEWEST = 23

Build = Callable[[GraphBuilder], None]


@dataclass(frozen=True)
class Case:
    """A graph around one or more operators.

    ``operators`` are those it covers: it is built at every opset at which one of them was revised, from ``since``
    to ``until``. ``pinned`` is a word of the reason for which channels of the first layer must stay; ``exact``
    whether removing others leaves what kept channels compute as it is; ``none_left`` whether no channel may go.
    """

    name: str
    operators: tuple[str, ...]
    build: Build
    exact: bool = True
    pinned: str = ""
    none_left: bool = False
    since: int = 7
    until: int = NEWEST
    domain: str = ""

    def __str__(self) -> str:
        return self.name


def tied(name: str, operators: str, build: Build, since: int = 7, until: int = NEWEST) -> Case:
    """A case in which all channels may go, exactly."""
    return Case(name, tuple(operators.split()), build, since=since, until=until)


def approximate(name: str, operators: str, build: Build, since: int = 7, until: int = NEWEST) -> Case:
    """A case in which channels may go, but change what kept ones compute."""
    return Case(name, tuple(operators.split()), build, exact=False, since=since, until=until)


def partly(name: str, operators: str, pinned: str, build: Build, since: int = 7, until: int = NEWEST) -> Case:
    """A case in which some channels have to stay."""
    return Case(name, tuple(operators.split()), build, pinned=pinned, since=since, until=until)


def fixed(name: str, operators: str, pinned: str, build: Build, since: int = 7, until: int = NEWEST) -> Case:
    """A case in which all channels have to stay."""
    return Case(name, tuple(operators.split()), build, pinned=pinned, none_left=True, since=since, until=until)


def _declare(g: GraphBuilder, *shape: int) -> None:
    if all(known.name != "x" for known in g.inputs):
        g.input("x", shape)


def feature_map(g: GraphBuilder, channels: int = CHANNELS) -> str:
    """A convolution of the graph input: (2, channels, 7, 5)."""
    _declare(g, BATCH, 3, HEIGHT, WIDTH)
    weight, bias = g.weight(channels, 3, 3, 3), g.vector(channels)
    return g.op("Conv", "x", weight, bias, kernel_shape=[3, 3], pads=[1] * 4)


def read_map(g: GraphBuilder, y: str, channels: int = CHANNELS) -> None:
    """A convolution that reads a map of so many channels, as an output."""
    g.output(g.op("Conv", y, g.weight(4, channels, 1, 1), kernel_shape=[1, 1]))


def sequence(g: GraphBuilder, width: int = CHANNELS) -> str:
    """A dense layer on tokens of the graph input: (2, 3, width)."""
    _declare(g, BATCH, LENGTH, 5)
    return g.op("Add", g.op("MatMul", "x", g.weight(5, width, fan_in=5)), g.vector(width))


def read_last(g: GraphBuilder, y: str, width: int = CHANNELS) -> None:
    """A dense layer over the last dimension, as an output."""
    g.output(g.op("MatMul", y, g.weight(width, 4, fan_in=width)))


def vectors(g: GraphBuilder, width: int = CHANNELS) -> str:
    """A dense layer of the graph input: (2, width)."""
    _declare(g, BATCH, 5)
    return g.op("Gemm", "x", g.weight(width, 5), g.vector(width), transB=1)


def as_float(g: GraphBuilder, y: str) -> str:
    """Cast to float."""
    return g.op("Cast", y, to=TensorProto.FLOAT)


def scalar(g: GraphBuilder, value: float) -> str:
    """A float constant without dimensions."""
    return g.constant(value, dtype=np.float32)


def unit(g: GraphBuilder, y: str) -> str:
    """Values between -0.9 and 0.9."""
    return g.op("Mul", g.op("Tanh", y), scalar(g, 0.9))


def positive(g: GraphBuilder, y: str, least: float = 0.5) -> str:
    """Values between ``least`` and ``least + 1``."""
    return g.op("Add", g.op("Sigmoid", y), scalar(g, least))
