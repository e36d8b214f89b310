"""Where output may go, and that it is whole or not there."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import pytest

import onnxprune
from tests.cli.support import RESIDUAL, done, process, refused, saved, two_convs


def test_output_that_is_the_input_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, two_convs())
    before = path.read_bytes()
    link = tmp_path / "link.onnx"
    link.symlink_to(path)
    for output in (path, tmp_path / "." / "model.onnx", link):
        for command in (["prune", "--reduce", "0.3"], ["normalize"], ["run", "--passes", "remove_unused"]):
            message = refused(2, command[0], path, "-o", output, *command[1:])
            assert "is an input" in message
            assert "--force" in message
    assert path.read_bytes() == before


def test_force_replaces_the_input(tmp_path: Path) -> None:
    path = saved(tmp_path, two_convs())
    before = path.stat().st_size
    done("prune", path, "-o", path, "--reduce", "0.3", "--force")
    assert path.stat().st_size < before
    assert os.listdir(tmp_path) == [path.name]


def test_plan_is_not_replaced(tmp_path: Path) -> None:
    path = saved(tmp_path, two_convs())
    plan, output = tmp_path / "plan.json", tmp_path / "out.onnx"
    done("prune", path, "-o", output, "--reduce", "0.3", "--plan-out", plan)
    assert "is an input" in refused(2, "apply", path, plan, "-o", plan)
    assert "is an input" in refused(2, "prune", path, "-o", output, "--reduce", "0.3", "--plan-out", path)
    message = refused(2, "prune", path, "-o", tmp_path / "new", "--reduce", "0.3", "--plan-out", tmp_path / "new")
    assert "named for two outputs" in message


def test_output_folder_that_does_not_exist(tmp_path: Path) -> None:
    message = refused(2, "prune", RESIDUAL, "-o", tmp_path / "no" / "out.onnx", "--reduce", "0.5")
    assert f"the folder {tmp_path / 'no'} does not exist; create it first" in message


def test_output_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(2, "normalize", RESIDUAL, "-o", tmp_path / "file" / "out.onnx")


def test_output_that_is_a_folder(tmp_path: Path) -> None:
    assert "it is a folder" in refused(2, "normalize", RESIDUAL, "-o", tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    # Moving a file there would put a file in the device's place: for the superuser, /dev/null of the whole machine.
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        for words in (["-o", path], ["-o", tmp_path / "out.onnx", "--plan-out", path]):
            assert "not a regular file" in refused(2, "prune", RESIDUAL, "--reduce", "0.3", *words)
        assert "not a regular file" in refused(2, "explain", RESIDUAL, "--dot", path)
        with pytest.raises(onnxprune.PlanError, match="not a regular file"):
            onnxprune.Plan({}).save(path)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
def test_symbolic_links_stay(tmp_path: Path) -> None:
    names = ("out.onnx", "plan.json")
    for name in names:
        (tmp_path / name).symlink_to(tmp_path / f"real_{name}")
    done("prune", RESIDUAL, "--reduce", "0.3", "-o", tmp_path / names[0], "--plan-out", tmp_path / names[1])
    assert all((tmp_path / name).is_symlink() and (tmp_path / f"real_{name}").is_file() for name in names)
    assert len(os.listdir(tmp_path)) == 4


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may write anywhere, so that the permission bits alone prove nothing in a container.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    message = refused(2, "prune", RESIDUAL, "-o", tmp_path / "out.onnx", "--reduce", "0.5")
    assert "is read-only" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
@pytest.mark.parametrize("flags", [["--json"], []])
def test_full_disk(tmp_path: Path, flags: list[str]) -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from onnxprune.cli import main; main()"
    )
    output = tmp_path / "out.onnx"
    result = process("prune", RESIDUAL, "-o", output, "--reduce", "0.3", "--no-verify", *flags, script=script)
    assert result.returncode == 1
    said = result.stdout if flags else result.stderr
    assert f"cannot write {output}: File too large" in said
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_failed_certificate_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = onnxprune.plan(RESIDUAL, reduce=0.5)
    passed = onnxprune.verify(RESIDUAL, onnxprune.apply(RESIDUAL, plan), plan)
    failed = dataclasses.replace(passed, tolerance=-1.0)
    monkeypatch.setattr("onnxprune.pruning.certificate.verify", lambda *_, **__: failed)
    message = refused(1, "prune", RESIDUAL, "-o", tmp_path / "out.onnx", "--reduce", "0.5")
    assert "'logits'" in message
    assert "nothing was written" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    "moment", ["onnxprune.pruning.choosing.plan", "onnxprune.pruning.certificate.verify", "os.fsync"]
)
def test_interrupted(tmp_path: Path, moment: str) -> None:
    module, _, name = moment.rpartition(".")
    script = (
        f"import {module} as module, os, signal, time\n"
        "def interrupt(*_, **__): os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        f"module.{name} = interrupt\n"
        "from onnxprune.cli import main; main()"
    )
    result = process("prune", RESIDUAL, "-o", tmp_path / "out.onnx", "--reduce", "0.5", script=script)
    assert result.returncode == 128 + signal.SIGINT
    assert result.stderr == "error: interrupted\n"
    assert not list(tmp_path.iterdir())
