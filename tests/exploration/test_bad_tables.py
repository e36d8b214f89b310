"""Tables that somebody edited or made up: refused with run and column, and nothing is written."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest

from onnxprune.errors import ResultsError
from onnxprune.exploration import merge, read_results
from onnxprune.exploration.picking import setting_of, subject_of
from onnxprune.exploration.store import Store
from tests.cli.support import refused
from tests.exploration.support import ABOUT, made_up, recorded, tiny_data, tiny_model

FIGURES = ("accuracy", "params", "flops", "memory", "peak_activations", "size", "latency", "latency_ratio")
TEXTS = ("mode", "allocation", "criterion", "then", "settings", "message", "started", "machine", "digest")


def edited(path: Path, column: str, value: Any) -> Path:
    """A table of three runs, of which the second has this value in a column."""
    recorded(path, made_up(0), made_up(1), made_up(2), plan="{}")
    with sqlite3.connect(path) as connection:
        connection.execute(f'UPDATE runs SET "{column}" = ? WHERE rowid = 2', (value,))
    return path


CASES = [
    *((column, value) for column in FIGURES for value in ("big", b"\x00\xff")),
    *((column, value) for column in FIGURES if column != "accuracy" for value in (-1.0, float("inf"))),
    *((column, None) for column in ("params", "flops", "memory", "size", "reduce", "seconds", "seed", "status")),
    *((column, value) for column in ("reduce", "seconds") for value in ("half", b"x", float("inf"))),
    *(("seed", value) for value in ("one", b"x", 1.5)),
    *((column, value) for column in TEXTS for value in (None, b"x")),
    *(("status", value) for value in ("maybe", b"done", "")),
    *(("settings", value) for value in ("{", "[]", "1", "[" * 100_000, '{"a":' * 100_000)),
    *(("key", value) for value in (None, b"x")),
]


@pytest.mark.parametrize(("column", "value"), CASES, ids=lambda v: repr(v)[:20])
def test_a_value_of_the_wrong_kind(tmp_path: Path, column: str, value: Any) -> None:
    path = edited(tmp_path / "r.sqlite", column, value)
    other = recorded(tmp_path / "s.sqlite", made_up(5))
    before = path.read_bytes()
    said = rf"run .* of .*r\.sqlite has .* in column '{column}', which is .*rowid = 2"
    for use in (
        read_results,
        lambda p: merge([p], tmp_path / "t.sqlite"),
        lambda p: merge([other, p], tmp_path / "t.sqlite"),
        lambda p: Store.open(p, ABOUT),
    ):
        with pytest.raises(ResultsError, match=said):
            use(path)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["r.sqlite", "s.sqlite"]


@pytest.mark.parametrize(("column", "value"), [("size", "big"), ("latency", b"\x00"), ("seed", None), ("reduce", None)])
def test_no_command_takes_it(tmp_path: Path, column: str, value: Any) -> None:
    path, model = edited(tmp_path / "r.sqlite", column, value), tiny_model(tmp_path)
    out = tmp_path / "out"
    before = set(os.listdir(tmp_path))
    for words in (
        ("pick", path, "-o", out, "--plan-out", tmp_path / "plan.json"),
        ("merge", path, "-o", out),
        ("report", model, "--results", path, "-o", out, "--png"),
    ):
        assert f"in column '{column}'" in refused(2, *words)
    assert set(os.listdir(tmp_path)) == before


def test_explore_does_not_go_on_with_it(tmp_path: Path) -> None:
    model, data, path = tiny_model(tmp_path), tiny_data(tmp_path), tmp_path / "r.sqlite"
    from onnxprune.exploration import Exploration, Grid, explore

    explore(model, str(data), path, Grid(modes=["flops"], reduce=[0.3]), how=Exploration(rounds=None))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE runs SET size = 'big'")
    words = ("explore", model, "--data", data, "-o", path, "--no-latency", "--jobs", 1, "--reduce", "0.5")
    assert "in column 'size'" in refused(2, *words)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def test_accuracy_that_cannot_be_told(tmp_path: Path) -> None:
    # A pruned model may give NaN; SQLite keeps that as NULL, and minus infinity as it is.
    runs = (made_up(0, accuracy=float("nan")), made_up(1, accuracy=float("-inf")), made_up(2))
    results = read_results(recorded(tmp_path / "r.sqlite", *runs))
    assert [run.accuracy for run in results.runs] == [None, None, 0.5]
    assert results.pareto() == (made_up(2),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("original", "{"),
        ("original", "[]"),
        ("original", '{"size": "big"}'),
        ("original", '{"size": 1, "taste": 2}'),
        ("original", '{"params": NaN}'),
        ("original", "[" * 100_000),
        ("model", "1"),
        ("engine", '{"threads": "many"}'),
        ("engine", '{"threads": 100000000}'),
        ("engine", '{"speed": 1}'),
        ("engine", "[]"),
        ("input_shapes", '{"x": "1x3"}'),
        ("input_shapes", '{"x": [1, null]}'),
        ("input_shapes", "{" * 100_000),
        ("score", "null"),
    ],
    ids=lambda v: v[:24],
)
def test_what_runs_have_in_common(tmp_path: Path, name: str, text: str) -> None:
    path = recorded(tmp_path / "r.sqlite", made_up(0))
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, text))
    for use in (read_results, lambda p: merge([p], tmp_path / "t.sqlite"), lambda p: Store.open(p, ABOUT)):
        with pytest.raises(ResultsError, match="damaged or no table of results"):
            use(path)
    assert os.listdir(tmp_path) == ["r.sqlite"]


def test_tables_that_are_programs(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.sqlite", made_up(0))
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE runs RENAME TO rest")
        connection.execute(
            "CREATE VIEW runs AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT rest.* FROM n JOIN rest"
        )
    with pytest.raises(ResultsError, match="there is a 'runs' in it, which is no table"):
        read_results(path)


@pytest.mark.parametrize(
    "packed",
    [b"", b"x", "text", zlib.compress(b"{")[:-1], zlib.compress(b"\xff"), zlib.compress(b"["), zlib.compress(b"[]")],
    ids=repr,
)
def test_plans_that_are_none(tmp_path: Path, packed: Any) -> None:
    path = recorded(tmp_path / "r.sqlite", made_up(0), plan="{}")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE plans SET plan = ?", (packed,))
    with pytest.raises(ResultsError, match=r"the plan of run run0 in .* is damaged"):
        read_results(path).plan("run0")


def test_a_plan_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.exploration.checking._LONGEST_PLAN", 1000)
    path = recorded(tmp_path / "r.sqlite", made_up(0), plan=" " * 1001)
    with pytest.raises(ResultsError, match="longer than any plan"):
        read_results(path).plan("run0")


def test_code_that_a_table_names_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trap.py").write_text("def spring():\n    open('sprung', 'w')\n\nopen('imported', 'w')\n")
    model = tiny_model(tmp_path)
    path = recorded(tmp_path / "r.sqlite", made_up(0), plan="{}")
    with sqlite3.connect(path) as connection:
        for name, value in (("data", "trap:spring?limit=5"), ("model", str(model))):
            connection.execute("UPDATE about SET value = ? WHERE name = ?", (json.dumps(value), name))
    before = set(os.listdir(tmp_path))
    assert "which is code" in refused(2, "pick", path, "-o", tmp_path / "out.onnx")
    assert set(os.listdir(tmp_path)) == before
    assert subject_of(read_results(path), data="trap:spring")[1] == "trap:spring"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"then": "pray", "pray": {}},
        {"then": ["nothing"], "nothing": {}},
        {"then": "train", "train": {"epochs": "ten"}},
        {"then": "train", "train": {"speed": 1}},
        {"then": "train", "train": [1]},
        {"then": "compensate", "compensate": {"method": "refit", "samples": "x"}},
        {"then": "compensate", "compensate": None},
    ],
    ids=str,
)
def test_settings_that_are_none(settings: dict[str, Any]) -> None:
    common = {"mode": "flops", "reduce": 0.5, "allocation": "uniform", "criterion": "l2", "seed": 0}
    with pytest.raises(ResultsError, match="settings of a run cannot be read"):
        setting_of({**(common if settings else {}), **settings})
