"""``explore``, ``merge`` and ``pick`` on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import onnxprune
from onnxprune.errors import BudgetError
from onnxprune.exploration import Exploration, Grid, explore, read_results
from onnxprune.exploration.exploring import Progress
from onnxprune.exploration.picking import Limits, choose
from tests.cli.support import MODELS, VGG, done, done_json, refused, run
from tests.exploration.support import made_up, recorded, tiny_data, tiny_model

_QUICK = ("--no-latency", "--jobs", 1)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Model, data, and a table that is not there yet."""
    return tiny_model(tmp_path), tiny_data(tmp_path), tmp_path / "r.sqlite"


def explored(files: tuple[Path, Path, Path], *words: object) -> dict[str, Any]:
    model, data, table = files
    return done_json("explore", model, "--data", data, "-o", table, *_QUICK, *words)


def test_from_grid_to_pick(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, data, table = files
    words = ("--modes", "pa,fa", "--reduce", "0.3,0.5", "--criterion", "l1,l2", "--floor", 0.2, "--exclude", "gemm*")
    found = explored(files, *words)
    assert len(found["runs"]) == 8
    assert {(run["mode"], run["reduce"], run["criterion"]) for run in found["runs"]} == {
        (mode, reduce, criterion) for mode in ("params", "flops") for reduce in (0.3, 0.5) for criterion in ("l1", "l2")
    }
    settings = json.loads(found["runs"][0]["settings"])
    assert (settings["floor"], settings["exclude"]) == (0.2, ["gemm*"])
    front = {run.key for run in read_results(table).pareto(["flops"])}
    assert set(found["pareto"]) == front

    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    picked = done_json("pick", table, "-o", out, "--max-params", 1500, "--plan-out", plan)
    assert picked["checked"]["params"] <= 1500
    assert picked["checked"]["accuracy"] == picked["recorded"]["accuracy"]
    assert picked["origin"] == "rebuilt"
    again = onnxprune.apply(model, onnxprune.Plan.load(plan))
    assert onnxprune.analyze(out).totals == onnxprune.analyze(again).totals

    shown = done("explore", model, "--data", data, "-o", table, *_QUICK, *words, "--over", "params,size", columns=100)
    assert "the original" in shown
    assert "8 runs" in shown
    assert "beats these in accuracy and params and size" in " ".join(shown.split())
    assert "as written" in done("pick", table, "-o", out, "--min-accuracy", 0, columns=100)


def test_latency_is_a_mode_like_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    files = (VGG, MODELS / "fashion_sample.npz", tmp_path / "r.sqlite")
    found = explored(files, "--modes", "latency", "--reduce", "0.2")
    assert [(run["mode"], run["status"], run["message"]) for run in found["runs"]] == [("latency", "done", "")]
    assert found["runs"][0]["flops"] < found["original"]["flops"]


def test_what_the_original_beats_is_not_recommended(tmp_path: Path) -> None:
    slower = (
        made_up(0, accuracy=0.89, latency=0.003, latency_ratio=1.5),
        made_up(1, accuracy=0.9, latency=0.0021, latency_ratio=1.05),
    )
    table = recorded(tmp_path / "r.sqlite", *slower)
    assert read_results(table).pareto() == ()
    assert [run.key for run in read_results(table).pareto(["params"])] == ["run1"]
    text = done("merge", table, "-o", tmp_path / "s.sqlite")
    assert "Nothing to recommend: the original is as accurate as every run, with no more latency" in text
    with pytest.raises(BudgetError, match="the original beats them all: it is as accurate, with no more latency"):
        choose(read_results(table), Limits())


def test_the_command_makes_the_runs_of_the_library(files: tuple[Path, Path, Path]) -> None:
    model, data, table = files
    explored(files, "--modes", "flops", "--reduce", "0.3")
    seen: list[Progress] = []
    how = Exploration(rounds=None, progress=seen.append)
    explore(model, str(data), table, Grid(modes=["flops"], reduce=[0.3]), how=how)
    assert seen == [Progress(1, 1, 0)]


def test_a_search(files: tuple[Path, Path, Path]) -> None:
    assert len(explored(files, "--search", 3)["runs"]) == 3
    assert len(explored(files, "--search", 5)["runs"]) == 5


def test_a_search_that_learns(files: tuple[Path, Path, Path]) -> None:
    model, data, table = files
    how = ("explore", model, "--data", data, "-o", table, "--search-by")
    assert "give --search N" in refused(2, *how, "tpe")
    pytest.importorskip("optuna")
    assert len(explored(files, "--search", 7, "--search-by", "tpe", "--jobs", 1)["runs"]) == 7
    # Again, and side by side, it asks for the same.
    assert len(explored(files, "--search", 7, "--search-by", "tpe", "--jobs", 2)["runs"]) == 7


def test_precisions(files: tuple[Path, Path, Path]) -> None:
    found = explored(files, "--modes", "fa", "--reduce", "0.5", "--precision", "float,int8")
    assert [run["precision"] for run in found["runs"]] == ["float", "int8"]


def test_failures_are_told(files: tuple[Path, Path, Path]) -> None:
    model, data, table = files
    shown = done("explore", model, "--data", data, "-o", table, *_QUICK, "--modes", "flops", "--reduce", "0.3,0.999")
    assert "1 failed: flops cannot fall to" in shown
    assert "1 run in" in shown


def test_merge(tmp_path: Path) -> None:
    a, b = recorded(tmp_path / "a.sqlite", made_up(0)), recorded(tmp_path / "b.sqlite", made_up(1))
    found = done_json("merge", a, b, "-o", tmp_path / "c.sqlite")
    assert [run["key"] for run in found["runs"]] == ["run0", "run1"]


def test_bad_input(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, data, table = files
    common = ("explore", model, "--data", data, "-o", table, *_QUICK)
    assert "not a list of numbers" in refused(2, *common, "--reduce", "half")
    assert "a fraction between 0 and 1" in refused(2, *common, "--reduce", "50")
    assert "mode 'speed' is not known" in refused(2, *common, "--modes", "speed")
    assert "--then 'pray'" in refused(2, *common, "--then", "pray")
    assert "--precision 'int4'" in refused(2, *common, "--precision", "int4")
    assert "lr must be" in refused(2, *common, "--then", "train", "--lr", "-1")
    assert "some of params" in refused(2, *common, "--over", "speed")
    assert "does not exist" in refused(2, "explore", model, "--data", "no.npz", "-o", table, *_QUICK)
    assert "is an input" in refused(2, "explore", model, "--data", data, "-o", model, *_QUICK)
    assert "--backend 'cloud'" in refused(2, *common[:-2], "--backend", "cloud")
    assert "needs the address" in refused(2, *common[:-2], "--backend", "dask")
    assert "--jobs is for processes" in refused(2, *common, "--backend", "ray")
    assert "is for clusters" in refused(2, *common, "--scheduler", "tcp://127.0.0.1:1")
    assert "does not answer" in refused(
        1, *common[:-2], "--backend", "dask", "--scheduler", "tcp://127.0.0.1:1", "--reduce", "0.3"
    )
    table.unlink()
    assert "no results" in refused(2, "pick", table, "-o", tmp_path / "o.onnx")
    explored(files, "--reduce", "0.3")
    out = ("-o", tmp_path / "o.onnx")
    assert "The nearest is" in refused(1, "pick", table, *out, "--max-params", 1)
    assert "its latency was not measured" in refused(1, "pick", table, *out, "--max-latency", "5ms")
    assert run("pick", table, *out, "--max-latency", "soon").exit_code == 2
    other = tiny_model(tmp_path, seed=1, name="other.onnx")
    assert "another model" in refused(2, "explore", other, "--data", data, "-o", table, *_QUICK)
    table.write_bytes(table.read_bytes()[:5000])
    assert "is damaged" in refused(2, "pick", table, *out)
    assert "is damaged" in refused(2, *common)
    assert not (tmp_path / "o.onnx").exists()


def test_a_killed_exploration_goes_on_where_it_was(files: tuple[Path, Path, Path]) -> None:
    model, data, table = files
    words = ("--modes", "flops", "--reduce", ",".join(f"{0.1 + i / 100:.2f}" for i in range(40)))
    command = [sys.executable, "-m", "onnxprune", "explore", model, "--data", data, "-o", table, *_QUICK, *words]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and len(_recorded(table)) < 5:
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = _recorded(table)
    assert 5 <= len(before) < 40
    found = explored(files, *words)
    after = {run["key"]: run for run in found["runs"]}
    assert len(after) == len(found["runs"]) == 40
    # A run that was made again would have taken another time.
    assert all(after[key]["seconds"] == run.seconds for key, run in before.items())


def _recorded(table: Path) -> dict[str, Any]:
    try:
        return {run.key: run for run in read_results(table).runs}
    except onnxprune.OnnxPruneError:
        return {}
