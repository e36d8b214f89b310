"""State that is handed from run to run shrinks with the layers that keep it, where that is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import onnxprune
from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.explain import coupling_graph, explain
from onnxprune.errors import PlanError, UsageError
from onnxprune.ir.model import Model, load
from onnxprune.ir.session import Session, random_inputs
from onnxprune.ir.state import proposed_pairs
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.masking import masked
from onnxprune.pruning.plan import Plan
from tests.cli.support import done, done_json, refused
from tests.helpers import GraphBuilder
from tests.ops.certifying import linear

_HIDDEN = 12


def _recurrent(op_type: str) -> onnx.ModelProto:
    """One layer, whose states come in and go out, and what reads it."""
    g, gates = GraphBuilder(), {"GRU": 3, "LSTM": 4}[op_type]
    x = linear(g, g.input("x", ["time", "batch", 3]), 3, 6)
    states = [g.input(f"{name}0", [1, "batch", _HIDDEN]) for name in ("h", "c")[: gates - 2]]
    w, r = g.weight(1, gates * _HIDDEN, 6, fan_in=6), g.weight(1, gates * _HIDDEN, _HIDDEN, fan_in=_HIDDEN)
    names = ["y", "hn", "cn"][: gates - 1]
    operands = [x, w, r, g.vector(1, 2 * gates * _HIDDEN), "", *states]
    g.nodes.append(helper.make_node(op_type, operands, names, name="cell", hidden_size=_HIDDEN))
    g.output(linear(g, "y", _HIDDEN, 4), ("time", 1, "batch", 4))
    for name in names[1:]:
        g.output(name, (1, "batch", _HIDDEN))
    return g.model()


def _elman() -> onnx.ModelProto:
    """A cell in plain operators."""
    g = GraphBuilder()
    seen, kept = (
        linear(g, g.input("x", ["n", 5]), 5, _HIDDEN),
        linear(g, g.input("state", ["n", _HIDDEN]), _HIDDEN, _HIDDEN),
    )
    g.nodes.append(helper.make_node("Tanh", [g.op("Add", seen, kept)], ["stateN"], name="cell"))
    g.output(linear(g, "stateN", _HIDDEN, 4), ("n", 4))
    g.output("stateN", ("n", _HIDDEN))
    return g.model()


def _decoder(heads: int = 2, width: int = 8) -> onnx.ModelProto:
    """Attention over what is new and what is remembered: keys and values grow from step to step."""
    g, size = GraphBuilder(), heads * width
    x = g.input("x", [1, "new", 6])

    def split(units: str) -> str:
        return g.op("Transpose", g.op("Reshape", units, g.ints(1, -1, heads, width)), perm=[0, 2, 1, 3])

    queries = split(linear(g, x, 6, size))
    cached = {}
    for kind in ("key", "value"):
        past = g.input(f"past.0.{kind}", [1, heads, "past", width])
        g.nodes.append(
            helper.make_node("Concat", [past, split(linear(g, x, 6, size))], [f"present.0.{kind}"], axis=2, name=kind)
        )
        cached[kind] = f"present.0.{kind}"
    scores = g.op("MatMul", queries, g.op("Transpose", cached["key"], perm=[0, 1, 3, 2]))
    read = g.op("MatMul", g.op("Softmax", scores, axis=-1), cached["value"])
    joined = g.op("Reshape", g.op("Transpose", read, perm=[0, 2, 1, 3]), g.ints(1, -1, size))
    g.output(linear(g, joined, size, 6), (1, "new", 6))
    for name in cached.values():
        g.output(name, (1, heads, "all", width))
    return g.model()


_MODELS = {"gru": _recurrent("GRU"), "lstm": _recurrent("LSTM"), "elman": _elman(), "decoder": _decoder()}


def _cut(analysis: Analysis, removed: Any, name: str, value: NDArray[Any]) -> NDArray[Any]:
    coupling = analysis.coupling
    for dim, axis in enumerate(coupling.axes.axes_of(name, value.ndim) if name in coupling.axes else ()):
        if axis in coupling.class_of:
            value = np.delete(value, removed[coupling.class_of[axis]], axis=dim)
    return value


def _assert_steps_agree(analysis: Analysis, plan: Plan, pruned: Model, steps: int = 3) -> None:
    """Each run of the pruned model starts from its own state, as in use."""
    removed = removed_per_class(analysis, plan)
    reference, result = Session(masked(analysis, removed), "masked"), Session(pruned, "pruned")
    followed: dict[str, Mapping[str, NDArray[Any]]] = {"masked": {}, "pruned": {}}
    for step in range(steps):
        fresh = random_inputs(analysis.model, analysis.shapes.binding, seed=step)
        expected = reference.run({**fresh, **followed["masked"]})
        got = result.run({**{n: _cut(analysis, removed, n, v) for n, v in fresh.items()}, **followed["pruned"]})
        for name, value in expected.items():
            np.testing.assert_allclose(got[name], _cut(analysis, removed, name, value), rtol=1e-4, atol=1e-5)
        followed = {
            "masked": {pair.input: expected[pair.output] for pair in analysis.state},
            "pruned": {pair.input: got[pair.output] for pair in analysis.state},
        }


@pytest.mark.parametrize("name", _MODELS)
def test_state_shrinks_with_what_keeps_it(name: str) -> None:
    analysis = onnxprune.analyze(_MODELS[name], state="auto")
    plan = onnxprune.plan(analysis, channels=0.5)
    assert plan.state == dict(analysis.state)
    pruned = onnxprune.apply(analysis.model, Plan.from_dict(plan.to_dict()))
    declared = {value.name: value for value in (*pruned.graph.input, *pruned.graph.output)}
    for pair in analysis.state:
        before = analysis.shapes.extents[pair.input]
        for border in pair:
            assert declared[border].type.tensor_type.shape.dim[len(before) - 1].dim_value == before[-1] // 2
    _assert_steps_agree(analysis, plan, pruned)


@pytest.mark.parametrize("name", _MODELS)
def test_state_stays_as_it_is_unless_asked_for(name: str) -> None:
    analysis = onnxprune.analyze(_MODELS[name])
    assert analysis.proposed_state == proposed_pairs(load(_MODELS[name]))
    assert analysis.proposed_state
    for pair in analysis.proposed_state:
        borders = (f"graph input '{pair.input}'", f"graph output '{pair.output}'")
        assert any(border in pin.reason for pin in analysis.pins for border in borders)


def test_a_state_that_is_left_out_holds_the_units() -> None:
    analysis = onnxprune.analyze(_MODELS["lstm"], state={"h0": "hn"})
    (layer,) = (layer for layer in analysis.layers if layer.op_type == "LSTM")
    assert layer.prunable == 0
    assert any("'c0'" in reason or "'cn'" in reason for reason in layer.pinned)


def test_explanations_name_the_state() -> None:
    analysis = onnxprune.analyze(_MODELS["elman"], state={"state": "stateN"})
    (bundle,) = explain(analysis, analysis.layers[0].name).bundles
    steps = {step.op_type for coupled in bundle.axes for step in coupled.path}
    assert "State" in steps
    assert any("state" in data["nodes"].split(", ") for *_, data in coupling_graph(analysis).edges(data=True))


@pytest.mark.parametrize(
    ("inputs", "outputs", "pairs"),
    [
        (["h0", "c0"], ["hn", "cn"], {"h0": "hn", "c0": "cn"}),
        (["h", "c"], ["hn", "cn"], {"h": "hn", "c": "cn"}),
        (["past_key_values.0.key"], ["present.0.key"], {"past_key_values.0.key": "present.0.key"}),
        (["past_0", "past_1"], ["present_1", "present_0"], {"past_0": "present_0", "past_1": "present_1"}),
        (["state"], ["stateN"], {"state": "stateN"}),
        (["prev_cache"], ["next_cache"], {"prev_cache": "next_cache"}),
        (["lstm_in_h"], ["lstm_out_h"], {"lstm_in_h": "lstm_out_h"}),
        (["input"], ["output"], {}),
        (["image", "mask"], ["logits", "boxes"], {}),
    ],
)
def test_names_propose(inputs: list[str], outputs: list[str], pairs: dict[str, str]) -> None:
    nodes = [helper.make_node("Identity", [inputs[0]], [name]) for name in outputs]
    borders = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in names] for names in (inputs, outputs)
    ]
    model = helper.make_model(helper.make_graph(nodes, "test", *borders))
    assert dict(proposed_pairs(load(model))) == pairs


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        ({"x": "hn"}, "dimension"),
        ({"h1": "hn"}, "no input 'h1'; those it has are: x, h0"),
        ({"h0": "hm"}, "no output 'hm'"),
        ("h0=hn", "maps inputs to outputs"),
    ],
)
def test_what_cannot_be_state(state: Any, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        onnxprune.analyze(_MODELS["gru"], state=state)


def test_plans_say_what_state_is() -> None:
    data = onnxprune.plan(_MODELS["gru"], state="auto", channels=0.5).to_dict()
    with pytest.raises(PlanError, match='"state" must map'):
        Plan.from_dict({**data, "settings": {**data["settings"], "state": ["h0"]}})


def test_command_line(tmp_path: Path) -> None:
    source = tmp_path / "gru.onnx"
    onnx.save(_MODELS["gru"], source)
    assert done_json("analyze", source)["proposed_state"] == {"h0": "hn"}
    assert done_json("analyze", source, "--state", "h0=hn")["state"] == {"h0": "hn"}
    assert "IN=OUT" in refused(2, "analyze", source, "--state", "h0")
    assert "alone" in refused(2, "analyze", source, "--state", "auto", "--state", "h0=hn")
    plan, page = tmp_path / "plan.json", tmp_path / "page.html"
    done(
        "prune",
        source,
        "-o",
        tmp_path / "small.onnx",
        "--state",
        "auto",
        "--channels",
        "0.5",
        "--plan-out",
        plan,
        "--no-verify",
    )
    done("report", source, "--plan", plan, "--no-verify", "-o", page)
    done("report", source, tmp_path / "small.onnx", "--no-verify", "-o", page)
