"""Pruning and recovering in steps gives what one plan removes, whatever happens between the steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

import onnxprune
from onnxprune.analysis.analyzing import Analysis, analyze
from onnxprune.data.samples import Samples, collect
from onnxprune.errors import PlanError, UsageError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.provenance import steps_of
from onnxprune.pruning.choosing import choose
from onnxprune.pruning.options import JobOptions, PlanOptions
from onnxprune.pruning.pipeline import Compression, apply, run
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.rounds import composed, in_rounds, require_composed, rounds_of
from tests.cli.support import run as command

MODELS = Path(__file__).parents[2] / "models"
RESIDUAL = MODELS / "residual_torchscript.onnx"
MOMENT = 1e-3
"""Minutes that are over after the first step."""


@pytest.fixture(scope="module")
def samples() -> Samples:
    with np.load(MODELS / "fashion_sample.npz") as sample:
        images = sample["images"].astype(np.float32)[:, None] / 255
    model = onnxprune.load(RESIDUAL)
    images = images[np.random.default_rng(0).permutation(len(images))]
    return collect({model.graph.input[0].name: images}, model, 96)


@pytest.fixture(scope="module")
def stepped(samples: Samples) -> Compression:
    how: dict[str, Any] = {"recover": True, "minutes": MOMENT, "rounds": 3}
    return onnxprune.compress(RESIDUAL, reduce=0.7, round_to=1, calibration=samples, **how)


def test_rounds_give_one_proven_plan_against_the_original(stepped: Compression, tmp_path: Path) -> None:
    original, plan = onnxprune.load(RESIDUAL), stepped.plan
    assert stepped.certificate
    assert plan.settings["reduce"] == 0.7
    assert "max_flops" not in plan.settings
    assert "floors" not in plan.settings
    assert plan.before == onnxprune.plan(original, reduce=0.1).before
    assert plan.after["flops"] <= 0.3 * plan.before["flops"]
    assert analyze(stepped.model).totals["flops"] == plan.after["flops"]
    lefts = [one.left for one in stepped.rounds]
    assert lefts == pytest.approx([0.3 ** (1 / 3), 0.3 ** (2 / 3), 0.3], abs=0.02)
    stepped.save(tmp_path / "smaller.onnx")
    proof = onnxprune.prove(original, tmp_path / "smaller.onnx")
    assert proof.passed
    assert proof.same_original
    assert [step["step"] for step in proof.steps] == ["recover"]
    assert len(proof.steps[0]["rounds"]) == 3
    # A plan is what it always was: another job can apply it.
    shapes = {name: weight.shape for name, weight in apply(original, plan).weights.items()}
    assert shapes == {name: stepped.model.weights[name].shape for name in shapes}


def test_a_time_that_is_too_short_keeps_the_best_so_far(stepped: Compression) -> None:
    for one in stepped.rounds:
        assert one.damage is not None
        assert one.damage[1] <= one.damage[0]
    assert stepped.recovery is not None
    states = stepped.recovery.states
    assert states[stepped.recovery.kept].damage == min(state.damage for state in states)


def test_an_interruption_ends_recovering_and_the_budget_is_met(samples: Samples) -> None:
    heard = []

    def ended(state: Any) -> None:
        heard.append(state)
        if len(heard) == 2:
            raise KeyboardInterrupt

    job = JobOptions(calibration=samples, recover=True, minutes=MOMENT, rounds=3)
    made = run(onnxprune.load(RESIDUAL), PlanOptions(reduce=0.7, calibration=samples), job, watch=ended)
    assert len(heard) == 2
    assert [one.damage is None for one in made.rounds] == [False, True]
    assert made.recovery is None, "what was recovered is not what is given"
    _, told = steps_of(made.model)
    assert told["step"] == "recover"
    assert [one["damage"] is None for one in told["rounds"]] == [False, True]
    assert made.plan.after["flops"] <= 0.3 * made.plan.before["flops"]
    assert made.certificate


@pytest.mark.parametrize("name", ["residual_torchscript", "depthwise_dynamo", "vgg_torchscript", "unet_dynamo"])
def test_plans_composed_remove_what_they_remove_one_after_the_other(name: str) -> None:
    analysis = analyze(MODELS / f"{name}.onnx")
    _assert_composed(analysis, 1)


@pytest.mark.parametrize("grouped", ["aligned", "balanced", "whole"])
def test_groups_of_a_convolution_are_composed(grouped: str) -> None:
    _assert_composed(analyze(_grouped()), 1, grouped=grouped)


def test_one_group_that_is_left_is_no_longer_a_group() -> None:
    with pytest.raises(PlanError, match="prune in one round"):
        _assert_composed(analyze(_grouped(groups=2)), 1, grouped="whole")


def _assert_composed(analysis: Analysis, round_to: int, **how: Any) -> None:
    first = choose(analysis, PlanOptions(reduce=0.3, round_to=round_to, seed=1, **how))
    smaller = apply(analysis.model, first)
    second = choose(smaller, PlanOptions(reduce=0.3, round_to=round_to, seed=2, criterion="random", **how))
    both = Plan(composed(analysis, first, second), settings=second.settings)
    wanted, found = apply(smaller, second), apply(analysis.model, both)
    assert wanted.weights.keys() == found.weights.keys()
    assert all(np.array_equal(weight.array, found.weights[n].array) for n, weight in wanted.weights.items())
    require_composed(both, wanted, found, wanted)
    assert onnxprune.verify(analysis.model, found, both)


def _grouped(groups: int = 4) -> Model:
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        grouped (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) {
            a = Conv(x, first)
            b = Relu(a)
            c = Conv<group = GROUPS>(b, middle)
            y = Conv(c, last)
        }
    """
    proto = onnx.parser.parse_model(text.replace("GROUPS", str(groups)))
    rng = np.random.default_rng(0)
    shapes = {"first": (16, 4, 1, 1), "middle": (16, 16 // groups, 1, 1), "last": (4, 16, 1, 1)}
    for name, shape in shapes.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        )
    return onnxprune.load(proto)


def test_a_composition_that_is_wrong_is_noticed() -> None:
    analysis = analyze(RESIDUAL)
    first = choose(analysis, PlanOptions(reduce=0.3, round_to=1))
    smaller = apply(analysis.model, first)
    second = choose(smaller, PlanOptions(reduce=0.3, round_to=1))
    made, good = apply(smaller, second), Plan(composed(analysis, first, second))
    require_composed(good, made, apply(analysis.model, good), made)
    # As many channels of one group, but one of them another.
    tensor, dim, was = next(
        (t, d, at) for t, axes in good.removed.items() for d, at in axes.items() if max(at) > len(at)
    )
    instead = tuple(sorted({*was, next(p for p in range(max(was)) if p not in was)} - {was[0]}))
    shifted = {t: {d: instead if at == was else at for d, at in axes.items()} for t, axes in good.removed.items()}
    wrong = replace(good, removed=shifted)
    found = apply(analysis.model, wrong)
    with pytest.raises(VerificationError, match="same channels"):
        require_composed(wrong, made, found, made)
    assert not onnxprune.verify(analysis.model, made, wrong)
    with pytest.raises(VerificationError, match="another shape"):
        require_composed(good, made, made, smaller)
    # What the original couples is torn apart.
    with pytest.raises(PlanError, match="cannot be put together"):
        composed(analysis, first, Plan({tensor: {dim: (0,)}}))


def test_weights_that_compensation_adds_are_of_no_plan(samples: Samples) -> None:
    """No layer of this network has a bias; refitted ones do, and the next round removes parts of them."""
    model = _grouped(1)
    rng = np.random.default_rng(0)
    inputs = Samples({"x": rng.standard_normal((64, 4, 8, 8)).astype(np.float32) + 1}, None, 1, fixed=True)
    how: dict[str, Any] = {"recover": True, "minutes": MOMENT, "rounds": 2, "augment": "none"}
    made = onnxprune.compress(model, reduce=0.5, round_to=1, calibration=inputs, **how)
    assert made.certificate
    assert made.model.weights.keys() > model.weights.keys()
    assert made.plan.removed.keys().isdisjoint(made.model.weights.keys() - model.weights.keys())
    assert onnxprune.prove(model, made.model).passed


def test_floors_speak_of_the_original(samples: Samples) -> None:
    analysis = analyze(RESIDUAL)
    job = JobOptions(calibration=samples, recover=True, minutes=MOMENT, compensate="none")
    options = PlanOptions(reduce=0.4, floor=0.5, round_to=1, calibration=samples)
    done = in_rounds(analysis, options, job, samples, samples, 2, lambda _: _nothing())
    axes = analysis.coupling.axes
    for layer in analysis.costs.layers:
        place = axes.axis(layer.output_axis)
        gone = done.plan.removed.get(place.tensor, {}).get(place.dim, ())
        assert len(gone) <= 0.5 * axes.extents[layer.output_axis]


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_auto_looks_at_the_reduction_the_samples_and_the_time() -> None:
    analysis = analyze(RESIDUAL)

    def rounds(reduce: float, samples: int = 512, minutes: float = 20, **how: Any) -> int:
        return rounds_of("auto", PlanOptions(reduce=reduce, **how), analysis, samples, minutes)

    assert rounds(0.3) == 1
    assert rounds(0.7) == 3
    assert rounds(0.85) == 1
    assert rounds(0.7, samples=20) == 1
    assert rounds(0.7, minutes=1) == 1
    assert rounds(0.7, exact_norm=True) == 1
    assert rounds_of(5, PlanOptions(reduce=0.3), analysis, 8, 1) == 5


def test_what_rounds_cannot_do_is_said(samples: Samples, tmp_path: Path) -> None:
    how: dict[str, Any] = {"calibration": samples, "recover": True, "minutes": MOMENT, "rounds": 2}
    with pytest.raises(UsageError, match="give recover"):
        onnxprune.compress(RESIDUAL, reduce=0.5, calibration=samples, rounds=2)
    with pytest.raises(UsageError, match="channels is for one round"):
        onnxprune.compress(RESIDUAL, channels=0.5, **how)
    with pytest.raises(UsageError, match="exact_norm is for one round"):
        onnxprune.compress(RESIDUAL, reduce=0.5, exact_norm=True, **how)
    with pytest.raises(UsageError, match="all at once"):
        run(RESIDUAL, onnxprune.plan(RESIDUAL, reduce=0.3), JobOptions(**how))
    for wrong in (0, 17, "many"):
        with pytest.raises(UsageError, match="rounds must be auto"):
            JobOptions(**{**how, "rounds": wrong})
    out = tmp_path / "out.onnx"
    said = command("prune", RESIDUAL, "-o", out, "--reduce", 0.5, "--calibrate", MODELS, "--rounds", 3)
    assert "give recover" in said.stderr
    assert not out.exists()


def test_the_command_tells_of_its_rounds(tmp_path: Path) -> None:
    data, out = f"{MODELS / 'fashion_sample.npz'}?holdout=0.5", tmp_path / "out.onnx"
    how = ("--recover", "--rounds", "2", "--minutes", 0.01, "--no-bench")
    said = command("prune", RESIDUAL, "-o", out, "--reduce", 0.6, "--calibrate", data, *how)
    assert said.exit_code == 0, said.stderr
    assert "In 2 rounds" in said.stdout
    assert "Certificate passed" in said.stdout
