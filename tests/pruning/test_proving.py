"""What a file tells of itself, and what can be proven of it when its weights have changed since."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import PlanError, UsageError
from onnxprune.ir.model import Model
from onnxprune.ir.provenance import KEY, steps_of, with_step, with_steps, without_folders
from onnxprune.pruning.history import packed, plan_of, unpacked
from tests.cli.support import MODELS, done, done_json, run

VGG = MODELS / "vgg_torchscript.onnx"
DATA = MODELS / "fashion_sample.npz"


def changed(model: Model, name: str) -> Model:
    draft = model.edit()
    draft.weights[name] = model.weights[name].with_array(model.weights[name].array * np.float32(1.5))
    return draft.finish()


def test_plans_are_packed_without_loss() -> None:
    plan = onnxprune.plan(VGG, reduce=0.4)
    assert unpacked(packed(plan)) == plan
    assert len(packed(plan)) < len(json.dumps(plan.to_dict())) / 2
    for damaged in ("", "nonsense!", packed(plan)[:-9]):
        with pytest.raises(PlanError, match="metadata is damaged"):
            unpacked(damaged)


def test_the_file_tells_what_was_done_and_the_same_twice(tmp_path: Path) -> None:
    words = ("prune", VGG, "--reduce", 0.4, "--calibrate", DATA, "--calibration-samples", 64)
    for name in ("a", "b"):
        done(*words, "-o", tmp_path / f"{name}.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    made = onnxprune.load(tmp_path / "a.onnx")
    removal, repair = steps_of(made)
    assert removal["certificate"]["passed"]
    assert removal["settings"]["reduce"] == 0.4
    assert (repair["method"], repair["data"], repair["samples"]) == ("refit", "fashion_sample.npz", 64)
    assert repair["answers"]["verdict"] in ("kept", "damaged")
    assert str(MODELS) not in json.dumps([removal, repair])
    assert "onnxruntime" in removal["versions"]
    plan = plan_of(made)
    assert plan is not None
    assert plan.settings["reduce"] == 0.4


def test_nothing_is_told_where_that_is_not_wanted(tmp_path: Path) -> None:
    done("prune", VGG, "--reduce", 0.4, "--no-provenance", "-o", tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    assert KEY not in {entry.key for entry in model.metadata_props}
    assert run("verify", VGG, tmp_path / "a.onnx").exit_code == 2


def test_a_refitted_file_is_verified_by_itself_and_reported(tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    done("prune", VGG, "--reduce", 0.5, "--calibrate", DATA, "--plan-out", tmp_path / "p.json", "-o", out)
    for more in ((), (tmp_path / "p.json",)):
        text = " ".join(done("verify", VGG, out, *more).split())
        assert "With the original's values for " in text
        assert "Certificate passed" in text
        assert "Since then: compensate (refit, with fashion_sample.npz" in text
        assert "to the bit, what that left" in text
    told = done_json("verify", VGG, out)
    assert (told["passed"], told["as_left"], told["same_original"]) == (True, True, True)
    assert told["changed"]
    done("report", VGG, out, "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "weights that were changed since" in page
    assert "compensate (refit" in page
    assert 'verdict failed"' not in page


@pytest.mark.parametrize("recorded", [True, False])
def test_values_that_nobody_tells_of_fail(tmp_path: Path, recorded: bool) -> None:
    made = onnxprune.compress(VGG, reduce=0.4, provenance=recorded)
    name = next(name for name, weight in made.model.weights.items() if len(weight.shape) == 4)
    proof = onnxprune.prove(VGG, changed(made.model, name), made.plan)
    assert proof.changed == (name,)
    assert proof.certificate.passed  # the removal is right, and that is said
    assert not proof.passed
    assert f"those of {name} have changed" in proof.sentences[-1]
    told = with_step(changed(made.model, name), "train", {"step": 46})
    assert steps_of(told)[-1]["step"] == "train", "what is told does not name the step"
    assert onnxprune.prove(VGG, told, made.plan).passed
    assert not onnxprune.prove(VGG, changed(told, name), made.plan).passed


def test_a_wrong_removal_fails_whatever_the_file_tells() -> None:
    made = onnxprune.compress(VGG, reduce=0.4)
    other = onnxprune.compress(VGG, reduce=0.4, allocation="uniform")
    lying = with_steps(other.model, [*steps_of(made.model)])
    lying = with_step(lying, "train", {})
    assert not onnxprune.prove(VGG, lying).certificate.passed
    other_graph = made.model.edit()
    node = next(node for node in other_graph.graph.node if node.op_type == "Relu")
    node.op_type = "Sigmoid"
    assert not onnxprune.prove(VGG, with_step(other_graph.finish(), "train", {})).passed


def test_without_a_plan_there_is_nothing_to_prove() -> None:
    with pytest.raises(UsageError, match="does not tell what was removed; give the plan"):
        onnxprune.prove(VGG, VGG)


def test_damaged_provenance_counts_as_none() -> None:
    model = onnxprune.load(VGG)
    for text in ("{", "[]", '{"format": "onnxprune-provenance", "version": 99, "steps": []}', "[" * 100_000):
        draft = model.edit()
        draft.skeleton.metadata_props.add(key=KEY, value=text)
        assert steps_of(draft.finish()) == ()


def test_training_tells_that_it_trained(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done("prune", VGG, "--reduce", 0.4, "-o", tmp_path / "a.onnx")
    words = ("train", tmp_path / "a.onnx", "--data", f"{DATA}?holdout=0.2", "--epochs", 1, "--batch-size", 64)
    done(*words, "-o", tmp_path / "b.onnx")
    assert [step["step"] for step in steps_of(onnxprune.load(tmp_path / "b.onnx"))] == ["prune", "train"]
    text = " ".join(done("verify", VGG, tmp_path / "b.onnx").split())
    assert "Since then: train (with fashion_sample.npz?holdout=0.2, " in text
    plain = onnxprune.load(VGG)
    from onnxprune.torch import to_module, write_back

    module = to_module(plain)
    next(module.parameters()).data.mul_(2)
    assert not steps_of(write_back(module, plain))


@pytest.mark.parametrize(
    ("spec", "told"),
    [("/home/me/photos/?size=224", "photos?size=224"), ("data.npz", "data.npz"), ("mine:load", "mine:load")],
)
def test_folders_are_nobody_elses_business(spec: str, told: str) -> None:
    assert without_folders(spec) == told
