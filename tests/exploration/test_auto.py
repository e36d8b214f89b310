"""``auto``: levers searched together, and only what keeps all promises is given."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.data.bounds import Losses
from onnxprune.data.samples import Samples
from onnxprune.errors import AnswersError, BudgetError, DataError, UsageError
from onnxprune.exploration.auto import _recover, _tested, auto
from onnxprune.exploration.candidates import Candidate, ram_of
from onnxprune.ir.model import as_model
from onnxprune.latency.planner import taken
from onnxprune.pruning.options import AutoOptions
from onnxprune.pruning.promising import Trial
from tests.cli.support import done_json
from tests.helpers import GraphBuilder

VGG = Path(__file__).parents[2] / "models" / "vgg_dynamo.onnx"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pruning.promising._HALVINGS", 3)


def images(count: int = 400) -> Samples:
    pictures = np.random.default_rng(0).normal(0.3, 0.3, (count, 1, 28, 28)).astype(np.float32)
    return Samples({"image": pictures}, None, 1, fixed=True)


def test_the_best_keeps_all_promises() -> None:
    size = onnxprune.load(VGG).file_size
    found = auto(VGG, calibration=images(), max_loss=0.2, max_flash=0.9 * size, levers="channels", minutes=1)
    assert found.kept.bound.upper <= 0.2
    assert found.chosen.flash == found.model.file_size <= 0.9 * size
    # Budgets were looked at with room for what the file tells.
    assert found.model.file_size <= found.kept.best.made.flash <= 0.9 * size
    assert found.best.certificate
    assert not found.chosen.over(found.options)
    tested = [trial for trial in found.kept.trials if trial.bound is not None]
    assert found.chosen.seconds == min(t.made.seconds for t in tested if t.bound and t.bound.upper <= 0.2)
    assert f"--reduce {found.chosen.reduce:.6g}" in found.command(VGG, Path("out.onnx"))
    lesson = SimpleNamespace(states=[SimpleNamespace(seconds=90)])
    taught = replace(found.chosen, made=replace(found.chosen.made, recovery=lesson))  # type: ignore[arg-type]
    again = replace(found, chosen=taught).command(VGG, Path("out.onnx"))
    assert again.endswith("--calibration-samples 2048 --recover --minutes 1.5")
    json.dumps(found.to_dict())


def test_without_a_loss_the_budget_holds_and_the_loss_is_measured() -> None:
    size = onnxprune.load(VGG).file_size
    found = auto(VGG, calibration=images(), max_flash=0.7 * size, levers="channels", minutes=1)
    assert found.model.file_size <= 0.7 * size
    assert "Not promised, but measured" in found.sentences[0]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"calibration": images(9)}, UsageError, "promise something"),
        ({"max_loss": 0.1}, UsageError, "give data"),
        ({"max_loss": 0.1, "calibration": images(9), "levers": "int9"}, UsageError, "did you mean int8"),
        ({"max_loss": 0.01, "calibration": images(100)}, DataError, "at least 299"),
        ({"max_ram": 1000.0, "calibration": images(100)}, BudgetError, "inputs and outputs stay"),
    ],
)
def test_bad_wishes_are_told_before_any_work(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        auto(VGG, **options)  # type: ignore[arg-type]


def test_budgets_that_cannot_hold_name_the_nearest() -> None:
    with pytest.raises(BudgetError, match=r"the nearest .*the file has"):
        auto(VGG, calibration=images(100), max_flash=1000.0, levers="channels", minutes=1)


def test_a_loss_that_cannot_hold_names_the_nearest() -> None:
    with pytest.raises(AnswersError, match=r"nothing faster than the original|none of"):
        auto(VGG, calibration=images(3600), max_loss=0.0016, levers="channels", minutes=0.02)


def test_what_the_command_prints_is_what_the_schema_says(tmp_path: Path) -> None:
    told: Any = done_json(
        *(
            "auto",
            VGG,
            "-o",
            tmp_path / "o.onnx",
            "--data",
            VGG.with_name("fashion_sample.npz"),
            "--max-flash",
            "370kB",
        ),
        *("--levers", "channels", "--minutes", 0.1),
    )
    assert told["chosen"]["levers"] == "channels"
    assert told["times"] is None
    assert (tmp_path / "o.onnx").stat().st_size == told["chosen"]["flash"] <= 370_000


def test_levers_are_a_list() -> None:
    assert AutoOptions(levers=" int8,int8, channels").pulled == ("int8", "channels")


def test_budgets_that_hold_as_it_is_change_nothing() -> None:
    found = auto(VGG, calibration=images(100), max_flash=1e9, levers="channels", minutes=1)
    assert found.chosen.reduce == 0
    assert len(found.kept.trials) == 1
    assert not found.command(VGG, Path("out.onnx"))
    assert found.model.proto == onnxprune.load(VGG).proto


def test_losses_below_nothing_are_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.exploration.auto.prove", lambda promise, order, model: tuple(order))
    options = AutoOptions(max_flash=10, calibration="SPEC")
    searching: Any = SimpleNamespace(options=options, promise=None, progress=nullcontext)
    made: Any = None
    lucky, fast = (
        Trial(name, Candidate(made, 0.1, seconds, 9, 9), Losses(np.full(100, loss), "paired", ""))
        for name, seconds, loss in (("lucky", 2.0, -0.01), ("fast", 1.0, 0.0))
    )
    assert _tested(searching, [lucky, fast])[0] is fast


def test_what_has_changed_decides_the_order_of_tests_and_not_what_was_lost_by_luck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnxprune.exploration.auto.prove", lambda promise, order, model: tuple(order))
    searching: Any = SimpleNamespace(
        options=AutoOptions(max_loss=0.1, calibration="SPEC"), promise=None, progress=nullcontext
    )
    made: Any = None
    # Ten answers won and ten lost are more of a change than one lost.
    wild = np.repeat([1.0, -1.0, 0.0], [10, 10, 80])
    mild = np.repeat([1.0, 0.0], [1, 99])
    trials = [
        Trial(name, Candidate(made, 0.1, seconds, 9, 9), Losses(values, "paired", ""))
        for name, seconds, values in (("wild", 1.0, wild), ("mild", 2.0, mild))
    ]
    assert [trial.name for trial in _tested(searching, trials)] == ["mild", "wild"]


def test_no_time_for_a_recovery_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pruning.recovery.require_bridge", lambda: None)
    searching: Any = SimpleNamespace(left=0.5, skipped=[])
    _recover(searching, 0.1, lambda trial: trial)
    assert searching.skipped == [
        "No time for more recovery: 0.5 min were left, and one is begun with 2.2 min at least; give more minutes."
    ]


def test_memory_that_depends_on_data_is_refused_where_it_is_promised() -> None:
    model = as_model(
        onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        unknown (float[400] x) => (float[1, n] y) { at = NonZero(x) y = Cast<to = 1>(at) }""")
    )
    assert ram_of(model, AutoOptions(max_flash=10)) is None
    assert ram_of(onnxprune.load(VGG), AutoOptions(max_ram=10, ram_of="onnxruntime")) == taken(VGG).size
    with pytest.raises(BudgetError, match="max_ram cannot be promised: the shape of 'at'"):
        ram_of(model, AutoOptions(max_ram=10))


def test_regions_are_a_lever_and_the_command_makes_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.pruning.promising._HALVINGS", 2)
    path = VGG.with_name("residual_dynamo.onnx")
    found = auto(path, calibration=images(300), max_loss=0.9, levers="regions", minutes=1)
    assert found.chosen.levers == "regions"
    assert found.best.plan.replaced
    assert found.best.certificate
    assert f"--reduce {found.chosen.reduce:.6g} --levers regions" in found.command(path, Path("out.onnx"))
    assert not any(trial.made.levers == "channels" for trial in found.kept.trials[:-1] if trial.made.reduce)


def test_a_plan_does_not_know_what_is_done_after_it() -> None:
    with pytest.raises(UsageError, match=r"levers: int8 says nothing of a plan; here it is the option int8 \(--int8\)"):
        onnxprune.compress(VGG, reduce=0.5, levers="channels,int8")


@pytest.mark.slow
def test_recovery_is_a_lever_from_data_to_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of it: bolder candidates than a refit makes good are taught, judged, proven, written, and told of."""
    pytest.importorskip("torch")
    monkeypatch.setattr("onnxprune.exploration.auto._LEAST_MINUTES", 0.05)
    path = VGG.with_name("depthwise_dynamo.onnx")
    spec = str(VGG.with_name("fashion_sample.npz"))
    found = auto(path, calibration=spec, max_loss=0.1, levers="channels,int8,recovery", minutes=2)
    taught = [trial for trial in found.kept.trials if trial.made.made.recovery is not None]
    assert taught
    assert not any("No recovery" in line for line in found.skipped)
    refitted = [trial.made.reduce for trial in found.kept.trials if trial.made.made.recovery is None]
    assert max(trial.made.reduce for trial in taught) > min(refitted)
    for trial in taught:
        before, after = trial.made.made.recovery.states[0], trial.made.made.recovery.states[-1]  # type: ignore[union-attr]
        assert after.step >= before.step
    assert found.kept.bound.upper <= 0.1
    found.model.save(tmp_path / "best.onnx")
    assert onnxprune.load(tmp_path / "best.onnx").file_size == found.chosen.flash
    if found.chosen.made.recovery is not None:
        assert "--recover --minutes" in found.command(path, tmp_path / "best.onnx")
    else:
        assert "--recover" not in found.command(path, tmp_path / "best.onnx")


def test_a_model_whose_maps_cannot_be_smaller_is_searched_without(tmp_path: Path) -> None:
    g = GraphBuilder()
    x = g.op("Relu", g.op("Conv", g.input("x", ("n", 3, 12, 12)), g.weight(8, 3, 3, 3), pads=[1] * 4))
    g.output(g.op("MatMul", g.op("Flatten", x), g.weight(8 * 144, 4)))
    images = np.random.default_rng(0).standard_normal((900, 3, 12, 12)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=images)
    how: dict[str, Any] = {"calibration": str(tmp_path / "x.npz"), "max_loss": 0.9, "minutes": 0.2}
    found = onnxprune.auto(onnxprune.load(g.model()), levers="channels,resolution", **how)
    assert any("No smaller maps" in line for line in found.sentences)
    with pytest.raises(UsageError, match="levers 'resolution'"):
        onnxprune.auto(onnxprune.load(g.model()), levers="resolution", **how)
