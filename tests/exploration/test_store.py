"""The table on disk: what is recorded stays, and what cannot be read says so."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onnxprune.cli.runs import SCORES
from onnxprune.errors import RecordingError, ResultsError
from onnxprune.exploration import merge, read_results
from onnxprune.exploration.store import Store
from onnxprune.pruning.plan import Plan
from tests.exploration.support import ABOUT, made_up, recorded

PLAN = Plan({"w": {0: (1, 3)}}, {"mode": "flops"})


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    runs = (made_up(0, message="ümlaut ☃", digest="d"), made_up(1, status="failed", accuracy=None, latency=None))
    import json

    results = read_results(recorded(tmp_path / "r.sqlite", *runs, plan=json.dumps(PLAN.to_dict())))
    assert results.runs == runs
    assert results.about == ABOUT
    assert results.original is not None
    assert results.original.params == 200.0
    assert results.plan("run0") == PLAN
    assert results.done == runs[:1]
    assert results.failed == runs[1:]
    with pytest.raises(ResultsError, match="no plan of run run9"):
        results.plan("run9")


def test_one_file_is_left_behind_and_can_be_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    path = recorded(folder / "r.sqlite", made_up(0))
    assert os.listdir(folder) == ["r.sqlite"]
    # Root may write anywhere, so the header has to tell: 1 stands for a rollback journal, 2 for a log beside the file.
    assert path.read_bytes()[18:20] == b"\1\1"


def test_a_finished_run_stays_and_a_failed_one_gives_way(tmp_path: Path) -> None:
    first, second = made_up(0, accuracy=0.7), made_up(0, accuracy=0.8)
    lost = made_up(1, status="failed", message="out of memory")
    path = recorded(tmp_path / "r.sqlite", first, second, lost, made_up(1), replace(lost, message="again"))
    assert read_results(path).runs == (first, made_up(1))


def test_a_killed_process_loses_nothing_that_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from onnxprune.exploration.store import Store\n"
        "from tests.exploration.support import ABOUT, made_up\n"
        "store = Store.open(Path(sys.argv[1]), ABOUT)\n"
        "for i in range(5): store.add(made_up(i))\n"
        "store._connection.execute('BEGIN IMMEDIATE')\n"
        "store._connection.execute('DELETE FROM runs')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run([sys.executable, "-c", script, str(path)], cwd=root, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [run.key for run in read_results(path).runs] == [f"run{i}" for i in range(5)]
    with Store.open(path, ABOUT) as store:
        store.add(made_up(5))
    assert len(read_results(path).runs) == 6


def test_a_full_disk_is_reported_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "r.sqlite"
    with Store.open(path, ABOUT) as store:
        store.add(made_up(0))
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(RecordingError, match=r"full.*recorded before is safe: free some space.*same command"):
            _fill(store)
        kept = len(store.statuses())
        with pytest.raises(RecordingError):
            store.add(made_up(1000, message="x" * 10_000))
    results = read_results(path)
    assert 1 <= kept == len(results.runs) < 500
    with Store.open(path, ABOUT) as store:
        store.add(made_up(1000, message="x" * 10_000))
    assert len(read_results(path).runs) == kept + 1


def _fill(store: Store) -> None:
    for number in range(1, 500):
        store.add(made_up(number, message="x" * 1000))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_digest": "other"}, "another model"),
        ({"data_digest": "other"}, "other data"),
        ({"score": "answers"}, "judges runs by accuracy"),
        ({"input_shapes": {"x": (1, 3)}}, "other input shapes"),
        ({"engine": {"threads": 2}}, "latencies"),
    ],
)
def test_other_explorations_do_not_mix(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = recorded(tmp_path / "r.sqlite", made_up(0))
    other = replace(ABOUT, **change)  # type: ignore[arg-type]
    with pytest.raises(ResultsError, match=said):
        Store.open(path, other)
    beside = recorded(tmp_path / "s.sqlite", made_up(1), about=other)
    with pytest.raises(ResultsError, match=said):
        merge([path, beside], tmp_path / "t.sqlite")
    assert len(read_results(path).runs) == 1


def test_damaged_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.sqlite", *(made_up(i, message="x" * 500) for i in range(100)))
    whole = path.read_bytes()
    cases = {
        "text": b"accuracy,params\n0.9,1000\n" * 100,
        "cut off": whole[: len(whole) // 2],
        "scribbled over": whole[:8192] + b"\xa5" * 8192 + whole[16384:],
        # SQLite says the name of a broken entry, and sqlite3 fails at making text of it.
        "no text": whole.replace(b"tablerunsruns", b"tabler\xb5\xb5sruns").replace(
            b"CREATE TABLE runs", b"CREATE TABEL runs"
        ),
    }
    for name, content in cases.items():
        damaged = tmp_path / name
        damaged.write_bytes(content)
        for use in (lambda p: Store.open(p, ABOUT), read_results, lambda p: merge([p], tmp_path / "out")):
            with pytest.raises(ResultsError, match="damaged"):
                use(damaged)
        assert damaged.read_bytes() == content, name


def test_other_files_are_refused(tmp_path: Path) -> None:
    foreign, newer, empty = tmp_path / "foreign", tmp_path / "newer", tmp_path / "empty"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE runs (key)")
    recorded(newer, made_up(0))
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    empty.touch()
    for path, said in (
        (foreign, "not one of"),
        (newer, "version 99"),
        (empty, "is empty"),
        (tmp_path / "no", "no resu"),
    ):
        with pytest.raises(ResultsError, match=said):
            read_results(path)
    recorded(empty, made_up(0))  # A file that was begun and not written to is as good as none.
    assert len(read_results(empty).runs) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="see that the folder can be written"):
        Store.open(tmp_path / "nowhere" / "r.sqlite", ABOUT)


def test_tables_are_joined_every_run_once(tmp_path: Path) -> None:
    a = recorded(tmp_path / "a.sqlite", made_up(0), made_up(1, status="failed"), plan="{}")
    b = recorded(tmp_path / "b.sqlite", made_up(1), made_up(2), made_up(0, accuracy=0.1))
    results = merge([a, b], tmp_path / "c.sqlite")
    assert sorted(run.key for run in results.done) == ["run0", "run1", "run2"]
    assert {run.key: run.accuracy for run in results.runs}["run0"] == 0.5
    assert dict(results.plans()) == {"run0": "{}", "run1": "{}"}
    assert merge([a, b], a).done[0].key == "run0"
    assert len(read_results(a).runs) == 3


def test_joined_latencies_are_beside_the_same_original(tmp_path: Path) -> None:
    a = recorded(tmp_path / "a.sqlite", made_up(0, latency=0.001, latency_ratio=0.5))
    b = recorded(tmp_path / "b.sqlite", made_up(1, latency=0.004, latency_ratio=0.25))
    results = merge([a, b], tmp_path / "c.sqlite")  # Both originals take 2 ms.
    assert {run.key: run.latency for run in results.runs} == {"run0": 0.001, "run1": pytest.approx(0.0005)}


def test_every_score_that_a_table_may_have_is_explained(tmp_path: Path) -> None:
    for score in ("accuracy", "r2", "answers", "agreement"):
        path = recorded(tmp_path / f"{score}.sqlite", made_up(0), about=replace(ABOUT, score=score))
        assert SCORES[read_results(path).about.score]


def test_reading_leaves_nothing_behind(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.sqlite", made_up(0))
    content = bytearray(path.read_bytes())
    content[18:20] = b"\x02\x02"  # As a table is left where the writer was killed and its log is lost, or empty.
    path.write_bytes(content)
    assert len(read_results(path).runs) == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_table_of_an_earlier_version_is_read_and_gone_on_with(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r.sqlite", made_up(0))
    with sqlite3.connect(path) as connection:
        for name in ("depth", "mean_depth", "width", "paths"):
            connection.execute(f'ALTER TABLE runs DROP COLUMN "{name}"')
    (old,) = read_results(path).runs
    assert old == made_up(0)
    recorded(path, made_up(1, depth=4.0, paths=7.5))
    assert read_results(path).runs == (made_up(0), made_up(1, depth=4.0, paths=7.5))
