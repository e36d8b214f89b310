"""Operators of onnxruntime's own domain, against onnxruntime."""

from __future__ import annotations

from typing import Any

import onnx
import pytest

pytest.importorskip("torch")

from onnxprune.torch import to_module, write_back
from tests.helpers import GraphBuilder

from .support import assert_same, assert_trainable, feeds, run_module, run_onnx

Shapes = list[tuple[int, ...]]

CASES: list[tuple[str, Shapes, Shapes, dict[str, Any]]] = [
    ("BiasGelu", [(2, 4)], [(4,)], {}),
    ("FastGelu", [(2, 4)], [(4,)], {}),
    ("FastGelu", [(2, 4)], [], {}),
    ("FusedConv", [(1, 3, 6, 6)], [(4, 3, 3, 3), (4,)], {"activation": "Relu", "kernel_shape": [3, 3]}),
    ("FusedGemm", [(2, 3)], [(3, 4), (4,)], {"activation": "LeakyRelu", "activation_alpha": 0.2}),
    ("FusedMatMul", [(2, 4, 3)], [(2, 4, 5)], {"transA": 1, "alpha": 0.5}),
    ("Gelu", [(2, 4)], [], {}),
    ("QuickGelu", [(2, 4)], [], {"alpha": 1.3}),
    ("SkipLayerNormalization", [(2, 3, 4), (2, 3, 4)], [(4,), (4,), (4,)], {}),
    ("SkipSimplifiedLayerNormalization", [(2, 3, 4), (2, 3, 4)], [(4,)], {}),
]


@pytest.mark.parametrize(("op_type", "inputs", "weights", "attributes"), CASES)
def test_equals_onnxruntime(op_type: str, inputs: Shapes, weights: Shapes, attributes: dict[str, Any]) -> None:
    g = GraphBuilder(17, domains={"com.microsoft": 1})
    operands = [g.input(f"x{number}", shape) for number, shape in enumerate(inputs)]
    operands += [g.vector(*shape) for shape in weights]
    g.outputs.append(onnx.ValueInfoProto(name=g.op(op_type, *operands, domain="com.microsoft", **attributes)))
    model = g.model()
    module, values = to_module(model), feeds(model, dict(zip(("x0", "x1"), inputs, strict=False)))
    assert_same(run_onnx(model, values), run_module(module, values))
    assert write_back(module, model).to_proto() == model
    if weights:
        assert_trainable(module, values)
