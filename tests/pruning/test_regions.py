"""Regions that give way: what stands for them, the proof of it, and plans that name them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune.data.fidelity import measure_fidelity
from onnxprune.data.samples import collect
from onnxprune.errors import BudgetError, MeasurementError, PlanError, UsageError, VerificationError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ops.substitutes import KINDS, Kind, substitute
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.certificate.replaced import differences
from onnxprune.pruning.certificate.verifying import usual_inputs
from onnxprune.pruning.comparison import compare
from onnxprune.pruning.plan import Plan, Replacement
from onnxprune.pruning.regions.candidates import Candidate, candidates, select
from onnxprune.pruning.regions.paying import pays, select_paying
from onnxprune.pruning.substituting import replaced
from tests.cli.support import done_json, refused
from tests.helpers import GraphBuilder

RESIDUAL = "models/residual_torchscript.onnx"
SAMPLES = "models/fashion_sample.npz"
BLOCK = ("/stages/stages.0/Relu_1_output_0", "/stages/stages.1/second/second.0/Conv_output_0")


@pytest.fixture
def low_rank_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small layers of low rank are not always faster; what is tested with this is what becomes of them."""
    monkeypatch.setattr("onnxprune.pruning.levers.pays", lambda model, one: True)


def replacement(kind: Kind, ends: tuple[str, str] = BLOCK) -> Replacement:
    wide = kind in ("depthwise", "full", "factors")
    return Replacement(*ends, kind, (3, 3) if wide else (), 5 if kind == "factors" else 0)


def faults(source: Model, result: Model, *replacements: Replacement) -> list[str]:
    inputs = usual_inputs(onnxprune.analyze(source))
    return [str(one) for one in differences(source, result, replacements, inputs) if not one.passed]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_what_numpy_makes_of_it(kind: Kind) -> None:
    source = normalize(onnxprune.load(RESIDUAL))
    result = replaced(source, [replacement(kind)])
    before, after = (len(model.graph.node) for model in (source, result))
    # A branch of two layers and an activation; with "nothing", the addition goes, too.
    assert before - after == {"nothing": 4, "identity": 3, "factors": 1}.get(kind, 2)
    assert not faults(source, result, replacement(kind))


@pytest.mark.parametrize("kind", ["affine", "full", "factors"])
def test_a_wrong_substitute_is_noticed(kind: Kind) -> None:
    source = normalize(onnxprune.load(RESIDUAL))
    one = replacement(kind)
    result = replaced(source, [one])
    (index,) = (i for i, node in enumerate(result.graph.node) if node.output[0] == one.exit)
    index -= kind == "factors"  # the first of the two
    # Reading elsewhere.
    draft = result.edit()
    draft.graph.node[index].input[0] = "/MaxPool_output_0"
    assert any(one.exit in fault for fault in faults(source, draft.finish(), one))
    # Other padding than the plan says.
    draft = result.edit()
    if kind != "affine":
        pads = next(a for a in draft.graph.node[index].attribute if a.name == "pads")
        pads.CopyFrom(helper.make_attribute("pads", [2, 1, 0, 1]))
        assert any(one.exit in fault for fault in faults(source, draft.finish(), one))
    # Another weight than the original's, anywhere else.
    draft = result.edit()
    name = next(name for name in draft.weights if name in source.weights and draft.weights[name].size > 100)
    draft.weights[name] = draft.weights[name].with_array(draft.weights[name].array * 1.01)
    assert any(name in fault for fault in faults(source, draft.finish(), one))


def test_a_branch_that_ends_while_the_plan_says_otherwise_is_noticed() -> None:
    source = normalize(onnxprune.load(RESIDUAL))
    assert faults(source, replaced(source, [replacement("nothing")]), replacement("identity"))
    assert faults(source, source, replacement("nothing"))


def test_what_cannot_be_is_refused_by_name() -> None:
    source = normalize(onnxprune.load(RESIDUAL))
    inner = (BLOCK[0], "/stages/stages.1/Relu_output_0")
    for wrong, word in (
        ([replacement("affine", (BLOCK[1], BLOCK[0]))], "no region"),
        ([replacement("pointwise", inner), replacement("full")], "overlap"),
        ([replacement("nothing", inner)], "not added"),
        ([replace(replacement("full"), kernel=(2, 2))], "no such layer"),
    ):
        with pytest.raises(PlanError, match=word):
            replaced(source, wrong)


def test_what_is_no_float_has_no_layer_between() -> None:
    g = GraphBuilder()
    x = g.input("x", (1, 4, 6, 6))
    scale, zero = g.constant(np.float32(0.1)), g.constant(np.uint8(3))
    q = g.op("QuantizeLinear", g.op("Conv", x, g.weight(4, 4, 1, 1)), scale, zero)
    r = g.op("Conv", g.op("DequantizeLinear", q, scale, zero), g.weight(4, 4, 1, 1))
    g.output(r)
    source = normalize(onnxprune.load(g.model()))
    for kind in ("pointwise", "identity"):
        with pytest.raises(PlanError, match="region"):
            replaced(source, [Replacement(x, q, kind)])
    assert not faults(source, replaced(source, [Replacement(x, r, "pointwise")]), Replacement(x, r, "pointwise"))


def test_extents_that_no_stride_makes_have_no_substitute() -> None:
    maps = ((2, 8, 14, 14), (2, 8, 7, 7))
    found = substitute("full", *maps, (1, 1), (3, 3))
    assert found is not None
    assert dict(found.attributes)["strides"] == (2, 2)
    assert found.macs == 8 * 49 * 8 * 9 * 2
    assert substitute("full", *maps, (1, 1), (3, 3), frozenset((2,))) is None  # 15 would give 8 or 7, who knows
    assert substitute("pointwise", (2, 8, 7, 7), (2, 8, 14, 14), (1, 1), ()) is None
    assert substitute("affine", (2, 8, 7, 7), (2, 9, 7, 7), (1, 1), ()) is None
    rows = substitute("pointwise", (2, 5, 8), (2, 5, 6), (2, 2), ())
    assert rows is not None
    assert rows.op_type == "MatMul"
    assert rows.weight == (8, 6)


def test_plans_with_regions_are_kept_proven_and_told(tmp_path: Path) -> None:
    plan = Plan({}, replaced=(replacement("full"),))
    plan.save(tmp_path / "plan.json")
    again = Plan.load(tmp_path / "plan.json")
    assert again.replaced == plan.replaced
    assert again.to_dict()["requires"] == ["replaced"]
    result = onnxprune.apply(RESIDUAL, again)
    certificate = onnxprune.verify(RESIDUAL, result, again)
    assert certificate
    assert certificate.replaced == 1
    changes = {layer.name: layer for layer in compare(onnxprune.analyze(RESIDUAL), again).layers}
    gone = [name for name, layer in changes.items() if not layer.after.flops]
    new = [name for name, layer in changes.items() if not layer.before.flops]
    assert len(gone) == 2
    assert new == [f"{BLOCK[1]}_replaced"]
    for data in ({"entry": "a"}, {"entry": "a", "exit": "b", "kind": "magic"}, 3):
        with pytest.raises(PlanError):
            Plan.from_dict({**plan.to_dict(), "replaced": [data]})


def lines(count: int = 64) -> tuple[Model, dict[str, np.ndarray]]:
    """A residual branch of two layers that is linear but for an activation which never acts."""
    g = GraphBuilder()
    x = g.input("x", ("N", 4, 6, 6))
    a = g.op("Conv", x, g.weight(4, 4, 1, 1), g.constant(np.full(4, 100.0, np.float32)))
    b = g.op("Conv", g.op("Relu", a), g.weight(4, 4, 1, 1))
    g.output(g.op("Conv", g.op("Add", x, b), g.weight(3, 4, 1, 1)), ("N", 3, 6, 6), TensorProto.FLOAT)
    data = np.random.default_rng(0).standard_normal((count, 4, 6, 6)).astype(np.float32)
    return onnxprune.load(g.model()), {"x": data}


def test_what_is_linear_is_replaced_without_a_loss() -> None:
    model, data = lines()
    found = onnxprune.compress(model, reduce=0.3, levers="regions", calibration=data, round_to=1)
    (one,) = found.plan.replaced
    assert one.kind == "pointwise"
    assert found.certificate
    assert found.fidelity is not None
    assert found.fidelity.outputs[0].error < 1e-6
    assert found.plan.settings["levers"] == "regions"
    assert found.plan.settings["reduce"] == 0.3


def test_candidates_know_what_they_cost() -> None:
    model, data = lines()
    analysis = onnxprune.analyze(model)
    from onnxprune.data.samples import collect

    found = candidates(analysis, "flops", collect(data, analysis.model))
    (total,) = (node for node in analysis.model.graph.node if node.op_type == "Add")
    by_kind = {
        one.replacement.kind: one for one in found if one.replacement.exit == total.input[1] and len(one.nodes) > 2
    }
    assert by_kind["pointwise"].error < 1e-6 < by_kind["affine"].error <= 1.1
    assert by_kind["pointwise"].loss < by_kind["nothing"].loss
    assert by_kind["pointwise"].saved == 4 * 4 * 36
    graph = analysis.model.derived(Graph)
    assert {graph.nodes[i].op_type for i in by_kind["nothing"].nodes} == {"Conv", "Relu", "Add"}


def test_regions_that_lose_least_for_what_they_save_come_first() -> None:
    def one(number: int, nodes: tuple[int, ...], saved: float, loss: float) -> Candidate:
        return Candidate(Replacement(f"e{number}", f"x{number}", "identity"), nodes, saved, loss, loss)

    large, small, better = one(0, (1, 2, 3), 10, 5), one(1, (1,), 2, 0.1), one(2, (5,), 4, 1.0)
    assert select([large, small, better], 2) == (small,)
    assert select([large, small, better], 5) == (small, better)
    assert select([large, better], 11) == (better, large)
    assert select([large, small], 100) == (small,)  # the larger one overlaps; no more can be had


def test_regions_need_samples_and_a_budget_that_is_counted(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="calibration"):
        onnxprune.compress(RESIDUAL, reduce=0.5, levers="regions")
    with pytest.raises(UsageError, match="levers"):
        onnxprune.compress(RESIDUAL, reduce=0.5, levers="layers")
    model, data = lines(8)
    with pytest.raises(UsageError, match="16 samples"):
        onnxprune.compress(model, reduce=0.3, levers="regions", calibration=data)
    out = tmp_path / "out.onnx"
    line = refused(2, "prune", RESIDUAL, "-o", out, "--reduce", "0.5", "--levers", "regions")
    assert "calibration" in line
    assert not out.exists()


def test_the_command_line_tells_what_gave_way(tmp_path: Path) -> None:
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    told = done_json(
        *("prune", RESIDUAL, "-o", out, "--reduce", "0.1", "--levers", "regions", "--calibrate", SAMPLES),
        *("--calibration-samples", "64", "--no-bench", "--plan-out", plan),
    )
    assert told["certificate"]["passed"]
    assert told["certificate"]["replaced"] == len(Plan.load(plan).replaced) > 0
    proof = done_json("verify", RESIDUAL, out)
    assert proof["passed"]
    assert proof["changed"]


@pytest.mark.usefixtures("low_rank_pays")
def test_a_layer_of_low_rank_becomes_two_without_a_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    g = GraphBuilder()
    x = g.input("x", ("N", 24, 6, 6))
    low = (rng.standard_normal((24, 8)) @ rng.standard_normal((8, 24 * 9)) / 40).reshape(24, 24, 3, 3)
    a = g.op("Conv", x, g.constant(low.astype(np.float32)), g.vector(24), pads=[1, 1, 1, 1])
    g.output(g.op("Conv", g.op("Relu", a), g.weight(3, 24, 1, 1)), ("N", 3, 6, 6), TensorProto.FLOAT)
    model = onnxprune.load(g.model())
    data = {"x": rng.standard_normal((64, 24, 6, 6)).astype(np.float32)}
    found = onnxprune.compress(model, mode="params", reduce=0.4, levers="ranks", calibration=data, round_to=1)
    (one,) = found.plan.replaced
    assert (one.kind, one.kernel, one.rank, one.inner) == ("factors", (3, 3), 8, 0)
    assert found.plan.factored == (one,)
    assert one.error is not None
    assert one.error < 1e-9
    assert one.saved == {"params": 24 * 24 * 9 - 8 * 24 * 9 - 8 * 24}
    assert found.fidelity is not None
    assert found.fidelity.outputs[0].error < 1e-6
    found.save(tmp_path / "out.onnx")
    (tmp_path / "in.onnx").write_bytes(model.to_bytes())
    assert done_json("verify", tmp_path / "in.onnx", tmp_path / "out.onnx")["passed"]


@pytest.mark.usefixtures("low_rank_pays")
def test_a_layer_of_low_rank_on_both_sides_becomes_three_without_a_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    core, into, out = (rng.standard_normal(shape) for shape in ((8, 8, 3, 3), (8, 24), (24, 8)))
    low = np.einsum("ijhw,jc,oi->ochw", core, into, out) / 40
    g = GraphBuilder()
    x = g.input("x", ("N", 24, 6, 6))
    a = g.op("Conv", x, g.constant(low.astype(np.float32)), g.vector(24), pads=[1, 1, 1, 1])
    g.output(g.op("Conv", g.op("Relu", a), g.weight(3, 24, 1, 1)), ("N", 3, 6, 6), TensorProto.FLOAT)
    model = onnxprune.load(g.model())
    data = {"x": rng.standard_normal((64, 24, 6, 6)).astype(np.float32)}
    found = onnxprune.compress(model, mode="params", reduce=0.7, levers="ranks", calibration=data, round_to=1)
    (one,) = found.plan.replaced
    assert (one.kernel, one.rank, one.inner) == ((3, 3), 8, 8)
    assert Replacement.from_dict(one.to_dict()) == one
    assert "of rank 8 and 8" in str(one)
    assert found.fidelity is not None
    assert found.fidelity.outputs[0].error < 1e-6
    found.save(tmp_path / "out.onnx")
    (tmp_path / "in.onnx").write_bytes(model.to_bytes())
    assert done_json("verify", tmp_path / "in.onnx", tmp_path / "out.onnx")["passed"]
    base = normalize(model)
    assert not faults(base, replaced(base, [one]), one)
    for wrong in (replace(one, rank=7), replace(one, inner=7)):
        with pytest.raises(VerificationError, match="of this rank"):
            faults(base, replaced(base, [one]), wrong)


def test_factors_are_the_best_of_their_rank() -> None:
    """Against the closed form by singular values, on the rows that were fitted."""
    from onnxprune.pruning.compensation.factors import projected
    from onnxprune.pruning.compensation.gathering import Piece
    from onnxprune.pruning.compensation.solving import Solution

    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((200, 12)) * np.arange(1, 13), rng.standard_normal((12, 7))
    y = x @ w + rng.standard_normal(7)
    piece = Piece(x[None], y[None], np.arange(200), False)
    found = projected(Solution(200, 1.0, 0.0, 0.0, None, None, w[None], None), w[None], lambda: [piece], 3)
    best = np.square(np.linalg.svd((x - x.mean(axis=0)) @ w, compute_uv=False)[3:]).sum() / 200
    assert found.after == pytest.approx(best, rel=1e-9)
    assert [matrix.shape for matrix in found.matrices] == [(12, 3), (3, 7)]


def test_random_weights_are_not_written_by_mistake(tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out.onnx"
    Plan({}, replaced=(replacement("full"),)).save(plan)
    for words in ((), ("--calibrate", SAMPLES, "--compensate", "bias")):
        assert "random weights" in refused(2, "apply", RESIDUAL, plan, "-o", out, *words)
    assert not out.exists()
    done_json("apply", RESIDUAL, plan, "-o", out, "--compensate", "none", "--no-bench")
    model, data = lines()
    with pytest.raises(UsageError, match="allow more memory"):
        onnxprune.compress(model, reduce=0.3, levers="regions", calibration=data, round_to=1, memory=1)


def test_budgets_that_cannot_be_met_are_said() -> None:
    model, data = lines()
    for budget, levers, word in (
        ({"reduce": 0.9999}, "channels,regions", "nothing can be pruned"),
        ({"reduce": 0.3, "max_flops": 100.0}, "regions", "flops are left, and"),
    ):
        with pytest.raises(BudgetError, match=word):
            onnxprune.compress(model, levers=levers, calibration=data, mode="params", **budget)  # type: ignore[arg-type]


def test_factors_of_more_channels_than_outputs_are_left() -> None:
    found = onnxprune.compress(
        "models/unet_torchscript.onnx", reduce=0.5, levers="channels,ranks", calibration=SAMPLES, calibration_samples=48
    )
    assert found.certificate


def test_a_promise_with_regions_asks_the_criterion_for_each_form_of_the_model() -> None:
    model, data = lines(600)
    found = onnxprune.compress(model, max_loss=0.9, levers="channels,regions", calibration=data, round_to=1)
    assert found.promise is not None


def test_layers_that_do_not_pay_stay_as_they_are() -> None:
    def factors(exit: str, rank: int) -> Replacement:
        return Replacement("x", exit, "factors", (), rank)

    found = [
        Candidate(factors("a", 8), (1,), 100.0, 0.1, 1.0),
        Candidate(factors("a", 16), (1,), 60.0, 0.05, 2.0),
        Candidate(factors("b", 8), (2,), 100.0, 0.1, 9.0),
        Candidate(Replacement("x", "c", "full", (3, 3)), (3,), 100.0, 0.1, 20.0),
    ]
    asked: list[Replacement] = []

    def judge(one: Replacement) -> bool:
        asked.append(one)
        return one.exit != "a" or one.rank != 8

    chosen = select_paying(found, 150.0, judge, {})
    assert {one.replacement for one in chosen} == {factors("a", 16), factors("b", 8)}
    assert len(asked) == len(set(asked)), "each is timed once"
    assert all(one.kind == "factors" for one in asked)
    assert [one.replacement.exit for one in select_paying(found, 50.0, lambda one: False, {})] == ["c"]


def test_what_cannot_be_timed_alone_is_not_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    source = normalize(onnxprune.load(RESIDUAL))
    one = replacement("factors")

    def turns(models: list[Model], inputs: dict[str, np.ndarray], *rest: object) -> np.ndarray:
        before, after = models
        assert len(after.graph.node) == 2
        assert [i.name for i in before.graph.input] == list(inputs) == [one.entry]
        return times

    monkeypatch.setattr("onnxprune.pruning.regions.paying.taking_turns", turns)
    single = ("/stages/stages.0/Relu_output_0", "/stages/stages.0/second/second.0/Conv_output_0")
    one = replacement("factors", single)
    for after, paid in ((0.5, True), (1.0, False), (2.0, False)):
        times = np.array([[1.0, after]] * 3)
        assert pays(source, one) is paid

    def fails(*_: object) -> np.ndarray:
        raise MeasurementError("no")

    monkeypatch.setattr("onnxprune.pruning.regions.paying.taking_turns", fails)
    assert pays(source, one)


def test_passes_apply_what_a_plan_names(tmp_path: Path) -> None:
    single = ("/stages/stages.0/Relu_output_0", "/stages/stages.0/second/second.0/Conv_output_0")
    both = (replacement("full"), replacement("factors", single))
    plan, out = tmp_path / "plan.json", tmp_path / "out.onnx"
    Plan({}, replaced=both).save(plan)
    steps = f"substitute{{plan='{plan}'}}, factorize{{plan='{plan}'}}"
    done_json("run", RESIDUAL, "-o", out, "--pipeline", steps)
    made = normalize(onnxprune.load(out))
    expected = replaced(normalize(onnxprune.load(RESIDUAL)), both)
    assert [node.op_type for node in made.graph.node] == [node.op_type for node in expected.graph.node]
    assert not faults(normalize(onnxprune.load(RESIDUAL)), made, *both)
    done_json("run", RESIDUAL, "-o", out, "--force", "--pipeline", f"substitute{{plan='{plan}' calibrate='{SAMPLES}'}}")
    fitted = normalize(onnxprune.load(out))
    source = onnxprune.load(RESIDUAL)
    (output,) = measure_fidelity(source, fitted, collect(SAMPLES, source, 64)).outputs
    assert output.agreement is not None
    assert output.agreement > 0.9, "random weights would leave a tenth"


def test_explain_lists_regions_and_tells_of_a_plan(tmp_path: Path) -> None:
    told = done_json("explain", RESIDUAL, "--regions")
    branch = next(one for one in told["regions"] if (one["entry"], one["exit"]) == BLOCK)
    assert branch["flops"] == 2 * 16 * 16 * 9 * 14 * 14
    assert branch["params"] == 2 * (16 * 16 * 9 + 16)
    assert (branch["reads"], branch["makes"], branch["seconds"]) == ([1, 16, 14, 14], [1, 16, 14, 14], None)
    plan = tmp_path / "plan.json"
    Plan({}, replaced=(replace(replacement("full"), saved={"flops": 451584.0}, error=0.125),)).save(plan)
    (named,) = done_json("explain", RESIDUAL, "--plan", plan)["replaced"]
    assert "MACs −452 k" in named["words"]
    assert "12.5 %" in named["words"]
    Plan({}, replaced=(Replacement("image", BLOCK[0], "identity"),)).save(plan)
    assert "region" in refused(2, "explain", RESIDUAL, "--plan", plan)
    assert "--times" in refused(2, "explain", RESIDUAL, "--times", "--plan", plan)
    assert "leave out" in refused(2, "explain", RESIDUAL, "--regions", "--dot", tmp_path / "x.dot")


def test_products_that_cancel_each_other_are_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    g = GraphBuilder()
    x = g.input("x", (2, 15, 8))
    g.output(g.op("Relu", g.op("MatMul", x, g.weight(8, 4))), (2, 15, 4))
    source = normalize(onnxprune.load(g.model()))
    one = Replacement("x", source.graph.node[0].output[0], "pointwise")
    result = replaced(source, [one])
    (name,) = (node.input[1] for node in result.graph.node if node.op_type == "MatMul")
    draft = result.edit()
    weight = draft.weights[name].array.copy()
    weight[4:] = -weight[:4]
    draft.weights[name] = draft.weights[name].with_array(weight)
    cancelling = draft.finish()
    rng = np.random.default_rng(0)
    half = rng.standard_normal((2, 15, 4)).astype(np.float32)
    inputs = {"x": np.concatenate([half, half + np.float32(1e-6) * half], axis=2)}
    assert all(found.passed for found in differences(source, cancelling, [one], inputs))
    monkeypatch.setattr("onnxprune.pruning.certificate.replaced._ROUNDING", 0)
    assert not all(found.passed for found in differences(source, cancelling, [one], inputs)), "nothing cancels here"
