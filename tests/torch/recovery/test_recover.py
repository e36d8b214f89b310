"""The original teaches the pruned model: what comes is better on samples that nothing learnt from, or as it was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import onnxprune
from onnxprune.cli.recovering import recovery_line
from onnxprune.data.samples import Samples, collect
from onnxprune.errors import CheckpointError, DataError, PlanError, TrainingError, UsageError, VerificationError
from onnxprune.pruning.pipeline import Compression
from onnxprune.pruning.recovery import Recovery, _batch_of
from onnxprune.torch.recovery import State
from onnxprune.torch.recovery.drawing import Draws
from onnxprune.torch.recovery.following import Teaching, _Lesson, _Run
from tests.helpers import GraphBuilder

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def samples() -> Samples:
    with np.load(MODELS / "fashion_sample.npz") as sample:
        images = sample["images"].astype(np.float32)[:, None] / 255
    images = images[np.random.default_rng(0).permutation(len(images))]
    model = onnxprune.load(MODELS / "residual_torchscript.onnx")
    return collect({model.graph.input[0].name: images}, model, 320)


@pytest.fixture(scope="module")
def pruned(samples: Samples) -> Compression:
    model = onnxprune.load(MODELS / "residual_torchscript.onnx")
    return onnxprune.compress(model, reduce=0.6, channels=None, calibration=samples.part(0, 128), certify=False)


def test_recovery_improves_the_answers_on_samples_held_out(pruned: Compression, samples: Samples) -> None:
    original = MODELS / "residual_torchscript.onnx"
    done = onnxprune.recover(pruned.model, original, samples, steps=15, augment="flip", lr=1e-2)
    first, last = done.states[0], done.states[done.kept]
    assert last.damage < 0.95 * first.damage
    assert done.blocks  # the residual network falls into blocks
    again = onnxprune.recover(pruned.model, original, samples, steps=15, augment="flip", lr=1e-2)
    assert all(
        np.array_equal(weight.array, again.model.weights[name].array) for name, weight in done.model.weights.items()
    )


def test_a_model_that_gets_worse_comes_back_as_it_was(pruned: Compression, samples: Samples) -> None:
    done = onnxprune.recover(pruned.model, MODELS / "residual_torchscript.onnx", samples, steps=3, lr=0.5, batch_size=8)
    assert done.kept == 0
    assert all(np.array_equal(weight.array, done.model.weights[n].array) for n, weight in pruned.model.weights.items())


def test_blocks_learn_apart_until_gates_open(pruned: Compression, samples: Samples) -> None:
    original = onnxprune.load(MODELS / "residual_torchscript.onnx")
    lesson = _Lesson.of(pruned.model, original, pruned.plan.removed, samples)
    run = _Run(pruned.model, lesson, samples, samples.part(0, 8), Teaching(steps=1))
    first = next(p for p in lesson.module.parameters() if p.requires_grad)
    for is_open in (False, True):
        for gate in run._gates:
            gate.open = is_open
        output = lesson.tried(lesson.module, lesson.entered(next(samples.batches())))[0]
        (gradient,) = torch.autograd.grad(output.sum(), [first], allow_unused=True)
        assert (gradient is not None) == is_open


def test_what_a_teacher_gives_lies_at_the_kept_positions(pruned: Compression, samples: Samples) -> None:
    original = onnxprune.load(MODELS / "residual_torchscript.onnx")
    lesson = _Lesson.of(pruned.model, original, pruned.plan.removed, samples)
    batch = next(samples.batches())
    wanted, found = lesson.answers(batch), lesson.tried(lesson.module, lesson.entered(batch))
    assert [t.shape for t in wanted] == [t.shape for t in found]
    # The refitted layers follow the original's channels, and no others.
    for got, target in zip(found, wanted, strict=True):
        assert torch.nn.functional.mse_loss(got, target) < target.var()


def test_problems_are_said(pruned: Compression, samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MODELS / "residual_torchscript.onnx"
    with pytest.raises(TrainingError, match="more samples"):
        onnxprune.recover(pruned.model, original, samples.part(0, 1), steps=1)
    with pytest.raises(PlanError, match="give the plan"):
        onnxprune.recover(original, original, samples, steps=1)
    with pytest.raises(UsageError, match="'blur' is not known"):
        onnxprune.recover(pruned.model, original, samples, steps=1, augment="blur")
    with pytest.raises(UsageError, match="some time"):
        onnxprune.recover(pruned.model, original, samples, minutes=0)
    with pytest.raises(VerificationError, match="another model"):
        onnxprune.recover(pruned.model, MODELS / "unet_dynamo.onnx", samples.part(0, 20), steps=1)
    monkeypatch.setitem(sys.modules, "onnxprune.torch.recovery", None)
    with pytest.raises(UsageError, match=r"pip install .*torch"):
        onnxprune.recover(pruned.model, original, samples)


def test_bad_samples_are_refused(pruned: Compression, samples: Samples) -> None:
    original = MODELS / "residual_torchscript.onnx"
    name, images = next(iter(samples.inputs.items()))
    cases = {
        "takes samples of": images[:, :, :20],
        "all 20 calibration samples are alike": np.repeat(images[:1], 20, axis=0),
        "NaN": np.where(np.arange(20).reshape(-1, 1, 1, 1) == 3, np.nan, images[:20]).astype(np.float32),
        "is empty": images[:0],
    }
    for message, array in cases.items():
        with pytest.raises(DataError, match=message):
            onnxprune.recover(pruned.model, original, {name: array}, steps=1)
        with pytest.raises(DataError, match=message):
            onnxprune.compress(original, reduce=0.3, calibration={name: array}, certify=False)


def test_a_teacher_that_is_not_the_original_is_noticed(pruned: Compression, samples: Samples) -> None:
    """The same layers with another weight: nothing but the file tells."""
    original = onnxprune.load(MODELS / "residual_torchscript.onnx")
    draft = original.edit()
    name, weight = next((n, w) for n, w in draft.weights.items() if w.dtype.kind == "f" and len(w.shape) == 4)
    draft.weights[name] = weight.with_array(weight.array * np.float32(1.01))
    other = draft.finish()
    with pytest.raises(VerificationError, match="not the original"):
        onnxprune.recover(pruned.model, other, samples.part(0, 20), steps=1)
    onnxprune.recover(pruned.model, other, samples.part(0, 20), steps=1, plan=pruned.plan)


def test_a_limit_that_is_too_short_says_so_and_keeps_the_best(pruned: Compression, samples: Samples) -> None:
    done = onnxprune.recover(pruned.model, MODELS / "residual_torchscript.onnx", samples.part(0, 40), minutes=1e-6)
    assert done.states[-1].step == 1
    assert "time for a single step" in recovery_line(done)
    assert done.states[done.kept].damage == min(state.damage for state in done.states)


def test_an_interruption_keeps_the_best(pruned: Compression, samples: Samples) -> None:
    def stop(state: State) -> None:
        if state.step:
            raise KeyboardInterrupt

    original = MODELS / "residual_torchscript.onnx"
    done = onnxprune.recover(pruned.model, original, samples, minutes=0.02, augment="flip", lr=1e-2, progress=stop)
    assert len(done.states) == 2
    assert done.states[done.kept].damage == min(state.damage for state in done.states)


def test_an_interrupted_recovery_goes_on_as_if_it_had_not_been(
    pruned: Compression, samples: Samples, tmp_path: Path
) -> None:
    original, file = MODELS / "residual_torchscript.onnx", tmp_path / "r.checkpoint"
    how = {"augment": "flip", "lr": 1e-2, "checkpoint": file}

    def recovered(steps: int, few: Samples = samples, **more: Any) -> Recovery:
        return onnxprune.recover(pruned.model, original, few, **{"steps": steps, **how, **more})

    whole = recovered(8)
    assert not file.exists()  # what has come to its end leaves nothing

    def stop(state: State) -> None:
        if state.step:
            raise KeyboardInterrupt

    # With so short a limit, which the number of steps overrides, it is measured after a step or two.
    cut = recovered(8, progress=stop, minutes=1e-3)
    assert 0 < cut.states[-1].step < 8
    assert file.exists()
    again = recovered(8, resume=True)
    assert [state.step for state in again.states][: len(cut.states)] == [state.step for state in cut.states]
    assert again.states[-1].step == whole.states[-1].step == 8
    assert again.states[-1].damage == whole.states[-1].damage
    assert not file.exists()
    recovered(8, progress=stop)
    with pytest.raises(CheckpointError, match="other samples"):
        recovered(8, samples.part(0, 100), resume=True)
    with pytest.raises(CheckpointError, match="augment flip and not none"):
        recovered(8, resume=True, augment="none")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        recovered(8, resume=True)
    file.unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        recovered(8, resume=True)
    with pytest.raises(UsageError, match="takes its checkpoint"):
        recovered(8, resume=True, checkpoint=None)


def test_the_command_and_the_option_of_prune_recover(tmp_path: Path) -> None:
    from tests.cli.support import run

    original, data = MODELS / "residual_torchscript.onnx", f"{MODELS / 'fashion_sample.npz'}?holdout=0.5"
    smaller, better = tmp_path / "smaller.onnx", tmp_path / "better.onnx"
    quick = ("--minutes", 0.03, "--augment", "flip")
    made = run(
        "prune", original, "-o", smaller, "--reduce", 0.5, "--calibrate", data, "--no-bench", "--recover", *quick
    )
    assert "Recovery with" in made.stdout or "Recovery found nothing better" in made.stdout
    done = run("recover", smaller, original, "-o", better, "--calibrate", data, *quick)
    assert "Answers" in done.stdout
    assert better.exists()
    assert "recovery learns from samples" in run("prune", original, "-o", smaller, "--reduce", 0.5, "--recover").stderr


def test_blocks_that_err_little_are_left_as_they_are(samples: Samples) -> None:
    """Only the last layers lose channels: what lies before them gives what the original gives, and does not learn."""
    original = onnxprune.load(MODELS / "residual_torchscript.onnx")
    last = [node.name for node in original.graph.node if node.op_type == "Conv"][-2:]
    pruned = onnxprune.compress(original, channels=0.5, include=last, calibration=samples, certify=False)
    lesson = _Lesson.of(pruned.model, original, pruned.plan.removed, samples)
    assert lesson.before is not None
    whole = [p for p in lesson.module.parameters() if p.requires_grad]
    assert 0 < len(whole) < len(list(lesson.module.parameters()))
    batch = next(samples.batches())
    outputs = onnxprune.data.fidelity.outputs_of(pruned.model, samples.first(len(next(iter(batch.values())))), "it")
    got = lesson.tried(lesson.module, lesson.entered(batch))[0].detach().numpy()
    assert np.abs(got - next(iter(outputs.values()))).max() < 1e-4
    done = onnxprune.recover(pruned.model, original, samples, plan=pruned.plan, steps=3)
    changed = [n for n, w in done.model.weights.items() if not np.array_equal(w.array, pruned.model.weights[n].array)]
    assert len(changed) <= len(whole)


def test_batches_come_again_and_go_on_from_anywhere(samples: Samples) -> None:
    def draws() -> Draws:
        return Draws(
            samples, 4, frozenset(("flip",)), 0, lambda x: ({}, [torch.from_numpy(v.copy()) for v in x.values()])
        )

    first, count = draws(), 54
    given = [first.next()[1][0] for _ in range(count)]
    # Sixteen batches at a time: each is there three times, in other orders.
    parts = (given[:16], given[16:32], given[32:48])
    sums = [[float(t.sum()) for t in part] for part in parts]
    assert len(set(sums[0])) == 16
    assert sorted(sums[0]) == sorted(sums[1]) == sorted(sums[2])
    assert sums[0] != sums[1] != sums[2]
    for stop in (1, 15, 16, 17, 31, 32, 35, 48, 50):
        one, other = draws(), draws()
        for _ in range(stop):
            one.next()
        other.go_on(*one.stands())
        assert all(torch.equal(other.next()[1][0], wanted) for wanted in given[stop:])


def test_steps_are_smaller_where_a_sample_costs_much(samples: Samples) -> None:
    small = onnxprune.load(MODELS / "residual_torchscript.onnx")
    assert _batch_of(small, samples) == 16
    g = GraphBuilder()
    x = g.op("Conv", g.input("x", ("n", 3, "h", "w")), g.weight(64, 3, 7, 7), pads=[3] * 4)
    g.output(g.op("Conv", x, g.weight(64, 64, 3, 3), pads=[1] * 4))
    large = onnxprune.load(g.model())
    sides = {
        side: _batch_of(large, Samples({"x": np.zeros((2, 3, side, side), np.float32)}, None, 2))
        for side in (32, 128, 512)
    }
    assert sides == {32: 16, 128: 13, 512: 4}
