"""Explorations from model and data to a table, and picks from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import onnxprune
from onnxprune.data import Data
from onnxprune.data.fidelity import measure_fidelity
from onnxprune.data.samples import collect
from onnxprune.data.tasks import Answers
from onnxprune.errors import BudgetError, DataError, OnnxPruneError, ResultsError, UsageError
from onnxprune.exploration import Grid, Limits, choose, explore, pick, read_results
from onnxprune.exploration.exploring import Exploration, Progress
from onnxprune.exploration.judging import share_left
from onnxprune.exploration.picking import setting_of
from onnxprune.exploration.results import Results
from onnxprune.exploration.runs import Run, Setting, run_of
from onnxprune.exploration.steps import Compensate, Float, Int8, Nothing, Train
from onnxprune.ir.model import Model, load
from onnxprune.ir.sampling import exactly
from onnxprune.pruning.plan import Plan
from onnxprune.pruning.proving import prove
from onnxprune.pruning.quantization import quantizing, selecting
from tests.exploration.support import ABOUT, QUICK, made_up, recorded, tiny_data, tiny_model

GRID = Grid(modes=["flops", "params"], reduce=[0.3, 0.6])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_data(tmp_path)


@dataclass(frozen=True)
class Fragile:
    """Works unless a file is there; notes every call in another one."""

    folder: str

    @property
    def name(self) -> str:
        return "fragile"

    def to_dict(self, seed: int) -> Mapping[str, Any]:
        return {}

    def __call__(self, pruned: Model, original: Model, plan: Plan, data: Data, seed: int) -> Model:
        folder = Path(self.folder)
        with (folder / "calls").open("a") as calls:
            calls.write(f"{plan.settings['mode']} {plan.settings['reduce']}\n")
        if (folder / f"broken {plan.settings['mode']}").exists():
            raise RuntimeError("the power is out")
        if (folder / "interrupt").exists() and plan.settings["reduce"] == 0.6:
            raise KeyboardInterrupt
        return pruned

    @property
    def calls(self) -> list[str]:
        return (Path(self.folder) / "calls").read_text().splitlines()


def share_of_right_answers(model: Path, data: Path) -> float:
    """Counted by hand."""
    arrays = np.load(data)
    (scores,) = ort.InferenceSession(model).run(None, {"x": arrays["x_test"]})
    return float((scores.argmax(axis=1) == arrays["y_test"]).mean())


def test_every_run_has_the_figures_of_its_model(tmp_path: Path, model: Path, data: Path) -> None:
    how = Exploration(rounds=exactly(2, 1), keep=tmp_path / "kept")
    results = explore(model, str(data), tmp_path / "r.sqlite", GRID, how=how)
    assert results.about.score == "accuracy"
    assert results.original is not None
    assert results.original.accuracy == pytest.approx(share_of_right_answers(model, data), abs=1e-12)
    assert [(run.mode, run.reduce) for run in results.runs] == [
        ("flops", 0.3), ("params", 0.3), ("flops", 0.6), ("params", 0.6)
    ]  # fmt: skip
    for run in results.runs:
        assert run.done, run.message
        kept = tmp_path / "kept" / f"{run.key}.onnx"
        assert run.accuracy == pytest.approx(share_of_right_answers(kept, data), abs=1e-12)
        assert run.size == kept.stat().st_size
        plan = results.plan(run.key)
        assert plan == onnxprune.plan(model, mode=run.mode, reduce=run.reduce)
        totals = onnxprune.analyze(kept).totals
        assert (run.params, run.flops, run.memory) == (totals["params"], totals["flops"], totals["memory"])
        limit = results.original.params if run.mode == "params" else results.original.flops
        assert limit is not None
        assert totals[run.mode] <= (1 - run.reduce) * limit
        assert run.latency_ratio is not None
        assert results.original.latency is not None
        assert run.latency == pytest.approx(run.latency_ratio * results.original.latency)


def test_a_second_time_nothing_is_made_again(tmp_path: Path, model: Path, data: Path) -> None:
    step, table = Fragile(str(tmp_path)), tmp_path / "r.sqlite"
    grid = replace(GRID, steps=[step])
    first = explore(model, str(data), table, replace(grid, reduce=[0.3]), how=QUICK)
    both = explore(model, str(data), table, grid, how=QUICK)
    assert both.runs[:2] == first.runs
    assert explore(model, str(data), table, grid, how=QUICK) == both
    assert sorted(step.calls) == ["flops 0.3", "flops 0.6", "params 0.3", "params 0.6"]


def test_latencies_may_come_later(tmp_path: Path, model: Path, data: Path) -> None:
    table = tmp_path / "r.sqlite"
    explore(model, str(data), table, replace(GRID, reduce=[0.3]), how=QUICK)
    results = explore(model, str(data), table, GRID, how=replace(QUICK, rounds=exactly(2, 1)))
    assert [run.latency is None for run in results.runs] == [True, True, False, False]
    assert results.original is not None
    assert results.original.latency is not None
    assert results.about.engine["threads"] == 1
    assert results.resources == ("params", "flops", "memory", "size")
    # What so small a model takes is noise: the original's is said to be the longest, or it might beat all runs.
    slowest = max(run.latency or 0.0 for run in results.runs)
    results = replace(results, original=replace(results.original, latency=2 * slowest))
    picked = pick(results, Limits(max_latency=1.0), tmp_path / "o.onnx", rounds=exactly(2, 1))
    assert picked.run in results.runs[2:]
    assert picked.checked.latency is not None


def test_the_same_model_elsewhere_is_the_same(tmp_path: Path, model: Path, data: Path) -> None:
    explore(model, str(data), tmp_path / "r.sqlite", GRID, how=QUICK)
    (tmp_path / "moved").mkdir()
    moved = model.rename(tmp_path / "moved" / "renamed.onnx")
    seen: list[Progress] = []
    explore(moved, str(data), tmp_path / "r.sqlite", GRID, how=replace(QUICK, progress=seen.append))
    assert seen == [Progress(4, 4, 0)]


def test_other_models_and_data_are_refused(tmp_path: Path, model: Path, data: Path) -> None:
    table = tmp_path / "r.sqlite"
    explore(model, str(data), table, GRID, how=QUICK)
    other_model = tiny_model(tmp_path, seed=1, name="other.onnx")
    other_data = tiny_data(tmp_path, seed=1, name="other.npz")
    with pytest.raises(ResultsError, match="another model"):
        explore(other_model, str(data), table, GRID, how=QUICK)
    with pytest.raises(ResultsError, match="other data"):
        explore(model, str(other_data), table, GRID, how=QUICK)
    with pytest.raises(ResultsError, match="other data"):
        explore(model, f"{data}?mean=0.5", table, GRID, how=QUICK)
    with pytest.raises(ResultsError, match="is not the model of"):
        pick(table, Limits(), tmp_path / "o.onnx", model=other_model)
    with pytest.raises(ResultsError, match="is not the data of"):
        pick(table, Limits(), tmp_path / "o.onnx", data=str(other_data))
    with pytest.raises(DataError):
        explore(model, str(tmp_path / "nothing.npz"), table, GRID, how=QUICK)
    assert len(read_results(table).runs) == 4


def test_failures_are_recorded_and_the_rest_goes_on(tmp_path: Path, model: Path, data: Path) -> None:
    step, table = Fragile(str(tmp_path)), tmp_path / "r.sqlite"
    grid = replace(GRID, reduce=[0.3, 0.999], steps=[step])
    (tmp_path / "broken params").touch()
    results = explore(model, str(data), table, grid, how=QUICK)
    by_setting = {(run.mode, run.reduce): run for run in results.runs}
    assert by_setting["flops", 0.3].done
    assert "smallest reachable value" in by_setting["flops", 0.999].message
    assert by_setting["params", 0.3].message == "unexpected RuntimeError: the power is out"
    assert len(results.failed) == 3
    assert len(step.calls) == 2

    (tmp_path / "broken params").unlink()
    explore(model, str(data), table, grid, how=QUICK)
    assert len(step.calls) == 2, "what failed is left alone until it is asked for"
    results = explore(model, str(data), table, grid, how=replace(QUICK, retry=True))
    assert {(run.mode, run.reduce) for run in results.done} == {("flops", 0.3), ("params", 0.3)}
    assert step.calls[2:] == ["params 0.3"]


def test_an_interrupted_exploration_goes_on(tmp_path: Path, model: Path, data: Path) -> None:
    step, table = Fragile(str(tmp_path)), tmp_path / "r.sqlite"
    grid = replace(GRID, steps=[step])
    (tmp_path / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        explore(model, str(data), table, grid, how=QUICK)
    assert len(read_results(table).runs) == 2
    (tmp_path / "interrupt").unlink()
    assert len(explore(model, str(data), table, grid, how=QUICK).done) == 4
    assert sorted(step.calls) == ["flops 0.3", "flops 0.6", "flops 0.6", "params 0.3", "params 0.6"]


def test_unlabelled_data_gives_agreement(tmp_path: Path, model: Path) -> None:
    data = tiny_data(tmp_path, labelled=False)
    results = explore(model, str(data), tmp_path / "r.sqlite", replace(GRID, modes=["flops"]), how=QUICK)
    assert results.about.score == "answers"
    assert results.original is not None
    assert results.original.accuracy == 1.0
    kept = pick(results, Limits(max_flops=results.runs[1].flops), tmp_path / "o.onnx")
    # The measure is that of 'prune': by the task of the outputs.
    samples = collect({"x": np.load(data)["x_test"]}, load(model))
    fidelity = measure_fidelity(load(model), load(tmp_path / "o.onnx"), samples)
    assert kept.checked.accuracy == pytest.approx(fidelity.share)


def test_a_refitted_pick_is_proven(tmp_path: Path, model: Path, data: Path) -> None:
    grid = replace(GRID, modes=["flops"], reduce=[0.3], steps=[Compensate(samples=16)])
    explore(model, str(data), tmp_path / "r.sqlite", grid, how=QUICK)
    pick(tmp_path / "r.sqlite", Limits(max_params=1e9), tmp_path / "o.onnx")
    proof = prove(model, tmp_path / "o.onnx")
    assert proof.changed
    assert proof.passed
    assert [step["step"] for step in proof.steps] == ["compensate"]


def test_agreement_is_that_of_the_task_over_all_outputs() -> None:
    """A model that still has its boxes and lost its scores keeps nothing, wherever the first output is."""
    rng = np.random.default_rng(0)
    scores, others = rng.standard_normal((2, 50, 10)) * 20
    boxes = list(rng.standard_normal((50, 4)))
    before = Answers({"values": boxes, "scores": list(scores)})
    assert share_left(before, before) == 1
    assert share_left(before, Answers({"values": boxes, "scores": list(others)})) < 0.4
    assert share_left(before, Answers({"values": boxes})) == 0


@pytest.mark.parametrize("keep", [False, True])
def test_the_pick_is_written_and_measured_again(tmp_path: Path, model: Path, data: Path, keep: bool) -> None:
    folder = tmp_path / "kept" if keep else None
    results = explore(model, str(data), tmp_path / "r.sqlite", GRID, how=replace(QUICK, keep=folder))
    limit = sorted(run.params or 0 for run in results.runs)[1]
    picked = pick(tmp_path / "r.sqlite", Limits(max_params=limit), tmp_path / "out.onnx", keep=folder)
    assert picked.origin == ("kept" if keep else "rebuilt")
    assert picked.checked.accuracy == share_of_right_answers(tmp_path / "out.onnx", data)
    assert picked.checked.accuracy == picked.run.accuracy
    assert picked.run.accuracy == max(run.accuracy or 0 for run in results.runs if (run.params or 0) <= limit)
    assert onnxprune.analyze(tmp_path / "out.onnx").totals["params"] == picked.run.params


def test_a_kept_file_that_was_changed_is_not_used(tmp_path: Path, model: Path, data: Path) -> None:
    folder = tmp_path / "kept"
    results = explore(model, str(data), tmp_path / "r.sqlite", GRID, how=replace(QUICK, keep=folder))
    for file in folder.iterdir():
        file.write_bytes(model.read_bytes())
    picked = pick(results, Limits(max_params=results.runs[0].params), tmp_path / "out.onnx", keep=folder)
    assert picked.origin == "rebuilt"


def test_what_does_not_hold_when_measured_again_is_passed_over(tmp_path: Path, model: Path, data: Path) -> None:
    explore(model, str(data), tmp_path / "r.sqlite", GRID, how=QUICK)
    import sqlite3

    with sqlite3.connect(tmp_path / "r.sqlite") as table:  # Claims that the model does not live up to.
        table.execute("UPDATE runs SET params = 1, accuracy = 0.99 WHERE mode = 'params' AND reduce < 0.5")
    results = read_results(tmp_path / "r.sqlite")
    limit = max(run.params or 0 for run in results.runs if run.mode == "flops" and run.reduce > 0.5)
    picked = pick(results, Limits(max_params=limit), tmp_path / "out.onnx")
    (boaster, why), *_ = picked.passed_over
    assert boaster.accuracy == 0.99
    assert "parameters instead of" in why
    assert (picked.checked.params or 0) <= limit
    (tmp_path / "out.onnx").unlink()
    with pytest.raises(BudgetError, match="not as measured now; nothing was written"):
        pick(results, Limits(max_params=1), tmp_path / "out.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.npz", "model.onnx", "r.sqlite"]


def test_the_original_is_not_replaced(tmp_path: Path, model: Path, data: Path) -> None:
    before = model.read_bytes()
    results = explore(model, str(data), tmp_path / "r.sqlite", GRID, how=QUICK)
    with pytest.raises(OnnxPruneError, match="loaded from"):
        pick(results, Limits(), model)
    assert model.read_bytes() == before


def test_the_choice_follows_the_limits(tmp_path: Path) -> None:
    a = made_up(0, accuracy=0.95, params=300.0, latency=0.009)
    b = made_up(1, accuracy=0.91, params=200.0, latency=0.006)
    c = made_up(2, accuracy=0.85, params=100.0, latency=0.002)
    results = read_results(recorded(tmp_path / "r.sqlite", c, a, b, made_up(3, status="failed", accuracy=1.0)))
    assert choose(results, Limits()) == (a, b), "the original is as fast as c, and more accurate"
    assert choose(results, Limits(max_params=250)) == (b, c)
    assert choose(results, Limits(min_accuracy=0.9)) == (b, a), "the fastest that is accurate enough"
    assert choose(results, Limits(min_accuracy=0.9, max_latency=0.006)) == (b,)
    assert choose(results, Limits(), best="params") == (c, b, a)
    with pytest.raises(UsageError, match="speed"):
        choose(results, Limits(), best="speed")
    with pytest.raises(BudgetError, match=r"none of the 3 .* nearest is .* seed 1.*latency 6.000 ms instead of 5"):
        choose(results, Limits(min_accuracy=0.9, max_latency=0.005))
    with pytest.raises(BudgetError, match="no finished run"):
        choose(read_results(recorded(tmp_path / "s.sqlite", made_up(3, status="failed"))), Limits())


class Searched:
    """A search among made-up runs, which end in another order than they were asked for."""

    def __init__(self, folder: Path, count: int, jobs: int, seed: int = 0, worth: float = 1.0) -> None:
        from onnxprune.exploration.optimising import optimise

        self.asked: list[Setting] = []
        self.batches: list[int] = []
        self._runs: dict[str, Run] = {}
        self._folder, self._jobs, self._worth = folder, jobs, worth
        grid = Grid(reduce=[0.1, 0.9], criteria=["l1", "l2"], allocations=["uniform", "global"])
        self.found = optimise(grid, count, self._make, seed=seed)

    def _make(self, settings: Sequence[Setting]) -> Results:
        self.asked += settings
        self.batches.append(len(settings))
        for number in range(self._jobs):
            for setting in settings[number :: self._jobs][::-1]:
                reduce = setting.reduce or 0.0
                good = setting.criterion == "l2" and setting.allocation == "global"
                accuracy = self._worth * (1 - reduce**3 if good else 0.5 - 0.5 * reduce)
                fields: dict[str, Any] = run_of(str(len(self._runs)), setting)
                status: Any = "failed" if reduce > 0.85 else "done"
                run = Run(**{**fields, "status": status, "accuracy": accuracy, "flops": 1 - reduce})
                self._runs.setdefault(run.settings, run)
        return Results(self._folder / "r.sqlite", ABOUT, None, tuple(self._runs.values()))


def test_a_search_that_learns_finds_what_is_best(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    search = Searched(tmp_path, 40, 1)
    assert search.batches == [13, 8, 8, 8, 3]
    late = search.asked[20:]
    assert sum(s.criterion == "l2" and s.allocation == "global" for s in late) > len(late) / 2
    assert search.found.failed or all((setting.reduce or 0) <= 0.85 for setting in search.asked)
    assert Searched(tmp_path, 3, 1).batches == [3]


@pytest.mark.parametrize("jobs", [1, 2, 3, 16])
def test_equal_seeds_ask_for_equal_runs_however_many_are_made_side_by_side(tmp_path: Path, jobs: int) -> None:
    pytest.importorskip("optuna")
    asked = Searched(tmp_path, 30, 1, seed=5).asked
    assert len(asked) == 30
    assert Searched(tmp_path, 30, jobs, seed=5).asked == asked
    assert Searched(tmp_path, 30, jobs, seed=6).asked != asked


def test_an_accuracy_of_nothing_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna = pytest.importorskip("optuna")
    studies, create = [], optuna.create_study

    def creating(**how: Any) -> Any:
        studies.append(create(**how))
        return studies[-1]

    monkeypatch.setattr(optuna, "create_study", creating)
    search = Searched(tmp_path, 12, 1, worth=0.0)
    bad = [(setting.reduce or 0) > 0.85 for setting in search.asked]
    assert any(bad)
    assert [trial.state.name for trial in studies[0].trials] == ["FAIL" if one else "COMPLETE" for one in bad]
    assert all(trial.values[0] == 0 for trial in studies[0].trials if trial.state.name == "COMPLETE")


def test_searches_grow(tmp_path: Path) -> None:
    grid = Grid(reduce=[0.2, 0.8], criteria=["l1", "l2"], seeds=[0, 1, 2])
    short, long = grid.search(8, seed=3), grid.search(60, seed=3)
    assert long[: len(short)] == short
    assert grid.search(8, seed=4) != short
    assert len(long) == 60
    reductions = sorted(setting.reduce for setting in long)
    assert reductions[0] >= 0.2
    assert reductions[-1] <= 0.8
    assert max(np.diff(reductions)) < 0.03, "they cover the range evenly"
    for attribute, values in (("mode", 3), ("criterion", 2), ("seed", 3)):
        counts = np.unique([str(getattr(s, attribute)) for s in long], return_counts=True)[1]
        assert len(counts) == values
        assert counts.min() >= 60 / values - 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"reduce": []},
        {"reduce": [0.0]},
        {"reduce": [1.5]},
        {"modes": ["speed"]},
        {"seeds": []},
        {"criteria": ["l2", "l3"]},
        {"allocations": ["fair"]},
    ],
)
def test_odd_grids_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Grid(**wrong)


def test_criteria_that_look_at_data_get_some(tmp_path: Path, model: Path, data: Path) -> None:
    grid = Grid(modes=["flops"], reduce=[0.5], criteria=["activation", "l2"], allocations=["global", "uniform"])
    results = explore(model, str(data), tmp_path / "r.sqlite", grid, how=QUICK)
    assert [run.message for run in results.failed] == []
    assert len({results.plan_json(run.key) for run in results.runs}) == 4


def test_modes_have_two_names() -> None:
    assert [s.mode for s in Grid(modes=["pa", "params", "fa"], reduce=[0.5]).settings()] == ["params", "flops"]


def test_what_follows_the_pruning_is_part_of_the_run(tmp_path: Path, model: Path, data: Path) -> None:
    steps = [Nothing(), Compensate("bias", 16), Train((("epochs", 2), ("batch_size", 8), ("lr", 0.01)))]
    grid = Grid(modes=["flops"], reduce=[0.5], steps=steps, seeds=[1])
    table = tmp_path / "r.sqlite"
    results = explore(model, str(data), table, grid, how=QUICK)
    assert [run.then for run in results.done] == ["nothing", "compensate", "train"]
    assert len({run.key for run in results.runs}) == 3
    assert explore(model, str(data), table, replace(grid, steps=steps[2:]), how=QUICK) == results
    more = replace(grid, steps=[Train((("epochs", 3), ("batch_size", 8), ("lr", 0.01)))])
    assert len(explore(model, str(data), table, more, how=QUICK).runs) == 4

    # The model of a run with training is trained again, and comes out the same.
    for run in results.runs:
        assert setting_of(json.loads(run.settings)).to_dict() == json.loads(run.settings)
        made = Results(table, results.about, results.original, (run,))
        picked = pick(made, Limits(), tmp_path / f"{run.then}.onnx")
        assert picked.checked.accuracy == run.accuracy
    weights = [onnxprune.load(tmp_path / f"{then}.onnx").weights for then in ("nothing", "compensate", "train")]
    changed = [
        [name for name in weights[0] if not np.array_equal(weights[0][name].array, other[name].array)]
        for other in weights[1:]
    ]
    assert changed[0]
    assert set(changed[0]) < set(changed[1]), "biases are compensated, everything is trained"


def test_precision_is_an_axis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, data: Path) -> None:
    for module in (quantizing, selecting):
        monkeypatch.setattr(module, "seconds_of", lambda models, *rest: [1.0, 0.5])
    monkeypatch.setattr(selecting, "layer_seconds", lambda *_: {})
    both = Grid(modes=["flops"], reduce=[0.5], steps=[Compensate("bias", 16)], precisions=[Float(), Int8(16)])
    table = tmp_path / "r.sqlite"
    plain = explore(model, str(data), table, replace(both, precisions=[Float()]), how=QUICK)
    results = explore(model, str(data), table, both, how=QUICK)
    # What computes in floats is the run that it was before there was a choice.
    assert results.runs[0] == plain.runs[0]
    assert [run.precision for run in results.done] == ["float", "int8"]
    assert results.done[1].label == f"{results.done[0].label}, int8"
    assert [run["precision"] for run in results.to_dict()["runs"]] == ["float", "int8"]
    for run in results.runs:
        assert setting_of(json.loads(run.settings)).to_dict() == json.loads(run.settings)
        made = Results(table, results.about, results.original, (run,))
        picked = pick(made, Limits(), tmp_path / f"{run.precision}.onnx")
        assert picked.checked.accuracy == run.accuracy
    kinds = {node.op_type for node in onnxprune.load(tmp_path / "int8.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    assert "QuantizeLinear" not in {node.op_type for node in onnxprune.load(tmp_path / "float.onnx").graph.node}


def test_answers_are_compared_by_the_task_that_was_named(tmp_path: Path, model: Path) -> None:
    data, table, grid = str(tiny_data(tmp_path, labelled=False)), tmp_path / "r.sqlite", Grid(reduce=[0.5])
    results = explore(model, data, table, grid, task="values", how=QUICK)
    assert (results.about.score, results.about.task) == ("answers", "values")
    assert pick(results, Limits(), tmp_path / "out.onnx").checked.accuracy == results.runs[0].accuracy
    with pytest.raises(ResultsError, match="compares answers by task values, and not by auto"):
        explore(model, data, table, grid, how=QUICK)
    with pytest.raises(UsageError, match="task 'detection' reads none of the outputs"):
        explore(model, data, tmp_path / "other.sqlite", grid, task="detection", how=QUICK)


def test_a_task_is_refused_where_labels_judge(tmp_path: Path, model: Path, data: Path) -> None:
    with pytest.raises(UsageError, match="labels of held-out samples judge"):
        explore(model, str(data), tmp_path / "r.sqlite", GRID, task="classes", how=QUICK)
