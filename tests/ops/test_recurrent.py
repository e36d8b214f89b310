"""LSTM, GRU and RNN: hidden units, inputs, directions, optional operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxprune
from tests.helpers import GraphBuilder
from tests.ops.certifying import certify_often, linear, reasons

COVERS = frozenset({("", "GRU"), ("", "LSTM"), ("", "RNN")})

_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}
_TIME, _BATCH, _INPUTS, _HIDDEN = 5, 2, 6, 7


class _Layer:
    """A recurrent layer behind a dense one, with as many optional operands as wanted."""

    def __init__(self, op_type: str, opset: int, directions: int = 1, optional: bool = True, **attributes: Any) -> None:
        self.g = g = GraphBuilder(opset)
        gates = _GATES[op_type]
        self.before = linear(g, g.input("x", (_TIME, _BATCH, 3)), 3, _INPUTS)
        self.w = g.weight(directions, gates * _HIDDEN, _INPUTS, fan_in=_INPUTS)
        self.r = g.weight(directions, gates * _HIDDEN, _HIDDEN, fan_in=_HIDDEN)
        operands = [self.before, self.w, self.r]
        if optional:
            operands.append(g.vector(directions, 2 * gates * _HIDDEN))
            operands.append(g.constant([_TIME, _TIME - 2], dtype=np.int32))
            operands.append(g.vector(directions, _BATCH, _HIDDEN))
            if op_type == "LSTM":
                operands.append(g.vector(directions, _BATCH, _HIDDEN))
                operands.append(g.vector(directions, 3 * _HIDDEN))
        self.y = g.ops(
            op_type, *operands, outputs=3 if op_type == "LSTM" else 2, hidden_size=_HIDDEN,
            direction="bidirectional" if directions == 2 else "forward", **attributes,
        )  # fmt: skip

    def read(self, output: int) -> onnx.ModelProto:
        """The model, with a dense layer that reads the hidden axis of one output."""
        self.g.output(linear(self.g, self.y[output], _HIDDEN, 4))
        return self.g.model()


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("op_type", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("opset", [7, 14, 22])
def test_hidden_units_and_inputs_shrink(opset: int, op_type: str, directions: int) -> None:
    layer = _Layer(op_type, opset, directions)
    model = layer.read(0)
    result = certify_often(model, prunable=[(layer.w, 1), (layer.w, 2), (layer.r, 1), (layer.r, 2), (layer.y[0], 3)])
    node = next(n for n in result.model.to_proto().graph.node if n.op_type == op_type)
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert attributes["hidden_size"] == 4
    found = next(report for report in result.analysis.layers if report.op_type == op_type)
    assert found.flops == _TIME * _BATCH * directions * _GATES[op_type] * _HIDDEN * (_INPUTS + _HIDDEN)
    assert found.channels == found.prunable == _HIDDEN


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"activations": ["HardSigmoid", "Relu"]}),
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"clip": 0.4}),
        ("RNN", {"activations": ["Relu"]}),
    ],
)
def test_attributes(op_type: str, attributes: dict[str, Any]) -> None:
    layer = _Layer(op_type, 14, **attributes)
    certify_often(layer.read(0), prunable=[(layer.r, 2)])


@pytest.mark.parametrize("op_type", ["GRU", "LSTM", "RNN"])
def test_without_optional_operands(op_type: str) -> None:
    layer = _Layer(op_type, 14, optional=False)
    certify_often(layer.read(0), prunable=[(layer.r, 2)])


@pytest.mark.parametrize(("op_type", "output"), [("GRU", 1), ("LSTM", 1), ("LSTM", 2), ("RNN", 1)])
def test_only_a_last_state_is_read(op_type: str, output: int) -> None:
    layer = _Layer(op_type, 14)
    node = layer.g.nodes[-1]
    for place in range(len(node.output)):
        if place != output:
            node.output[place] = ""
    certify_often(layer.read(output), prunable=[(layer.r, 2)])


@pytest.mark.parametrize("op_type", ["GRU", "LSTM", "RNN"])
def test_two_layers_as_pytorch_exports_them(op_type: str) -> None:
    g = GraphBuilder(17)
    gates = _GATES[op_type]
    h, width = g.input("x", (_TIME, _BATCH, 3)), 3
    for _ in range(2):
        w = g.weight(2, gates * _HIDDEN, width, fan_in=width)
        r = g.weight(2, gates * _HIDDEN, _HIDDEN, fan_in=_HIDDEN)
        y = g.ops(op_type, h, w, r, outputs=2, hidden_size=_HIDDEN, direction="bidirectional")
        y = g.op("Transpose", y[0], perm=[0, 2, 1, 3])
        h, width = g.op("Reshape", y, g.ints(0, 0, -1)), 2 * _HIDDEN
    g.output(linear(g, h, width, 4))
    result = certify_often(g.model(), prunable=[(g.nodes[0].input[2], 2)])
    assert all(found.prunable for found in result.analysis.layers if found.op_type == op_type)


def test_batch_first() -> None:
    # onnxruntime does not run layout 1, so that this checks the relations only.
    g = GraphBuilder(14)
    h = linear(g, g.input("x", (_BATCH, _TIME, 3)), 3, _INPUTS)
    w, r = g.weight(1, 4 * _HIDDEN, _INPUTS), g.weight(1, 4 * _HIDDEN, _HIDDEN)
    y = g.ops("LSTM", h, w, r, outputs=3, hidden_size=_HIDDEN, layout=1)
    g.output(linear(g, y[0], _HIDDEN, 4))
    coupling = onnxprune.analyze(g.model()).coupling
    classes = {coupling.class_of[coupling.axes.id(tensor, dim)] for tensor, dim in ((r, 2), (y[0], 3), (y[1], 2))}
    assert len(classes) == 1


def test_a_state_that_is_a_graph_input_holds_the_units() -> None:
    g = GraphBuilder(14)
    x = g.input("x", (_TIME, _BATCH, 3))
    state = g.input("state", (1, _BATCH, _HIDDEN), TensorProto.FLOAT)
    r = g.weight(1, 3 * _HIDDEN, _HIDDEN)
    y = g.ops("GRU", x, g.weight(1, 3 * _HIDDEN, 3), r, "", "", state, outputs=2, hidden_size=_HIDDEN)
    g.output(linear(g, y[0], _HIDDEN, 4))
    assert any("graph input 'state'" in reason for reason in reasons(onnxprune.analyze(g.model()), r, 2))
