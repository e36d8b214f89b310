"""Models with If as modules: both bodies compute and train, and their weights come back."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

import torch
from onnx import GraphProto, ModelProto, TensorProto, helper

import onnxprune
from onnxprune.errors import ConversionError
from onnxprune.torch import OnnxModule, to_module, write_back
from tests.helpers import GraphBuilder

from .support import Arrays, assert_same, feeds, run_module, run_onnx


class _Body(GraphBuilder):
    """A body; its names begin with ``prefix``, so that none is that of a tensor around it."""

    def __init__(self, prefix: str, seed: int = 1) -> None:
        super().__init__(17, seed=seed)
        self.prefix = prefix

    def name(self, base: str) -> str:
        return f"{self.prefix}{super().name(base)}"

    def graph(self, *results: str) -> GraphProto:
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results]
        return helper.make_graph(self.nodes, f"{self.prefix}body", [], infos, self.initializers)


def _linear(x: str, prefix: str, seed: int, *captured: str) -> GraphProto:
    """Two layers with weights of their own, and a product with each captured weight."""
    body = _Body(prefix, seed)
    hidden = body.op("Gemm", x, body.weight(4, 6), body.vector(6))
    result = body.op("Gemm", body.op("Relu", hidden), body.weight(6, 4), body.vector(4))
    for weight in captured:
        result = body.op("MatMul", result, weight)
    return body.graph(result)


def _either(captured: int = 1, last: bool = True) -> ModelProto:
    """If between two layers; both bodies name their tensors alike, and multiply by a matrix of the main graph."""
    g = GraphBuilder(17)
    x = g.op("Gemm", g.input("x", (2, 4)), g.weight(4, 4))
    shared = [g.weight(4, 4, base="shared")] * captured
    then, other = (_linear(x, "b_", seed, *shared) for seed in (1, 2))
    flag = g.input("flag", (), TensorProto.BOOL)
    y = g.op("If", flag, then_branch=then, else_branch=other)
    g.output(g.op("MatMul", y, shared[0] if last else g.weight(4, 4)), (2, 4))
    return g.model()


def _ways(model: onnxprune.Model | ModelProto) -> list[Arrays]:
    inputs = feeds(model)
    return [{**inputs, "flag": np.array(flag)} for flag in (True, False)]


def _assert_same_both_ways(model: onnxprune.Model | ModelProto, module: OnnxModule) -> None:
    found = []
    for inputs in _ways(model):
        assert_same(run_onnx(model, inputs), run_module(module, inputs), 1e-5)
        found.append(run_module(module, inputs)[0])
    assert not torch.allclose(found[0], found[1], atol=1e-3)


@pytest.mark.parametrize("last", [True, False])
def test_both_bodies_compute(last: bool) -> None:
    model = _either(last=last)
    module = to_module(model)
    _assert_same_both_ways(model, module)
    _assert_same_both_ways(model, copy.deepcopy(module))
    weights = {name for name, array in onnxprune.normalize(model).weights.items() if array.dtype.kind == "f"}
    assert weights <= set(module.onnx_names)
    assert len(module.onnx_names) == len(set(module.onnx_names.values())) == len(list(module.parameters()))


@pytest.mark.parametrize("flag", [True, False])
def test_weights_of_the_body_that_ran_get_gradients(flag: bool) -> None:
    module = to_module(_either()).train()
    (inputs,) = (inputs for inputs in _ways(_either()) if bool(inputs["flag"]) == flag)
    run_module(module, inputs)[0].square().mean().backward()
    idle = "else_branch" if flag else "then_branch"
    for name, parameter in module.named_parameters():
        if idle in name:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name


def test_trained_weights_come_back_into_both_bodies() -> None:
    model = onnxprune.load(_either())
    module = to_module(model)
    assert write_back(module, model) is model
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.mul_(1 + 0.1 * number)
    trained = write_back(module, model)
    _assert_same_both_ways(trained, module)
    (before,), (after,) = ([node for node in m.to_proto().graph.node if node.op_type == "If"] for m in (model, trained))
    for old, new in zip(before.attribute, after.attribute, strict=True):
        assert [(n.name, n.op_type) for n in old.g.node] == [(n.name, n.op_type) for n in new.g.node]
        assert [o.name for o in old.g.output] == [o.name for o in new.g.output]


def test_pruned_bodies() -> None:
    pruned = onnxprune.compress(_either(), channels=0.5).model
    _assert_same_both_ways(pruned, to_module(pruned))


def test_the_other_body_need_not_fit_the_input() -> None:
    g = GraphBuilder(17)
    x = g.input("x", ("n", 4))
    wide = g.op("Equal", g.op("Gather", g.op("Shape", x), g.constant(0, dtype=np.int64)), g.constant(6, dtype=np.int64))
    bodies = []
    for prefix, rows in (("six_", 6), ("two_", 2)):
        body = _Body(prefix)
        flat = body.op("Reshape", x, body.ints(1, rows * 4))
        bodies.append(body.graph(body.op("MatMul", flat, body.weight(rows * 4, 3))))
    g.output(g.op("If", wide, then_branch=bodies[0], else_branch=bodies[1]), (1, 3))
    model = g.model()
    module = to_module(model)
    for rows in (6, 2):
        inputs = feeds(model, {"x": (rows, 4)})
        assert_same(run_onnx(model, inputs), run_module(module, inputs), 1e-5)


def test_nested_bodies_read_sizes_and_weights_of_all_graphs_around_them() -> None:
    g = GraphBuilder(17)
    x = g.input("x", ("n", 4, 5))
    far = g.weight(5, 5, base="far")
    batch = g.op("Slice", g.op("Shape", x), g.ints(0), g.ints(1))
    x = g.op("MatMul", x, far)
    flags = [g.input(name, (), TensorProto.BOOL) for name in ("flag", "inner")]
    middle = _Body("m_")
    hidden = middle.op("MatMul", x, far)
    near = middle.weight(5, 5, base="near")
    inner = _Body("i_")
    target = inner.op("Concat", batch, inner.ints(20), axis=0)
    flat = inner.op("Reshape", inner.op("MatMul", inner.op("MatMul", hidden, near), far), target)
    simple = _Body("s_")
    taken = simple.op("Identity", middle.op("Reshape", hidden, middle.op("Concat", batch, middle.ints(-1), axis=0)))
    z = middle.op("If", flags[1], then_branch=inner.graph(flat), else_branch=simple.graph(taken))
    other = _Body("o_")
    constant = other.op("Expand", other.weight(1, 20), other.op("Concat", batch, other.ints(20), axis=0))
    y = g.op("If", flags[0], then_branch=middle.graph(middle.op("Add", z, middle.vector(20))),
             else_branch=other.graph(constant))  # fmt: skip
    g.output(g.op("MatMul", y, g.weight(20, 2)), ("n", 2))
    model = g.model()
    module = to_module(model)
    for flag in (True, False):
        for second in (True, False):
            inputs = {**feeds(model, {"x": (3, 4, 5)}), "flag": np.array(flag), "inner": np.array(second)}
            assert_same(run_onnx(model, inputs), run_module(module, inputs), 1e-5)
    assert module.onnx_names[far].keys == (far,)
    assert len(module.onnx_names[near].keys) == 1


def test_loops_are_named_as_what_cannot_be_converted() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 17]>
    main (float[2] x, int64 n, bool go) => (float[2] y) {
        y = Loop (n, go, x) <body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w) {
            d = Identity (c)
            w = Add (v, v)
        }>
    }
    """)
    with pytest.raises(ConversionError, match="no converter for Loop"):
        to_module(model)
