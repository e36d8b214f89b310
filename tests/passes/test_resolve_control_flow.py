from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.passes.resolve_control_flow import ResolveControlFlow
from tests.passes.conftest import Apply, Build

TRUE, FALSE, TWO = np.array(True), np.array(False), np.int64(2)


def ops(model: onnxprune.Model) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("condition", [True, False])
def test_the_branch_that_is_always_taken(build: Build, apply: Apply, condition: bool) -> None:
    """Names of bodies may be taken outside, and results be made by no node."""
    model = build(
        """g (float[2] x) => (float[2] y, float[2] z, float[2] v, float[2] u) {
            t = Relu(x)
            y, z, v = If (b) <then_branch = p () => (float[2] q, float[2] s, float[2] w) <float[2] w = {1, 2}> {
                s = Neg(t)
                q = Add(s, w)
            }, else_branch = r () => (float[2] n, float[2] s, float[2] m) { n = Abs(t)  s = Cos(n)  m = Neg(n) }>
            s = Sin(y)
            u = Add(s, t)
        }""",
        weights={"b": np.array(condition)},
    )
    after = apply(ResolveControlFlow(), model)
    assert ops(after) == ["Relu", *(["Neg", "Add", "Identity"] if condition else ["Abs", "Cos", "Neg"]), "Sin", "Add"]


def _collecting(count: int, *, rank: int | None = 0, condition: str = "keep", scans: bool = False) -> ModelProto:
    """A loop that collects rows of the input in a sequence, with a body in its body."""
    inner = helper.make_graph([helper.make_node("Neg", ["row"], ["m"])], "p", [], [_float("m")])
    other = helper.make_graph([helper.make_node("Abs", ["row"], ["k"])], "q", [], [_float("k")])
    number = helper.make_tensor_value_info("i", TensorProto.INT64, [] if rank is None else [1] * rank)
    body = helper.make_graph(
        [
            helper.make_node("Reshape", ["i", "flat"], ["at"]),
            helper.make_node("Gather", ["x", "at"], ["row"], axis=0),
            helper.make_node("If", ["which"], ["picked"], then_branch=inner, else_branch=other),
            helper.make_node("SequenceInsert", ["rows", "picked"], ["longer"]),
            helper.make_node("Identity", ["going"], ["keep"]),
            helper.make_node("Less", ["i", "limit"], ["below"]),
        ],
        "body",
        [number, helper.make_tensor_value_info("going", TensorProto.BOOL, []), _sequence("rows")],
        [helper.make_tensor_value_info(condition, TensorProto.BOOL, []), _sequence("longer")]
        + ([_float("picked")] if scans else []),
        [numpy_helper.from_array(np.int64([-1]), "flat"), numpy_helper.from_array(np.int64(5), "limit")],
    )
    results = ["made", "stacked"] if scans else ["made"]
    nodes = [
        helper.make_node("SequenceEmpty", [], ["none"]),
        helper.make_node("Loop", ["count", "true", "none"], results, name="loop", body=body),
        helper.make_node("ConcatFromSequence", ["made"], ["y"], axis=0),
    ]
    inputs = [_float("x", 4, 3), helper.make_tensor_value_info("which", TensorProto.BOOL, [])]
    outputs = [_float("y", count, 3)] + ([_float("stacked", count, 1, 3)] if scans else [])
    weights = {"count": np.int64(count), "true": TRUE}
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _float(name: str, *shape: int) -> object:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape or None)


def _sequence(name: str) -> object:
    return helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None)


@pytest.mark.parametrize("scans", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_loops_that_collect(apply: Apply, rank: int, scans: bool) -> None:
    model = onnxprune.load(_collecting(3, rank=rank, scans=scans))
    after = apply(ResolveControlFlow(), model)
    assert ops(after).count("SequenceInsert") == 3
    assert "Loop" not in ops(after)
    normal = onnxprune.normalize(model)
    assert not {"Loop", "SequenceInsert", "ConcatFromSequence"} & set(ops(normal))
    assert onnxprune.normalize(normal) is normal


def test_loops_that_stay(build: Build, unchanged: Apply) -> None:
    """Too many turns, a condition of the body's own, or nothing but tensors."""
    unchanged(ResolveControlFlow(), onnxprune.load(_collecting(65)))
    unchanged(ResolveControlFlow(), onnxprune.load(_collecting(3, condition="below")))
    text = """g (float[2] x) => (float[2] y) {
        y = Loop (two, true, x) <body = b (int64 i, bool c, float[2] s) => (bool c, float[2] t) { t = Neg(s) }>
    }"""
    unchanged(ResolveControlFlow(), build(text, weights={"two": TWO, "true": TRUE}))
    text = "g (float[2] x, bool b) => (float[2] y) { y = If (b) <then_branch = p () => (float[2] q) { q = Neg(x) }, "
    unchanged(ResolveControlFlow(), build(text + "else_branch = r () => (float[2] q) { q = Abs(x) }> }"))
