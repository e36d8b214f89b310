"""Exit codes: those of docs/ci.md, of commands and of the script that checks a model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from tests.cli.support import RESIDUAL, VGG, done, run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
COMMANDS, SCRIPT = (
    [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] for table in PAGE.split("check_model.sh)")
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the script is one of bash")


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ci") / "smaller.onnx"
    done("prune", VGG, "-o", path, "--reduce", 0.5, "--no-bench", "--no-verify")
    return path


def _wrong(path: Path) -> Path:
    """The file with two filters of its first layer swapped."""
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if len(tensor.dims) == 4)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[[0, 1]] = values[[1, 0]]
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path.with_name("wrong.onnx"))
    return path.with_name("wrong.onnx")


def test_the_codes_of_commands(smaller: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    causes: dict[int, list[tuple[object, ...]]] = {
        0: [("verify", VGG, smaller)],
        1: [
            ("verify", VGG, _wrong(smaller)),
            ("prune", VGG, "-o", out, "--reduce", 0.999),
        ],
        2: [
            ("prune", VGG, "-o", out, "--reduse", 0.5),
            ("prune", tmp_path / "none.onnx", "-o", out),
            ("prune", VGG, "-o", tmp_path / "no" / "folder.onnx", "--reduce", 0.3),
            ("verify", RESIDUAL, smaller),
            ("bench", VGG, "--runtime", "abacus"),
        ],
    }
    assert {*causes, 130} == set(COMMANDS)
    for code, calls in causes.items():
        assert {call: run(*call).exit_code for call in calls} == dict.fromkeys(calls, code)
    assert not out.exists()


@pytest.mark.slow
def test_the_codes_of_the_script(smaller: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    # A runtime that computes something else is played; all else is what it is.
    played = 'case " $* " in *" --runtime abacus "*) exit 1;; esac\n'
    for name, words in (("onnxprune", "-m onnxprune"), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\n{played}exec "{sys.executable}" {words} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def code(*words: object) -> int:
        command = ["bash", ROOT / "examples" / "check_model.sh", *map(str, words)]
        return subprocess.run(command, env=environment, capture_output=True).returncode

    wrong = _wrong(smaller)
    causes: dict[int, list[tuple[object, ...]]] = {
        0: [(VGG, smaller), (VGG, smaller, 1e9)],
        2: [(VGG,), (VGG, tmp_path / "none.onnx"), (VGG, smaller, "many")],
        3: [(VGG, wrong)],
        4: [(VGG, smaller, 1e6)],
        5: [(VGG, smaller, 1e9, "abacus")],
    }
    assert list(causes) == SCRIPT
    for wanted, calls in causes.items():
        assert {call: code(*call) for call in calls} == dict.fromkeys(calls, wanted)
