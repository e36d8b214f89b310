"""A clock and a machine whose times are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import onnxprune
from onnxprune.ir.model import Model
from onnxprune.ir.sampling import Rounds
from onnxprune.ir.tracing import NodeTime, Trace
from onnxprune.latency.layer_models import Point
from onnxprune.latency.layers import LayerCase, Widths, layer_cases


class FakeClock:
    """Seconds that pass only when somebody lets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float) -> Callable[[], object]:
        """A subject whose runs take these times, one after the other and again from the start."""
        runs = 0

        def run() -> object:
            nonlocal runs
            self.now += seconds[runs % len(seconds)]
            runs += 1
            return None

        return run


@dataclass
class FakeMachine:
    """A machine whose times follow from the elements of weights: known exactly, and measured at once.

    Attributes:
        lanes: widths that are no multiple of this make a layer take half as long again.
        bend: whole models deviate from the sum of their parts: (time / unpruned) ** bend of the unpruned time.
        noise: the times of a round are multiplied by 1 plus up to this, different for every model.
        busy: operators take so many times as long under the profiler.
        asked: every point that was measured.
    """

    lanes: int = 1
    bend: float = 1.0
    noise: float = 0.0
    busy: float = 1.0
    name: str = "fake"
    asked: list[Point] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, str]:
        return {"processor": self.name}

    def points(self, points: Sequence[Point]) -> list[float | None]:
        self.asked.extend(points)
        return [self.layer(p.case, p.case.complete(p.widths)) for p in points]

    def layer(self, case: LayerCase, widths: Widths) -> float:
        """1 µs, and 1 ns per element of the weight."""
        weight = case.operands[1]
        assert weight is not None
        shape = weight.shape(widths)
        uneven = any(extent % self.lanes for extent in shape[:2] if extent > 3)
        return (1e-6 + 1e-9 * math.prod(shape)) * (1.5 if uneven else 1.0)

    def trace(self, model: Model, inputs: Mapping[str, Any]) -> Trace:
        analysis = onnxprune.analyze(model)
        nodes = [NodeTime(c.node.name, "FusedConv", self.layer(c, c.full)) for c in layer_cases(analysis) if c]
        nodes.append(NodeTime("others", "Relu", 20e-6))
        return Trace(tuple(replace(node, seconds=self.busy * node.seconds) for node in nodes), self.busy * 10e-6)

    def time(self, model: Model) -> float:
        """The sum of all parts; activation functions in proportion to their channels."""
        analysis = onnxprune.analyze(model)
        channels = sum(math.prod(n.out_shape()) for n in analysis.graph.nodes if n.op_type == "Relu")
        relus = 20e-6 * (channels / self._relus if self._relus else 1.0)
        return sum(self.layer(c, c.full) for c in layer_cases(analysis) if c) + 10e-6 + relus

    def rounds(self, models: Sequence[Model], inputs: Mapping[str, Any], rounds: Rounds) -> NDArray[np.float64]:
        first = onnxprune.analyze(models[0])
        self._relus = sum(math.prod(n.out_shape()) for n in first.graph.nodes if n.op_type == "Relu")
        times = np.array([self.time(model) for model in models])
        bent = times[0] * (times / times[0]) ** self.bend
        rng = np.random.default_rng(0)
        result: NDArray[np.float64] = bent * (1 + self.noise * rng.uniform(size=(rounds.least, len(models))))
        return result
