"""Channels inside the bodies of If, Loop and Scan: what stays inside is prunable, what crosses the border stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import GraphProto, TensorProto, helper

import onnxprune
from onnxprune.ir.control_flow import close_bodies, open_bodies
from onnxprune.ir.session import random_inputs
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.masking import masked
from tests.helpers import GraphBuilder, Pruned, run
from tests.ops.certifying import certify_often, conv, linear, reasons
from tests.zoo import sources

_CHANNELS = 6


class _Body(GraphBuilder):
    """A body; its names begin with ``prefix``, so that none is that of a tensor around it."""

    def __init__(self, prefix: str, opset: int = 17, seed: int = 1) -> None:
        super().__init__(opset, seed)
        self.prefix = prefix

    def name(self, base: str) -> str:
        return f"{self.prefix}{super().name(base)}"

    def unshaped(self, name: str) -> str:
        """Declare a body input without a shape."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        return name

    def graph(self, *outputs: str, shapes: Sequence[Sequence[int] | None] = ()) -> GraphProto:
        """The body, with these outputs; of float, unless they were declared before."""
        known = {info.name: info for info in self.outputs}
        infos = [
            known.get(name) or helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(outputs, shapes or [None] * len(outputs), strict=True)
        ]
        return helper.make_graph(self.nodes, f"{self.prefix}body", self.inputs, infos, self.initializers)


def _convolutions(x: str, prefix: str, seed: int = 1) -> GraphProto:
    """Conv, Relu, Conv: the channels between the two stay inside."""
    body = _Body(prefix, seed=seed)
    hidden = body.op("Relu", conv(body, x, _CHANNELS, 8, 3))
    return body.graph(conv(body, hidden, 8, 4))


def _choose(g: GraphBuilder, then: GraphProto, other: GraphProto, outputs: int = 1) -> list[str]:
    condition = g.op("Greater", g.op("ReduceMean", g.input("c", (3,)), keepdims=0), g.constant(0.0, dtype=np.float32))
    return g.ops("If", condition, outputs=outputs, then_branch=then, else_branch=other)


def _both_branches(result: Pruned) -> None:
    """The pruned model equals the masked original in either branch."""
    analysis = result.analysis
    reference = masked(analysis, removed_per_class(analysis, result.plan)).to_proto()
    for sign in (1.0, -1.0):
        feeds = random_inputs(analysis.model, analysis.shapes.binding, 0)
        feeds["c"] = np.full(3, sign, dtype=np.float32)
        for wanted, found in zip(run(reference, feeds), run(result.model.to_proto(), feeds), strict=True):
            assert np.abs(wanted).max() > 1e-3
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


def _bodies(model: onnxprune.Model) -> dict[str, GraphProto]:
    return {a.name: a.g for node in model.graph.node for a in node.attribute if a.HasField("g")}


def test_both_branches_with_the_same_names_and_a_captured_feature_map() -> None:
    g = GraphBuilder()
    x = g.op("Relu", conv(g, g.input("x", (1, 3, 8, 8)), 3, _CHANNELS, 3))
    (y,) = _choose(g, _convolutions(x, "b_", 1), _convolutions(x, "b_", 2))
    g.output(conv(g, y, 4, 5), (1, 5, 8, 8))
    model = g.model()
    node = next(node for node in g.nodes if node.op_type == "If").name
    weight = "b_conv0_0"
    second = f"{node}/then_branch:{weight}"
    result = certify_often(model, prunable=[(weight, 0), (second, 0), (x, 1), (weight, 1), (second, 1)])
    border = next(found for found in result.analysis.graph.nodes if found.op_type == "If")
    for crossing in border.inputs[1:]:
        assert reasons(result.analysis, crossing, 1) == {f"crosses the border of If '{node}'"}
    _both_branches(result)
    for body in _bodies(result.model).values():
        assert [node.op_type for node in body.node] == ["Conv", "Relu", "Conv"]


def test_weights_that_both_branches_capture_are_tied() -> None:
    g = GraphBuilder()
    x = g.input("x", (1, _CHANNELS, 8, 8))
    shared = g.weight(8, _CHANNELS, 1, 1, base="shared")
    branches = []
    for seed in (1, 2):
        body = _Body("b_", seed=seed)
        branches.append(body.graph(conv(body, body.op("Relu", body.op("Conv", x, shared)), 8, 4)))
    (y,) = _choose(g, *branches)
    g.output(y, (1, 4, 8, 8))
    model = g.model()
    result = certify_often(model, prunable=[(shared, 0)])
    _both_branches(result)


def test_nested_branches_and_what_the_inner_one_captures() -> None:
    g = GraphBuilder()
    x = g.input("x", (1, _CHANNELS, 8, 8))
    body = _Body("outer_")
    hidden = body.op("Relu", conv(body, x, _CHANNELS, _CHANNELS, 3))
    flag = body.op("Less", body.op("ReduceMean", hidden, keepdims=0), body.constant(0.5, dtype=np.float32))
    (z,) = body.ops(
        "If", flag, outputs=1, then_branch=_convolutions(hidden, "i_", 3), else_branch=_convolutions(hidden, "i_", 4)
    )
    (y,) = _choose(g, body.graph(z), _convolutions(x, "other_"))
    g.output(y, (1, 4, 8, 8))
    model = g.model()
    # The mean over the channels of ``hidden`` decides: exact equality needs it to stay, so it is approximate.
    result = certify_often(model, prunable=[("i_conv0_0", 0), ("other_conv0_0", 0)])
    _both_branches(result)


def test_fix_ups_stay_in_their_body() -> None:
    """A Reshape target that is computed from the shape, in the body, and holds the number of channels."""
    g = GraphBuilder()
    x = g.input("x", ("n", _CHANNELS, 4, 4))
    branches = []
    for seed in (1, 2):
        body = _Body("b_", seed=seed)
        hidden = body.op("Relu", conv(body, x, _CHANNELS, 8))
        batch = body.op("Slice", body.op("Shape", hidden), body.ints(0), body.ints(1))
        target = body.op("Concat", batch, body.op("Slice", body.op("Shape", hidden), body.ints(1), body.ints(2)),
                         body.ints(16), axis=0)  # fmt: skip
        flat = body.op("ReduceSum", body.op("Reshape", hidden, target), body.ints(2), keepdims=0)
        branches.append(body.graph(linear(body, flat, 8, 3)))
    (y,) = _choose(g, *branches)
    g.output(y, ("n", 3))
    model = g.model()
    result = certify_often(model, prunable=[("b_conv0_0", 0)])
    _both_branches(result)


def _loop(g: GraphBuilder, state: str, body: GraphProto, outputs: int) -> list[str]:
    return g.ops("Loop", g.constant(3, dtype=np.int64), "", state, outputs=outputs, body=body)


def _loop_body(prefix: str = "b_") -> tuple[_Body, str, str, str]:
    body = _Body(prefix)
    return (
        body,
        body.input(f"{prefix}i", (), TensorProto.INT64),
        body.input(f"{prefix}go", (), TensorProto.BOOL),
        body.unshaped(f"{prefix}state"),
    )


def test_a_loop_that_carries_a_state() -> None:
    g = GraphBuilder()
    start = linear(g, g.input("x", (2, 3)), 3, 5)
    body, _, go, state = _loop_body()
    hidden = body.op("Tanh", linear(body, state, 5, 9))
    after = linear(body, hidden, 9, 5)
    same = body.op("Identity", go)
    body.outputs.append(helper.make_tensor_value_info(same, TensorProto.BOOL, ()))
    last, history = _loop(g, start, body.graph(same, after, hidden), 2)
    g.output(linear(g, last, 5, 2), (2, 2))
    g.output(history, (3, 2, 9))
    model = g.model()
    analysis = onnxprune.analyze(model)
    assert any("crosses the border of Loop" in reason for reason in reasons(analysis, hidden, 1))
    # Without the history, nothing but the state crosses.
    body, _, go, state = _loop_body()
    hidden = body.op("Tanh", linear(body, state, 5, 9))
    after = linear(body, hidden, 9, 5)
    body.outputs.append(helper.make_tensor_value_info(go, TensorProto.BOOL, ()))
    g = GraphBuilder()
    (last,) = _loop(g, linear(g, g.input("x", (2, 3)), 3, 5), body.graph(go, after), 1)
    g.output(linear(g, last, 5, 2), (2, 2))
    certify_often(g.model(), prunable=[(hidden, 1)])


def test_a_loop_that_grows_what_it_carries() -> None:
    """The extent differs between iterations: nothing that depends on it is folded."""
    g = GraphBuilder()
    start = g.input("x", (1, 4))
    body, _, go, state = _loop_body()
    hidden = body.op("Relu", linear(body, state, 4, 7))
    rows = body.op("Cast", body.op("Shape", state), to=TensorProto.FLOAT)
    scaled = body.op("Mul", linear(body, hidden, 7, 4), body.op("Gather", rows, body.constant(0, dtype=np.int64)))
    grown = body.op("Concat", state, scaled, axis=0)
    body.outputs.append(helper.make_tensor_value_info(go, TensorProto.BOOL, ()))
    (last,) = _loop(g, start, body.graph(go, grown), 1)
    g.output(last, ("rows", 4))
    model = g.model()
    normal = onnxprune.normalize(model).to_proto()
    feeds = {"x": np.ones((1, 4), dtype=np.float32)}
    np.testing.assert_array_equal(run(normal, feeds)[0], run(model, feeds)[0])
    analysis = onnxprune.analyze(model)
    assert hidden not in analysis.shapes.extents
    assert onnxprune.verify(model, normal, onnxprune.Plan({}))


def test_what_a_loop_computes_from_constants_is_not_constant() -> None:
    g = GraphBuilder()
    body, number, go, state = _loop_body()
    step = body.op("Cast", number, to=TensorProto.FLOAT)
    after = body.op("Add", state, linear(body, body.op("Relu", linear(body, state, 4, 7)), 7, 4))
    after = body.op("Add", after, step)
    body.outputs.append(helper.make_tensor_value_info(go, TensorProto.BOOL, ()))
    (last,) = _loop(g, g.weight(2, 4), body.graph(go, after), 1)
    g.output(g.op("Add", g.input("x", (2, 4)), last), (2, 4))
    certify_often(g.model())


def test_a_scan_over_time() -> None:
    g = GraphBuilder()
    sequence = linear(g, g.input("x", (2, 5, 3)), 3, 4)
    state = g.input("h", (2, 6))
    body = _Body("b_")
    h, now = body.input("b_h", (2, 6)), body.input("b_x", (2, 4))
    both = body.op("Concat", h, now, axis=1)
    after = body.op("Tanh", linear(body, body.op("Relu", linear(body, both, 10, 9)), 9, 6))
    seen = linear(body, body.op("Relu", linear(body, after, 6, 8)), 8, 3)
    graph = body.graph(after, seen, shapes=[(2, 6), (2, 3)])
    last, collected = g.ops(
        "Scan", state, sequence, outputs=2, body=graph, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1]
    )
    g.output(last, (2, 6))
    g.output(linear(g, collected, 3, 2), (2, 5, 2))
    result = certify_often(g.model(), prunable=[("b_linear1_1", 1)])
    assert result.analysis.shapes.extents[collected] == (2, 5, 3)
    assert result.analysis.unknown == {}


def test_recurrent_layers_in_a_scan() -> None:
    g = GraphBuilder()
    sequences = g.input("x", (3, 5, 2, 4))
    body = _Body("b_")
    now = body.input("b_x", (5, 2, 4))
    w, r = body.weight(1, 4 * 7, 4), body.weight(1, 4 * 7, 7)
    y, _, _ = body.ops("LSTM", linear(body, now, 4, 4), w, r, outputs=3, hidden_size=7)
    graph = body.graph(linear(body, y, 7, 2), shapes=[(5, 1, 2, 2)])
    g.output(g.op("Scan", sequences, body=graph, num_scan_inputs=1), (3, 5, 1, 2, 2))
    certify_often(g.model(), prunable=[(r, 2), (w, 2)])


def test_bodies_that_return_what_they_did_not_make() -> None:
    """Outer tensors, body inputs, weights and one tensor twice: runtimes want each made in the body, by itself."""
    g = GraphBuilder()
    x = conv(g, g.input("x", (1, 3, 8, 8)), 3, 4)
    then = _Body("t_")
    passed = then.op("Identity", x)
    twice = [then.op("Identity", conv(then, x, 4, 4))]
    twice.append(then.op("Identity", twice[0]))
    other = _Body("e_")
    weight = other.op("Identity", other.weight(1, 4, 8, 8))
    kept = [other.op("Identity", x) for _ in range(2)]
    a, b, c = _choose(g, then.graph(passed, *twice), other.graph(weight, *kept), 3)
    g.output(conv(g, g.op("Add", a, g.op("Mul", b, c)), 4, 2), (1, 2, 8, 8))
    model = g.model()
    normal = onnxprune.normalize(model)
    onnx.checker.check_model(normal.to_proto())
    for sign in (1.0, -1.0):
        feeds = {"x": np.ones((1, 3, 8, 8), dtype=np.float32), "c": np.full(3, sign, dtype=np.float32)}
        np.testing.assert_array_equal(run(normal.to_proto(), feeds)[0], run(model, feeds)[0])
    again = onnxprune.load(normal.to_proto())
    assert onnxprune.normalize(again) is again


def test_opening_and_closing_loses_nothing() -> None:
    g = GraphBuilder()
    x = g.input("x", (1, _CHANNELS, 8, 8))
    _choose(g, _convolutions(x, "b_", 1), _convolutions(x, "b_", 2))
    control = g.nodes[-1]
    control.doc_string = "which way"
    control.metadata_props.add(key="origin", value="test")
    for attribute in control.attribute:
        attribute.g.doc_string = attribute.name
        attribute.g.node[0].metadata_props.add(key="first", value=attribute.name)
    g.output(control.output[0], (1, 4, 8, 8))
    normal = onnxprune.normalize(g.model())
    opened = open_bodies(normal)
    assert opened is not normal
    assert close_bodies(opened).to_proto() == normal.to_proto()
    node = normal.graph.node[-1]
    assert (node.name, node.doc_string, node.metadata_props[0].value) == (control.name, "which way", "test")
    for name, body in _bodies(normal).items():
        assert body.doc_string == name
        assert [(entry.key, entry.value) for entry in body.node[0].metadata_props] == [("first", name)]


def test_bodies_that_stay_closed_pin_what_they_capture() -> None:
    g = GraphBuilder()
    x = conv(g, g.input("x", (1, 3, 8, 8)), 3, 4)
    then = _Body("t_")
    values = helper.make_tensor("t_values", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("t_indices", TensorProto.INT64, [1], [0])
    scaled = then.op("Mul", x, "t_values")
    graph = then.graph(scaled)
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1]))
    other = _Body("e_")
    (y,) = _choose(g, graph, other.graph(other.op("Relu", x)))
    g.output(conv(g, y, 4, 2), (1, 2, 8, 8))
    proto = helper.make_model(
        helper.make_graph(g.nodes, "test", g.inputs, g.outputs, g.initializers),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    analysis = onnxprune.analyze(proto)
    assert analysis.graph.model is analysis.model
    assert not analysis.coupling.groups


@pytest.mark.slow
def test_a_voice_activity_detector() -> None:
    """silero-vad holds one network per sampling rate, each in a branch of an If."""
    shapes = sources.input_shapes("silero_vad")
    try:
        path = sources.fetch("silero_vad")
    except sources.UnavailableError as error:
        pytest.skip(str(error))
    result = onnxprune.compress(path, input_shapes=shapes, channels=0.5)
    assert result.certificate
    assert result.plan.after["flops"] < 0.6 * result.plan.before["flops"]
    pruned = sum(report.prunable > 0 for report in result.analysis.layers)
    assert pruned == 8
