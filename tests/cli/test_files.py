"""Where output may go, and that it is whole or not there."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from pathlib import Path

import onnx
import pytest

import onnxprune
from tests.cli.support import RESIDUAL, VGG, conv, done, model, node, process, refused, saved, two_convs


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
    done("prune", path, "-o", path, "--reduce", "0.3", "--force", "--no-provenance")
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


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A model with external data, and other names of those."""
    path = tmp_path / "model.onnx"
    large = model(conv("x", "a", 64, 3), node("Relu", ["a"], "b"), conv("b", "y", 8, 64))
    onnx.save(large, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "soft").symlink_to(tmp_path / "weights.bin")
    os.link(tmp_path / "weights.bin", tmp_path / "hard")
    return path


def snapshot(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("name", ["weights.bin", "soft", "hard"])
def test_nothing_is_written_to_the_weights_of_the_input(pair: Path, name: str, force: tuple[str, ...]) -> None:
    target, plan = pair.with_name(name), pair.with_name("plan.json")
    onnxprune.plan(pair, reduce=0.3).save(plan)
    out = pair.with_name("out.onnx")
    before = snapshot(pair.parent)
    for words in (
        ["prune", pair, "--reduce", "0.3", "-o", target, *force],
        ["prune", pair, "--reduce", "0.3", "-o", out, "--plan-out", target, *force],
        ["apply", pair, plan, "-o", target, *force],
        ["normalize", pair, "-o", target, *force],
        ["run", pair, "--passes", "remove_unused", "-o", target, *force],
        ["compress", pair, "--reduce", "0.3", "--train", "d.npz", "-o", target, *force],
        ["compress", pair, "--reduce", "0.3", "--train", "d.npz", "-o", out, "--metrics-out", target, *force],
        ["train", pair, "--data", "d.npz", "-o", target, *force],
        ["train", pair, "--data", "d.npz", "-o", out, "--checkpoint", target, *force],
        ["train", RESIDUAL, "--data", "d.npz", "-o", out, "--teacher", pair, "--metrics-out", target, *force],
        ["explain", pair, "--dot", target],
        ["explain", pair, "--graphml", target],
        ["report", pair, "-o", target],
        ["report", RESIDUAL, pair, "-o", target],
        ["explore", pair, "--data", "d.npz", "-o", target],
    ):
        assert "holds weights of" in refused(2, *words)
    (pair.with_name("plot.svg")).symlink_to(target)
    assert "holds weights of" in refused(2, "analyze", pair, "--plot", pair.with_name("plot.svg"))
    pair.with_name("plot.svg").unlink()
    assert snapshot(pair.parent) == before


def test_nothing_is_written_to_the_weights_of_the_output(pair: Path) -> None:
    out = pair.with_name("out.onnx")
    words = ("prune", pair, "--reduce", "0.3", "-o", out)
    done(*words)
    (data,) = pair.parent.glob("out.onnx.*.data")
    before = snapshot(pair.parent)
    for target in (data, pair.with_name("out.onnx.0123456789abcdef.data")):
        assert "weights of" in refused(2, *words, "--plan-out", target)
    assert snapshot(pair.parent) == before
    done(*words, "--plan-out", pair.with_name("out.onnx.data"))
    assert onnxprune.Plan.load(pair.with_name("out.onnx.data")).removed
    assert snapshot(pair.parent) == {**before, "out.onnx.data": pair.with_name("out.onnx.data").read_bytes()}


def test_a_file_of_somebody_else_s_that_is_called_like_data_stays(pair: Path) -> None:
    pair.with_name("out.onnx.data").write_text("somebody's")
    done("prune", pair, "--reduce", "0.3", "-o", pair.with_name("out.onnx"))
    assert pair.with_name("out.onnx.data").read_text() == "somebody's"


def test_force_keeps_the_weights_of_every_input(pair: Path) -> None:
    before = pair.with_name("weights.bin").read_bytes()
    done("prune", pair, "--reduce", "0.3", "-o", pair, "--force")
    first = {*pair.parent.glob("model.onnx.*.data")}
    assert len(first) == 1
    done("prune", pair, "--reduce", "0.3", "-o", pair, "--force")
    assert first < {*pair.parent.glob("model.onnx.*.data")}, "the second run read them; they go with the third"
    done("prune", pair, "--reduce", "0.3", "-o", pair, "--force")
    assert not first & {*pair.parent.glob("model.onnx.*.data")}
    assert pair.with_name("weights.bin").read_bytes() == before
    onnxprune.analyze(pair)


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out.onnx")
    words = ("prune", RESIDUAL, "--reduce", "0.3", "-o", tmp_path / "out.onnx", "--plan-out")
    for name in ("out.onnx", "OUT.onnx", "link"):
        assert "named for two outputs" in refused(2, *words, tmp_path / name)
    both = ("--dot", tmp_path / "graph", "--graphml", tmp_path / "Graph")
    assert "named for two outputs" in refused(2, "explain", RESIDUAL, *both)
    assert os.listdir(tmp_path) == ["link"]


def test_data_are_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "a").mkdir(parents=True)
    for name in ("d.npz", "folder/a/1.png", "mine.py"):
        (tmp_path / name).write_text("not to be lost")
    out = ("-o", tmp_path / "out.onnx")
    for spec, target in (("d.npz?limit=5", "d.npz"), ("folder", "folder/a/1.png"), ("mine:function", "mine.py")):
        for words in (
            ["prune", RESIDUAL, "--reduce", "0.3", "--calibrate", spec, "-o", target],
            ["prune", RESIDUAL, "--reduce", "0.3", "--calibrate", spec, *out, "--plan-out", target],
            ["train", RESIDUAL, "--data", spec, *out, "--metrics-out", target],
            ["train", RESIDUAL, "--data", spec, *out, "--checkpoint", target],
            ["explore", RESIDUAL, "--data", spec, "-o", target],
        ):
            assert "is an input" in refused(2, *words)
        assert (tmp_path / target).read_text() == "not to be lost"


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
    failed = dataclasses.replace(passed, failures=passed.outputs)
    monkeypatch.setattr("onnxprune.pruning.pipeline.verify", lambda *_, **__: failed)
    message = refused(1, "prune", RESIDUAL, "-o", tmp_path / "out.onnx", "--reduce", "0.5")
    assert "'logits'" in message
    assert "nothing was written" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(
    "moment", ["onnxprune.pruning.pipeline.choose", "onnxprune.pruning.pipeline.verify", "os.fsync"]
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


@pytest.mark.parametrize("words", [("keep", "--classes", "0,1"), ("quantize", "--fp16"), ("normalize",)])
def test_models_go_to_stdout(words: tuple[str, ...], tmp_path: Path) -> None:
    command, *options = words
    done = process(command, VGG, "-o", "-", *options, binary=True, cwd=tmp_path)
    assert onnx.load_from_string(done.stdout).graph.node, done.stderr
    assert not list(tmp_path.iterdir())


def test_what_does_not_write_to_stdout_says_so(tmp_path: Path) -> None:
    message = refused(2, "pick", "results.sqlite", "-o", "-")
    assert "writes its model to a file, not to stdout" in message


def test_a_provider_that_is_not_there_is_wrong_usage() -> None:
    assert "has no CUDAExecutionProvider here" in refused(2, "bench", VGG, "--provider", "CUDAExecutionProvider")
