"""Extents of open dimensions that the graph asks for, and those that are found by running the model."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.analysis import binding
from onnxprune.ir import trying
from onnxprune.ir.extents import OpenExtent, Origin
from tests.helpers import GraphBuilder
from tests.ops.certifying import linear
from tests.zoo import sources


def _found(model: onnx.ModelProto) -> dict[tuple[str, int], OpenExtent]:
    return {(one.tensor, one.dim): one for one in onnxprune.analyze(model).shapes.bound.open}


def _no_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("onnxruntime was asked")

    monkeypatch.setattr(trying, "Session", refuse)


def _multiples(of: int) -> onnx.ModelProto:
    """Cuts a sequence into pieces of a fixed length."""
    g = GraphBuilder()
    pieces = g.op("Reshape", g.input("x", [1, "length"]), g.ints(1, -1, of))
    g.output(linear(g, linear(g, pieces, of, 8), 8, 3), (1, "pieces", 3))
    return g.model()


def test_a_matmul_asks_for_the_length_that_its_weight_has() -> None:
    g = GraphBuilder()
    g.output(linear(g, linear(g, g.input("x", ["n", "k"]), 12, 8), 8, 3), ("n", 3))
    found = _found(g.model())["x", 1]
    assert (found.extent, found.origin) == (12, Origin.ASKED)
    assert "MatMul" in found.why


def test_a_concat_asks_for_what_stands_beside() -> None:
    g = GraphBuilder()
    both = g.op("Concat", g.input("x", ["n", 8, "h"]), g.input("y", ["m", 4, 21]), axis=1)
    g.output(g.op("Conv", g.op("Conv", both, g.weight(6, 12, 1)), g.weight(2, 6, 1)), ("n", 2, 21))
    found = _found(g.model())
    assert (found["x", 2].extent, found["x", 2].origin) == (21, Origin.ASKED)
    assert found["y", 0].symbol == found["x", 0].symbol


@pytest.mark.parametrize("op_type", ["GRU", "LSTM"])
def test_the_state_of_a_recurrent_layer_has_the_batch_of_its_input(op_type: str) -> None:
    g, gates = GraphBuilder(), {"GRU": 3, "LSTM": 4}[op_type]
    x = g.op("Transpose", g.input("x", ["batch", "time", 5]), perm=[1, 0, 2])
    states = [g.input(name, [None, None, None]) for name in ("h", "c")[: gates - 2]]  # type: ignore[list-item]
    w, r = g.weight(1, gates * 7, 5), g.weight(1, gates * 7, 7)
    y = g.ops(op_type, x, w, r, "", "", *states, outputs=2, hidden_size=7)
    g.output(y[0], (None, 1, None, 7))  # type: ignore[arg-type]
    found = _found(g.model())
    for state in states:
        assert (found[state, 2].extent, found[state, 2].origin) == (7, Origin.ASKED)
        assert found[state, 1].symbol == "batch"
        assert op_type in found[state, 1].why
        assert found[state, 1].extent == 1


def test_grouped_channels() -> None:
    g = GraphBuilder()
    summed = g.op("Add", g.input("x", ["n", "c", 8, 8]), g.constant(1.0, dtype=np.float32))
    g.output(g.op("Conv", g.op("Conv", summed, g.weight(8, 3, 1, 1), group=2), g.weight(4, 8, 1, 1)), ("n", 4, 8, 8))
    assert _found(g.model())["x", 1].extent == 6


def test_lengths_that_do_not_run_are_changed_until_they_do() -> None:
    analysis = onnxprune.analyze(_multiples(of=48))
    bound = analysis.shapes.bound
    assert bound.shapes["x"] == (1, 480)
    assert bound.open[0].origin is Origin.TRIED
    assert bound.trial is not None
    assert bound.trial.fault is None
    assert "found by trying" in " ".join(bound.in_words())
    assert analysis.coupling.groups


def test_lengths_that_depend_on_each_other() -> None:
    """An attention mask as long as what is remembered and what is new, under names that do not say so."""
    g = GraphBuilder()
    past, new = g.input("past", [1, "a", 8]), g.input("new", [1, "b", 8])
    keys = g.op("Concat", past, linear(g, new, 8, 8), axis=1)
    masked = g.op("Mul", keys, g.op("Reshape", g.input("mask", [1, "m"]), g.ints(1, -1, 1)))
    g.output(linear(g, masked, 8, 3), (1, "m", 3))
    shapes = onnxprune.analyze(g.model()).shapes.binding
    assert shapes["mask"][1] == shapes["past"][1] + shapes["new"][1]


def test_a_length_that_the_exporter_has_written_down() -> None:
    g = GraphBuilder()
    pieces = g.op("Reshape", g.input("x", ["n", "length", 6]), g.ints(-1, 11, 2, 3))
    g.output(linear(g, pieces, 3, 2), ("n", 11, 2, 2))
    assert onnxprune.analyze(g.model()).shapes.binding["x"] == (1, 11, 6)


def test_seconds_of_sound() -> None:
    g = GraphBuilder()
    x = g.op("Conv", g.input("x", ["n", 1, "samples"]), g.weight(4, 1, 4000), strides=[1000])
    g.output(g.op("Conv", x, g.weight(2, 4, 3)), ("n", 2, "frames"))
    assert onnxprune.analyze(g.model()).shapes.binding["x"] == (1, 1, 8000)


def test_both_ways_of_an_input_that_chooses_run() -> None:
    """A sampling rate that is compared with a constant: the extents have to suit either branch."""
    g = GraphBuilder()
    x, rate = g.input("x", [1, "length"]), g.input("rate", [], onnx.TensorProto.INT64)
    fast = g.op("Equal", rate, g.constant(16000, dtype=np.int64))

    def branch(name: str, piece: int) -> Any:
        inner = GraphBuilder()
        shape = onnx.helper.make_tensor(f"{name}_shape", onnx.TensorProto.INT64, [2], [-1, piece])
        weight = onnx.numpy_helper.from_array(np.ones((piece, 4), np.float32), f"{name}_weight")
        pieces = inner.op("Reshape", x, f"{name}_shape")
        inner.nodes.append(onnx.helper.make_node("MatMul", [pieces, f"{name}_weight"], [name]))
        output = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        return onnx.helper.make_graph(inner.nodes, name, [], [output], [shape, weight])

    y = g.op("If", fast, then_branch=branch("then", 320), else_branch=branch("else", 64))
    g.output(y, (None, 4))  # type: ignore[arg-type]
    assert onnxprune.analyze(g.model()).shapes.binding["x"] == (1, 320)


def test_nothing_runs_where_nothing_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_running(monkeypatch)
    g = GraphBuilder()
    g.output(linear(g, linear(g, g.input("x", ["batch", 12]), 12, 8), 8, 3), ("batch", 3))
    onnxprune.analyze(g.model())
    onnxprune.analyze(_multiples(of=48), {"x": (1, 96)})
    assert onnxprune.analyze(_multiples(of=48), trials=False).shapes.binding["x"] == (1, 64)
    with pytest.raises(AssertionError, match="asked"):
        onnxprune.analyze(_multiples(of=48))


def test_what_was_tried_in_vain_is_named() -> None:
    bound = onnxprune.analyze(_multiples(of=7919)).shapes.bound
    assert bound.shapes["x"] == (1, 64)
    assert bound.trial is not None
    assert bound.trial.fault is not None
    said = " ".join(bound.in_words())
    assert "Reshape node. Name:'reshape_1'" in said
    assert re.search("tried were for input 'x' 1×64, .* and [0-9]+ more; give the shapes", said)


def test_a_plan_remembers_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    source = _multiples(of=48)
    plan = onnxprune.plan(source, channels=0.5)
    assert plan.settings["input_shapes"] == {"x": [1, 480]}
    _no_running(monkeypatch)
    pruned = onnxprune.apply(source, plan)
    assert onnxprune.verify(source, pruned, plan)


def test_one_search_serves_the_whole_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[int] = []
    search = binding.tried
    monkeypatch.setattr(binding, "tried", lambda *given: (searches.append(1), search(*given))[1])
    assert onnxprune.compress(_multiples(of=48), channels=0.5).certificate
    assert searches == [1]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in sources.NAMES if not name.startswith("light")])
def test_real_models_with_open_dimensions_run_without_being_told_shapes(name: str) -> None:
    try:
        path = sources.fetch(name)
    except sources.UnavailableError as error:
        pytest.skip(str(error))
    analysis = onnxprune.analyze(path)
    bound = analysis.shapes.bound
    assert bound.trial is None or bound.trial.fault is None
    assert not analysis.unknown
    assert onnxprune.compress(path, channels=0.5).certificate
