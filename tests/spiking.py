"""A small spiking network, unrolled over time as exporters write it."""

from __future__ import annotations

import numpy as np

import onnxprune
from onnxprune.ir.model import Model
from tests.helpers import GraphBuilder

CLASSES, FLOAT, STEPS = 4, 1, 3


def spiking(kind: str = "cast", *, batch: int | str = "n", steps: int = STEPS) -> Model:
    """Two convolutions between leaky neurons, unrolled over time, and the mean potential of a read-out."""
    g = GraphBuilder(17, seed=0)
    x = g.input("x", (batch, 1, 8, 8))
    first, bias, second, other = g.weight(8, 1, 3, 3), g.vector(8), g.weight(8, 8, 3, 3), g.vector(8)
    out, last = g.weight(CLASSES, 8 * 16), g.vector(CLASSES)
    limit, leak, one, zero = (g.constant(v, dtype=np.float32) for v in (0.5, 0.8, 1.0, 0.0))

    def fired(potential: str) -> str:
        above = g.op(
            "Less" if kind == "less" else "Greater", *((limit, potential) if kind == "less" else (potential, limit))
        )
        if kind == "where":
            return g.op("Where", above, one, zero)
        if kind == "logic":
            above = g.op(
                "And", g.op("Not", g.op("LessOrEqual", potential, limit)), g.op("GreaterOrEqual", potential, limit)
            )
        if kind == "sign":
            half = g.constant(0.5, dtype=np.float32)
            return g.op("Add", g.op("Mul", g.op("Sign", g.op("Sub", potential, limit)), half), half)
        return g.op("Cast", above, to=FLOAT)

    def step(current: str, potential: str | None) -> tuple[str, str]:
        new = current if potential is None else g.op("Add", g.op("Mul", potential, leak), current)
        spikes = fired(new)
        return spikes, g.op("Sub", new, g.op("Mul", spikes, limit))

    states: list[str | None] = [None, None]
    total = None
    for _ in range(steps):
        h, states[0] = step(g.op("Conv", x, first, bias, pads=[1, 1, 1, 1], strides=[2, 2]), states[0])
        h, states[1] = step(g.op("Conv", h, second, other, pads=[1, 1, 1, 1]), states[1])
        y = g.op("Gemm", g.op("Flatten", h), out, last, transB=1)
        total = y if total is None else g.op("Add", total, y)
    assert total is not None
    g.output(total, (batch, CLASSES))
    return onnxprune.load(g.model())
