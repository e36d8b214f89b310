"""Models with external data are two files: at every moment the path holds the old pair or the new one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.ir import saving
from onnxprune.ir.files import leftovers, same_place
from onnxprune.ir.model import load

OLD, NEW = 1.0, 2.0
SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.ir.test_saving import NEW, pair
{before}
pair(Path(sys.argv[1]), NEW)
"""
REPLACE = """
replace, calls = os.replace, []
def interrupted(*arguments):
    calls.append(arguments)
    if len(calls) == {call}:
        {first}
    replace(*arguments)
    if len(calls) == {call}:
        {then}
os.replace = interrupted
"""


def pair(path: Path, value: float) -> None:
    """Save y = x @ w with all of w this value, w in external data."""
    weight = numpy_helper.from_array(np.full((64, 64), value, np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [weight],
    )
    model = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    saving.save(model.skeleton, model.weights.values(), path, limit=1000)


def value_of(path: Path) -> float:
    """The value that was saved, as the model computes it and as the library reads it."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.full((1, 64), 1 / 64, np.float32)})
    onnx.checker.check_model(str(path))
    (read,) = np.unique(load(path).weights["w"].array)
    assert np.ptp(y) == 0
    assert y[0, 0] == pytest.approx(read)
    return float(read)


def child(path: Path, before: str) -> int:
    """Save the new pair in a process to which something happens; its exit status."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT.format(before=before), str(path)]
    return subprocess.run(command, cwd=root, timeout=120, check=False, capture_output=True).returncode


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize(
    ("call", "moved", "left"),
    [(1, False, OLD), (1, True, OLD), (2, False, OLD), (2, True, NEW)],
    ids=["before the data", "after the data", "before the model", "after the model"],
)
def test_a_save_that_ends_between_two_moves(
    tmp_path: Path, signal_name: str, call: int, moved: bool, left: float
) -> None:
    path = tmp_path / "m.onnx"
    pair(path, OLD)
    hit = f"os.kill(os.getpid(), signal.{signal_name})"
    status = child(path, REPLACE.format(call=call, first="pass" if moved else hit, then=hit if moved else "pass"))
    assert status == -getattr(signal, signal_name)
    assert value_of(path) == left
    if signal_name == "SIGINT":
        assert len(os.listdir(tmp_path)) == 2, "an interrupted process cleans up"
    pair(path, NEW)
    assert value_of(path) == NEW
    assert len(os.listdir(tmp_path)) == 2, "what a killed process left behind goes with the next run"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_full_disk_leaves_the_old_pair(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    pair(path, OLD)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    for room in (0, 100, 5000):
        assert child(path, f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))") == 1
        assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before
    assert value_of(path) == OLD


def test_a_disk_that_is_full_when_the_model_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    pair(path, OLD)
    before = set(os.listdir(tmp_path))
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target) == path:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ModelError, match="No space left on device; nothing was changed"):
        pair(path, NEW)
    assert set(os.listdir(tmp_path)) == before
    assert value_of(path) == OLD


def test_the_data_of_the_replaced_model_go_and_nobody_elses(tmp_path: Path) -> None:
    path, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    pair(path, OLD)
    pair(other, OLD)
    for name in ("m.onnx.data", "m.onnx.0123.data", "weights.bin"):
        (tmp_path / name).write_text("somebody's")
    kept = set(os.listdir(tmp_path)) - {path.name, *(p.name for p in tmp_path.glob("m.onnx.????????????????.data"))}
    pair(path, NEW)
    assert kept < set(os.listdir(tmp_path))
    assert len(os.listdir(tmp_path)) == len(kept) + 2
    assert (value_of(path), value_of(other)) == (NEW, OLD)
    assert (tmp_path / "m.onnx.data").read_text() == "somebody's"


@pytest.mark.parametrize("name", ["copy.onnx", "m.onnx.bak", "M2.ONNX"])
def test_a_copy_of_the_model_keeps_its_data(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.onnx"
    pair(path, OLD)
    (tmp_path / name).write_bytes(path.read_bytes())
    pair(path, NEW)
    assert (value_of(path), value_of(tmp_path / name)) == (NEW, OLD)


def test_the_input_s_data_stay_whatever_is_written(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    pair(path, OLD)
    model = load(path)
    draft = model.edit()
    draft.weights["w"] = draft.weights["w"].with_array(np.full((64, 64), NEW, np.float32))
    draft.finish().save(path, overwrite_input=True)
    assert value_of(path) == NEW
    assert float(model.weights["w"].array[0, 0]) == OLD, "it is read when it is asked for"
    assert len(os.listdir(tmp_path)) == 3
    pair(path, OLD)
    assert len(os.listdir(tmp_path)) == 2


def test_the_same_model_is_the_same_pair(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    pair(path, OLD)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    pair(path, OLD)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_has_the_name_of_the_data_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.onnx"
    pair(path, NEW)
    (data,) = tmp_path.glob("*.data")
    data.unlink()
    pair(path, OLD)
    if kind == "folder":
        data.mkdir()
    elif kind == "link":
        data.symlink_to(tmp_path / "nowhere")
    else:
        data.write_text("somebody's")
    before = set(os.listdir(tmp_path))
    if kind == "file":
        (tmp_path / "m.onnx.txt").write_text(f"do not lose {data.name}")
        before.add("m.onnx.txt")
    with pytest.raises(ModelError, match=r"\.data is something else"):
        pair(path, NEW)
    assert set(os.listdir(tmp_path)) == before
    assert value_of(path) == OLD


@pytest.mark.skipif(sys.platform == "win32", reason="locks of POSIX")
def test_temporaries_of_living_processes_stay(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    living, dead = (tmp_path / f".m.onnx.0000000{n}.tmp" for n in range(2))
    script = (
        "import fcntl, os, sys, time\n"
        "d = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR); fcntl.flock(d, fcntl.LOCK_EX); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    dead.touch()
    with subprocess.Popen([sys.executable, "-c", script, str(living)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert leftovers(path) == [dead]
            pair(path, OLD)
            assert living.exists()
            assert not dead.exists()
        finally:
            process.kill()
    assert leftovers(path) == [living]
    pair(path, OLD)
    assert not living.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file names")
def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.onnx"))
    with pytest.raises(ModelError, match="not UTF-8"):
        pair(path, OLD)
    assert not os.listdir(tmp_path)


def test_same_place(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "dangling").symlink_to(tmp_path / "b")
    (tmp_path / "other").symlink_to(tmp_path / "folder")
    os.link(tmp_path / "a", tmp_path / "hard")
    (tmp_path / "B2").touch()
    same = [("a", "link"), ("a", "hard"), ("dangling", "b"), ("folder/x", "other/x"), ("x", "X"), ("é", "e\u0301")]
    for one, two in same:
        assert same_place(tmp_path / one, tmp_path / two), (one, two)
    for one, two in (("a", "folder"), ("a", "b"), ("b2", "B2") if not (tmp_path / "b2").exists() else ("a", "c")):
        assert not same_place(tmp_path / one, tmp_path / two), (one, two)
