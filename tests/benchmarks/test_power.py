"""The oracle of the study of power: it tells what moves from what does not, and the study counts right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import onnxprune
from onnxprune.pruning.mutations import Kind, Mutation
from tests.benchmarks.power import measure
from tests.benchmarks.power_oracle import Oracle, Verdict
from tests.benchmarks.power_page import page
from tests.helpers import GraphBuilder


def _oracle(bias: list[float]) -> tuple[Oracle, onnxprune.Model, str]:
    """Two convolutions with a Relu between them, and the first one's bias."""
    g = GraphBuilder(17)
    name = g.constant(bias, "bias", np.float32)
    x = g.op("Relu", g.op("Conv", g.input("x", [1, 3, 5, 5]), g.weight(len(bias), 3, 1, 1), name))
    g.output(g.op("Conv", x, g.weight(2, len(bias), 1, 1)), [1, 2, 5, 5])
    model = onnxprune.load(g.model())
    return Oracle(model, onnxprune.analyze(model)), model, name


def _with(name: str, values: list[float]) -> Mutation:
    new = np.array(values, dtype=np.float32)
    return Mutation(Kind.DROPPED_BIAS, "Conv", name, None, (), "by hand", edit=lambda array: new)


def test_the_oracle_sees_what_moves() -> None:
    """Another bias moves tensors; a zero of the other sign moves nothing, and its node says so, too."""
    oracle, model, name = _oracle([-0.0, 0.5, 1.0])
    moved, same = _with(name, [0.0, 0.6, 1.0]), _with(name, [0.0, 0.5, 1.0])
    assert oracle.verdict(moved, moved.apply(model)) is Verdict.MOVES
    assert oracle.verdict(same, same.apply(model)) is Verdict.EQUIVALENT


def test_the_oracle_does_not_call_equivalent_what_inputs_do_not_reach() -> None:
    """Behind a dead Relu nothing moves, but the convolution alone, fed with a live channel, tells filters apart."""
    oracle, model, _ = _oracle([-1e6, -2e6, 1.0])
    name = model.graph.node[-1].input[1]
    changed = model.weights[name].array.copy()
    changed[:, [0, 1]] = changed[:, [1, 0]]
    fault = Mutation(Kind.SWAPPED_INPUTS, "Conv", name, 1, (0, 1), "by hand", edit=lambda array: changed)
    assert oracle.verdict(fault, fault.apply(model)) is Verdict.HIDDEN


def test_the_study_counts(tmp_path: Path) -> None:
    """Every fault is refused, equivalent, or shown to both checks; the page says what passed."""
    g = GraphBuilder(17)
    x = g.op("Conv", g.input("x", [1, 3, 5, 5]), g.weight(8, 3, 1, 1), g.vector(8))
    g.output(g.op("Conv", g.op("Relu", x), g.weight(2, 8, 1, 1)), [1, 2, 5, 5])
    path = tmp_path / "zoo" / "small.onnx"
    path.parent.mkdir()
    onnx.save(g.model(), path)
    row = measure(path, 30, 0, None)
    assert not row.error
    assert row.drawn == row.refused + row.equivalent + row.faults == 30
    assert row.by_outputs > 0
    assert "zoo/small" in page([row])
