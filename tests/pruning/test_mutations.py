"""Faults on purpose: each is one change of one constant, of every kind, and reproducible."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.ir.control_flow import open_bodies
from onnxprune.pruning.mutations import Kind, Mutation, mutations
from tests.helpers import GraphBuilder

SHARE = 0.5


def drawn(model: object, count: int, seed: int = 0, **settings: object) -> tuple[onnxprune.Model, list[Mutation]]:
    """A pruned model and faults for it."""
    source = onnxprune.load(model)  # type: ignore[arg-type]
    analysis = onnxprune.analyze(source)
    plan = onnxprune.plan(analysis, channels=SHARE)
    pruned = onnxprune.apply(source, plan)
    return pruned, list(islice(mutations(pruned, analysis, plan, seed, **settings), count))  # type: ignore[arg-type]


def of_everything(opset: int = 17) -> object:
    """A network with a place for every kind of fault."""
    g = GraphBuilder(opset)
    x = g.op("Conv", g.input("x", [2, 3, 6, 6]), g.weight(8, 3, 3, 3), g.vector(8))
    vectors = [g.vector(8, positive=True), g.vector(8), g.vector(8), g.vector(8, positive=True)]
    x = g.op("Relu", g.op("BatchNormalization", x, *vectors))
    x = g.op("Conv", x, g.weight(8, 1, 1, 1), group=8)
    codes = g.constant(g.rng.integers(-90, 91, (10, 8, 1, 1)), "codes", np.int8)
    scales = g.constant(g.rng.uniform(0.01, 0.02, 10), "scales", np.float32)
    zeros = g.constant(np.zeros(10), "zeros", np.int8)
    x = g.op("Conv", x, g.op("DequantizeLinear", codes, scales, zeros, axis=0), g.vector(10))
    a, b = g.split(x, 2, [1, 3])
    x = g.op("Add", g.op("Gather", b, g.ints(2, 0), axis=3), g.op("GlobalAveragePool", a))
    g.output(g.op("Conv", x, g.weight(4, 10, 1, 1)), [2, 4, 3, 2])
    return g.model()


def test_every_kind_is_drawn_and_changes_one_constant() -> None:
    """Nothing but the named weight differs from the pruned model, which itself stays as it is."""
    pruned, found = drawn(of_everything(), 300)
    assert {mutation.kind for mutation in found} == set(Kind)
    before = {name: weight.array.tobytes() for name, weight in pruned.weights.items()}
    for mutation in found:
        after = {name: weight.array.tobytes() for name, weight in mutation.apply(pruned).weights.items()}
        assert [name for name in before if before[name] != after[name]] == [mutation.tensor], str(mutation)
    assert before == {name: weight.array.tobytes() for name, weight in pruned.weights.items()}


def test_draws_are_reproducible_and_differ() -> None:
    """The seed decides; no fault comes twice."""
    _, first = drawn(of_everything(), 100)
    _, again = drawn(of_everything(), 100)
    _, other = drawn(of_everything(), 100, seed=1)
    assert first == again
    assert first != other
    assert len(set(first)) == len(first)


def test_deep_and_shallow_layers_are_hit() -> None:
    """No layer is spared."""
    pruned, found = drawn("models/residual_torchscript.onnx", 300)
    filters = {name for name, weight in pruned.weights.items() if len(weight.shape) > 1}
    assert filters <= {mutation.tensor for mutation in found}


def test_it_ends_where_nothing_is_left() -> None:
    """A network of one small layer has few faults."""
    g = GraphBuilder(17)
    x = g.op("Conv", g.input("x", [1, 2, 3, 3]), g.weight(2, 2, 1, 1))
    g.output(g.op("Conv", x, g.weight(1, 2, 1, 1)), [1, 1, 3, 3])
    _, found = drawn(g.model(), 10_000)
    assert 3 <= len(found) < 40


@pytest.mark.parametrize("opset", [9, 12])
def test_numbers_in_attributes(opset: int) -> None:
    """Old opsets keep split sizes and bounds in attributes."""
    g = GraphBuilder(opset)
    x = g.op("Conv", g.input("x", [1, 3, 6, 6]), g.weight(8, 3, 1, 1))
    a, b = g.split(x, 2, [2, 4])
    x = g.op("Add", g.slice(b, 2, 1, 3), a)
    g.output(g.op("Conv", x, g.weight(2, 8, 1, 1)), [1, 2, 2, 6])
    pruned, found = drawn(g.model(), 200, kinds=[Kind.SHIFTED_EXTENT])
    split = next(mutation for mutation in found if mutation.attribute == "split")
    sizes = next(node for node in split.apply(pruned).graph.node if node.op_type == "Split").attribute
    assert sum(next(a.ints for a in sizes if a.name == "split")) == 6
    assert split.apply(pruned).skeleton != pruned.skeleton


def test_weights_in_bodies() -> None:
    """A fault in a branch of an If stays in that branch."""
    g = GraphBuilder(17)
    x = g.op("Conv", g.input("x", [1, 3, 4, 4]), g.weight(8, 3, 1, 1))
    met = g.op("Greater", g.op("ReduceSum", x, keepdims=0), g.constant(0.0, dtype=np.float32))
    bodies = {}
    for name in ("then_branch", "else_branch"):
        inner, out = GraphBuilder(17, seed=len(name)), f"{name}_out"
        weight = inner.weight(6, 8, 1, 1, base=name)
        node = helper.make_node("Conv", [x, weight], [out], name=name)
        info = helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, 6, 4, 4])
        bodies[name] = helper.make_graph([node], name, [], [info], inner.initializers)
    g.output(g.op("Conv", g.op("If", met, **bodies), g.weight(2, 6, 1, 1)), [1, 2, 4, 4])
    pruned, found = drawn(g.model(), 300)
    inside = [mutation for mutation in found if "branch" in mutation.tensor]
    assert inside
    before, after = open_bodies(pruned).weights, open_bodies(inside[0].apply(pruned)).weights
    assert [n for n in before if not np.array_equal(before[n].array, after[n].array)] == [inside[0].tensor]
