"""Gates: open they change nothing, closed they are what a plan removes, and they learn to meet a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch")

import onnxprune
from onnxprune.analysis.activations import activations
from onnxprune.data import Data
from onnxprune.errors import BudgetError, PassError, TrainingError, UsageError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.session import Session, random_inputs
from onnxprune.passes.base import PassResult
from onnxprune.passes.merge_linear import MergeLinear
from onnxprune.pruning.gating import GATED, Candidates, GatedTraining, candidates, learn_gates
from onnxprune.pruning.options import PlanOptions
from onnxprune.torch import Callback, Recipe
from onnxprune.torch.gates import Gates, Learning
from onnxprune.torch.training import Step
from tests.helpers import GraphBuilder
from tests.torch.test_surrogates import spiking
from tests.torch.training.support import CLASSES, assert_equal_weights, classifier, squares, weights

Arrays = dict[str, NDArray[np.float32]]
HALF = PlanOptions(mode="flops", reduce=0.5, round_to=1)
RECIPE = Recipe(epochs=1, lr=0.02, batch_size=16)
LEARNING = Learning(epochs=3, lr=0.15)
MODELS = ("dense_dynamo", "depthwise_torchscript", "residual_torchscript", "unet_torchscript", "vgg_torchscript")


def gated_outputs(gates: Gates, inputs: Arrays, open: NDArray[np.bool_]) -> Arrays:
    factors = np.append(open, True).astype(np.float32)
    fed = {vector.name: factors[vector.gates] for vector in gates.vectors}
    return Session(gates.model, "the gated model", threads=1).run({**inputs, **fed})


def gap(one: Arrays, other: Arrays) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) / float(np.abs(one[name]).max()) for name in one)


def of(model: Model | str, what: tuple[str, ...] = GATED, options: PlanOptions = HALF) -> tuple[Candidates, Arrays]:
    analysis = onnxprune.analyze(model)
    return candidates(analysis, options, what), random_inputs(analysis.model, dict(analysis.shapes.binding), 0)


def mixed() -> Model:
    """Grouped convolutions, a swish, and two products of matrices with a GELU between them."""
    g = GraphBuilder(17)
    h = g.op("Conv", g.input("x", (1, 1, 8, 8)), g.weight(16, 1, 3, 3), g.vector(16), pads=[1, 1, 1, 1])
    h = g.op("Mul", h, g.op("Sigmoid", h))
    h = g.op("Conv", h, g.weight(24, 8, 1, 1), g.vector(24), group=2)
    h = g.op("Flatten", g.op("GlobalAveragePool", g.op("Relu", h)))
    h = g.op("Add", g.op("MatMul", h, g.weight(24, 32)), g.vector(32))
    bent = g.op("Add", g.op("Erf", g.op("Div", h, g.constant(np.float32(1.41421)))), g.constant(np.float32(1)))
    h = g.op("Mul", g.op("Mul", h, bent), g.constant(np.float32(0.5)))
    g.output(g.op("MatMul", h, g.weight(32, 5)))
    return onnxprune.load(g.model())


@pytest.mark.parametrize("name", [*MODELS, "mixed"])
def test_open_gates_change_nothing_and_closed_ones_are_what_the_plan_removes(name: str) -> None:
    found, inputs = of(mixed() if name == "mixed" else f"models/{name}.onnx")
    gates, model = found.gates(), found.analysis.model
    assert gates.count > 30
    plain = Session(model, "the model", threads=1).run(inputs)
    assert gap(plain, gated_outputs(gates, inputs, np.ones(gates.count, dtype=bool))) < 1e-5
    open = gates.settle(np.random.default_rng(0).standard_normal(gates.count) + 0.1)
    assert 0.9 * gates.limit < gates.cost.total(open) <= gates.limit
    plan = found.plan(open)
    small = onnxprune.apply(model, plan)
    left = Session(small, "what is left", threads=1).run(inputs)
    assert gap(gated_outputs(gates, inputs, open), left) < 1e-5
    assert gap(plain, left) > 1e-3
    assert onnxprune.verify(model, small, plan).passed
    # What gates were told to cost is what the result costs, its linear layers merged.
    merged = MergeLinear()(small).model if any(one.merge for one in found.regions) else small
    assert onnxprune.analyze(merged).totals["flops"] == pytest.approx(gates.cost.total(open), rel=1e-9)
    # One gate closed where another should be is noticed.
    vectors = list(gates.vectors)
    place = next(i for i, v in enumerate(vectors) if len(v.gates) > 1 and len(set(open[v.gates].tolist())) > 1)
    vectors[place] = replace(vectors[place], gates=np.roll(vectors[place].gates, 1))
    assert gap(gated_outputs(replace(gates, vectors=tuple(vectors)), inputs, open), left) > 1e-4


@pytest.mark.parametrize("grouped", ["aligned", "balanced", "whole"])
def test_grouped_convolutions_shrink_as_asked(grouped: str) -> None:
    g = GraphBuilder(17)
    h = g.op("Relu", g.op("Conv", g.input("x", (1, 3, 6, 6)), g.weight(16, 3, 1, 1), g.vector(16)))
    h = g.op("Relu", g.op("Conv", h, g.weight(16, 4, 3, 3), g.vector(16), group=4))
    g.output(g.op("Conv", h, g.weight(5, 16, 1, 1), g.vector(5)))
    found, inputs = of(onnxprune.load(g.model()), ("channels",), replace(HALF, grouped=grouped))
    gates = found.gates()
    open = gates.settle(np.random.default_rng(0).standard_normal(gates.count) - 0.5)
    plan = found.plan(open)
    assert plan.settings["grouped"] == grouped
    left = Session(onnxprune.apply(found.analysis.model, plan), "what is left", threads=1).run(inputs)
    assert gap(gated_outputs(gates, inputs, open), left) < 1e-5


@pytest.mark.parametrize("metric", ["params", "flops", "memory"])
@pytest.mark.parametrize("name", ["residual_torchscript", "vgg_torchscript"])
def test_what_a_gate_costs_is_the_difference_that_it_makes(metric: str, name: str) -> None:
    found, _ = of(f"models/{name}.onnx", options=replace(HALF, mode=metric, reduce=0.4))
    cost, count = found.cost, len(found.group) + len(found.regions)
    rng = np.random.default_rng(1)
    open = rng.random(count) < 0.7
    slope = cost.gradient(open)
    for gate in [*rng.integers(0, count, 20).tolist(), *range(len(found.group), count)]:
        there, gone = open.copy(), open.copy()
        there[gate], gone[gate] = True, False
        assert cost.total(there) - cost.total(gone) == pytest.approx(slope[gate], rel=1e-9, abs=1e-6)


def test_activations_are_found_in_one_piece() -> None:
    model = onnxprune.normalize(mixed())
    graph = model.derived(Graph)
    found = activations(graph, onnxprune.analyze(model).registry)
    kinds = [[graph.nodes[index].op_type for index in region.nodes] for region in found]
    assert kinds == [["Sigmoid", "Mul"], ["Relu"], ["Div", "Erf", "Add", "Mul", "Mul"]]


def test_an_activation_has_a_gate_where_layers_merge_without_it() -> None:
    found, _ = of(mixed())
    swish, gelu = (region for region in found.regions if region.merge is not None)
    # 3 × 3 and then 1 × 1 take 9,216 + 12,288 products, one 3 × 3 from a channel to 24 takes 13,824.
    assert swish.merge is not None
    assert swish.merge.cost == 64 * 9 * 24
    # 24 → 32 → 5 takes 928 products, 24 → 5 takes 120.
    assert gelu.merge is not None
    assert gelu.merge.cost == 120
    closed = np.ones(len(found.group) + len(found.regions), dtype=bool)
    whole = found.cost.total(closed)
    closed[len(found.group) + found.regions.index(gelu)] = False
    assert whole - found.cost.total(closed) == 24 * 32 + 32 * 5 - 120


def residual(seed: int = 0) -> Model:
    """Two residual blocks with BatchNormalization, and logits."""
    g = GraphBuilder(17, seed=seed)

    def layer(x: str, channels: int, filters: int) -> str:
        y = g.op("Conv", x, g.weight(filters, channels, 3, 3), pads=[1, 1, 1, 1])
        return g.op("BatchNormalization", y, g.vector(filters, positive=True), *(g.vector(filters) for _ in range(2)),
                    g.vector(filters, positive=True))  # fmt: skip

    h = g.op("MaxPool", g.op("Relu", layer(g.input("x", ("n", 1, 8, 8)), 1, 8)), kernel_shape=[2, 2], strides=[2, 2])
    for _ in range(2):
        h = g.op("Relu", g.op("Add", h, layer(g.op("Relu", layer(h, 8, 12)), 12, 8)))
    g.output(g.op("Gemm", g.op("Flatten", h), g.weight(CLASSES, 128), transB=1), ("n", CLASSES))
    return onnxprune.load(g.model())


def samples() -> Data:
    return Data(squares(256), squares(64, seed=1), digest="squares")


def learnt(model: Model | None = None, **changes: object) -> GatedTraining:
    how = {"options": HALF, "recipe": RECIPE, "learning": LEARNING, "device": "cpu", **changes}
    return learn_gates(residual() if model is None else model, samples(), **how)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result() -> GatedTraining:
    return learnt()


def test_gates_learn_to_meet_a_budget(result: GatedTraining) -> None:
    plan = result.compression.plan
    assert 0.8 < plan.after["flops"] / (0.5 * plan.before["flops"]) <= 1
    assert onnxprune.analyze(result.model).totals["flops"] == plan.after["flops"]
    assert result.compression.certificate
    assert result.compression.certificate.passed
    assert result.training.test is not None
    assert result.training.test.accuracy is not None
    assert result.training.test.accuracy > 0.9
    first, last = result.learned.moments[0], result.learned.moments[-1]
    assert first.left == 1
    assert last.left < 0.53
    assert max(moment.weight for moment in result.learned.moments) > 0
    assert result.to_dict()["closed"] == int((~result.learned.open).sum()) > 0


def test_equal_seeds_give_equal_results(result: GatedTraining) -> None:
    again = learnt()
    assert (again.learned.open == result.learned.open).all()
    assert_equal_weights(again.model, result.model)
    other = learnt(recipe=replace(RECIPE, seed=1))
    assert not (other.learned.open == result.learned.open).all()


@pytest.mark.parametrize("what", ["channels", "branches"])
def test_gates_of_one_kind(what: str) -> None:
    made = learnt(gates=(what,), options=replace(HALF, reduce=0.4), recipe=replace(RECIPE, start="from-scratch"))
    plan = made.compression.plan
    assert bool(plan.removed) == (what == "channels")
    assert bool(plan.replaced) == (what == "branches")
    assert plan.after["flops"] <= 0.6 * plan.before["flops"]


def test_layers_merge_where_an_activation_closed() -> None:
    g = GraphBuilder(17)
    h = g.op("Gemm", g.op("Flatten", g.input("x", ("n", 1, 8, 8))), g.weight(32, 64), g.vector(32), transB=1)
    h = g.op("Gemm", g.op("Relu", h), g.weight(64, 32), g.vector(64), transB=1)
    g.output(g.op("Gemm", h, g.weight(CLASSES, 64), g.vector(CLASSES), transB=1), ("n", CLASSES))
    made = learnt(onnxprune.load(g.model()), gates=("activations",), options=replace(HALF, mode="params", reduce=0.2))
    assert [str(one.kind) for one in made.compression.plan.replaced] == ["identity"]
    assert [node.op_type for node in made.model.graph.node] == ["Flatten", "Gemm"]
    assert onnxprune.analyze(made.model).totals["params"] == 64 * CLASSES + CLASSES


def foldable(rows: int | str = 8, columns: int | str = 8) -> Model:
    """Two convolutions that are one without the activation between them, and logits."""
    g = GraphBuilder(17)
    h = g.op("Conv", g.input("x", ("n", 1, rows, columns)), g.weight(8, 1, 3, 3), g.vector(8))
    h = g.op("Conv", g.op("Relu", h), g.weight(16, 8, 1, 1), g.vector(16))
    h = g.op("Flatten", g.op("GlobalMaxPool", h))
    g.output(g.op("Gemm", h, g.weight(CLASSES, 16), g.vector(CLASSES), transB=1), ("n", CLASSES))
    return onnxprune.load(g.model())


MERGING = {"gates": ("activations",), "options": replace(HALF, reduce=0.2, input_shapes={"x": (1, 1, 8, 8)})}


def test_merges_are_counted_and_compared_at_the_shapes_that_were_asked_for() -> None:
    made = learnt(foldable("rows", "columns"), **MERGING)
    assert [node.op_type for node in made.model.graph.node].count("Conv") == 1
    assert made.to_dict()["after"]["flops"] == 6 * 6 * 16 * 9 + 16 * CLASSES


def test_a_merge_that_is_no_equal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.pruning.gating import training

    class Wrong(MergeLinear):
        def run(self, model: Model) -> PassResult:
            result = super().run(model)
            draft = result.model.edit()
            name = next(name for name, weight in draft.weights.items() if len(weight.shape) == 4)
            draft.weights[name] = draft.weights[name].with_array(draft.weights[name].array[::-1].copy())
            return PassResult(draft.finish(), modified=True)

    monkeypatch.setattr(training, "MergeLinear", Wrong)
    with pytest.raises(PassError, match="merge_linear claims equality but output"):
        learnt(foldable(), **MERGING)


def test_batchnorm_that_was_put_in_is_folded_again() -> None:
    made = learnt(classifier(), options=replace(HALF, reduce=0.3),
                  recipe=replace(RECIPE, restore_batchnorm=True, start="from-scratch"))  # fmt: skip
    assert not any(node.op_type == "BatchNormalization" for node in made.model.graph.node)
    assert any(node.op_type == "BatchNormalization" for node in made.compression.model.graph.node)
    assert onnxprune.analyze(made.model).totals["flops"] <= 0.7 * onnxprune.analyze(classifier()).totals["flops"]


def test_gates_that_do_not_close_are_told() -> None:
    with pytest.raises(TrainingError, match=r"did not close: .* MACs, 100.0 % are left, and 50.0 % were asked for"):
        learnt(learning=replace(LEARNING, lr=1e-4))


class Watching(Callback):
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def stepped(self, step: Step) -> None:
        self.steps.append(step)


def test_what_cannot_be_is_told_before_anything_is_learnt() -> None:
    watching = Watching()
    for changes, error, word in (
        ({"options": replace(HALF, reduce=0.999)}, BudgetError, "cannot"),
        ({"options": replace(HALF, reduce=None)}, UsageError, "budget"),
        ({"options": replace(HALF, max_params=1000)}, UsageError, "one budget"),
        ({"gates": ("channels", "bits")}, UsageError, "bits"),
        ({"gates": ("activations",)}, UsageError, "nothing here"),
        ({"options": replace(HALF, mode="latency")}, UsageError, "latency"),
        ({"options": replace(HALF, exact_norm=True)}, UsageError, "exact_norm"),
        ({"recipe": replace(RECIPE, precision="float16")}, TrainingError, "float16"),
    ):
        with pytest.raises(error, match=word):
            learnt(callbacks=[watching], **changes)
    assert not watching.steps


def test_floors_and_multiples_hold(result: GatedTraining) -> None:
    made = learnt(gates=("channels",), options=replace(HALF, round_to=4, exclude=["conv_1"]))
    weights = {name: weight.shape for name, weight in made.model.weights.items() if len(weight.shape) == 4}
    assert all(shape[0] % 4 == 0 for shape in weights.values())
    assert result.learned.open.sum() > 0


def test_a_checkpoint_goes_on_to_the_same_end(result: GatedTraining, tmp_path: Path) -> None:
    state = tmp_path / "state"
    learnt(checkpoint=state)
    again = learnt(resume=state)
    assert_equal_weights(again.model, result.model)


@pytest.mark.parametrize("batch", ["n", 1])
def test_a_spiking_network_learns_what_to_remove(batch: int | str) -> None:
    model = spiking(batch=batch)
    made = learnt(model, gates=("channels",), options=replace(HALF, reduce=0.3))
    # Behind thresholds lie the first weights: they move if gradients come through.
    first = next(name for name, value in weights(model).items() if value.shape == (8, 1, 3, 3))
    assert not np.isin(weights(made.model)[first], weights(model)[first]).all()
    plan = made.compression.plan
    assert plan.after["flops"] <= 0.7 * plan.before["flops"]
    assert [value.type.tensor_type.shape.dim[0] for value in made.model.graph.input] == [
        value.type.tensor_type.shape.dim[0] for value in model.graph.input
    ]


def test_a_merge_that_training_has_undone_is_no_kept_budget() -> None:
    from onnxprune.pruning.gating.training import _require_budget

    analysis = onnxprune.analyze("models/residual_torchscript.onnx")
    total = analysis.totals["flops"]
    _require_budget(analysis, {"flops": total})
    with pytest.raises(BudgetError, match="were asked for"):
        _require_budget(analysis, {"flops": total - 1})
