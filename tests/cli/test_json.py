"""What --json prints is what the published schema says; every other test that reads JSON holds it against that, too."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from onnxprune.cli.app import app
from tests.cli.support import MODELS, RESIDUAL, VGG, as_promised, done_json, run, strict

ROOT = MODELS.parent
DATA = f"{MODELS / 'fashion_sample.npz'}?holdout=0.5"


def test_the_schema_and_its_page_are_up_to_date() -> None:
    pytest.importorskip("torch")
    made = runpy.run_path(str(ROOT / "docs" / "json_schemas.py"))
    assert made["SCHEMA"].read_text(encoding="utf-8") == made["written"](), "run: python docs/json_schemas.py"
    assert made["PAGE"].read_text(encoding="utf-8") == made["page"](), "run: python docs/json_schemas.py"


def test_every_command_that_prints_json_has_a_schema() -> None:
    from typer.main import get_command

    commands = get_command(app).commands  # type: ignore[attr-defined]
    printing = {name for name, command in commands.items() if "as_json" in {p.name for p in command.params}}
    assert printing <= strict("error")["$defs"].keys()


def test_what_is_not_promised_is_noticed() -> None:
    told = done_json("passes")
    with pytest.raises(AssertionError, match="--json at"):
        as_promised("passes", {**told, "more": 1})
    with pytest.raises(AssertionError, match="--json at"):
        as_promised("passes", {"passes": [{"name": 1, "summary": "x"}]})
    with pytest.raises(AssertionError, match="--json at"):
        as_promised("error", {})


def _walk(folder: Path) -> Iterator[tuple[object, ...]]:
    """One command of every kind that others do not show."""
    smaller, plan = folder / "smaller.onnx", folder / "plan.json"
    yield "explain", VGG, "--dot", folder / "g.dot"
    yield "plan", VGG, "--reduce", 0.5, "-o", plan
    yield "plan", "--diff", plan, plan
    yield "apply", VGG, plan, "-o", smaller, "--no-bench"
    yield "verify", VGG, smaller, plan, "--mutations", 4
    yield "run", VGG, "-o", folder / "run.onnx", "--passes", "normalize"
    yield "normalize", VGG, "-o", folder / "normal.onnx"
    yield "passes", "prune"
    if find_spec("torch"):
        yield "torch", VGG, "-o", folder / "code"
    yield "prune", VGG, "-o", smaller, "--reduce", 5


def test_outputs_are_what_the_schema_says(tmp_path: Path) -> None:
    for words in _walk(tmp_path):
        result = run(*words, "--json")
        assert result.exit_code == (2 if words[-1] == 5 else 0), (words, result.stderr)
        assert json.loads(result.stdout)


def _long_walk(folder: Path) -> Iterator[tuple[object, ...]]:
    smaller, table, recovered = (folder / name for name in ("s.onnx", "t.sqlite", "r.onnx"))
    labelled = MODELS / "fashion_sample.npz"
    recover = ("--calibrate", DATA, "--recover", "--minutes", 0.1)
    train = ("--train", labelled, "--epochs", 1, "--baseline")
    yield "prune", RESIDUAL, "-o", smaller, "--reduce", 0.3, "--calibrate", DATA, "--int8"
    yield "prune", RESIDUAL, "-o", folder / "l.onnx", "--mode", "latency", "--reduce", 0.2
    yield "prune", RESIDUAL, "-o", recovered, "--reduce", 0.3, *recover
    yield "bench", RESIDUAL, smaller, "--per-operator"
    yield "quantize", RESIDUAL, "-o", folder / "q.onnx", "--calibrate", DATA
    yield "quantize", RESIDUAL, "-o", folder / "h.onnx", "--fp16"
    yield "recover", recovered, RESIDUAL, "-o", folder / "r2.onnx", "--calibrate", DATA, "--minutes", 0.1
    yield "sensitivity", RESIDUAL, "--calibrate", DATA
    yield "explore", RESIDUAL, "--data", DATA, "-o", table, "--reduce", 0.3, "--then", "compensate"
    yield "merge", table, table, "-o", folder / "m.sqlite"
    yield "pick", table, "-o", folder / "best.onnx", "--min-accuracy", 0.1
    yield "train", recovered, "-o", folder / "t.onnx", "--data", labelled, "--epochs", 1
    yield "compress", RESIDUAL, "-o", folder / "c.onnx", "--reduce", 0.5, *train
    yield "report", RESIDUAL, recovered, "-o", folder / "page.html", "--no-bench"
    if find_spec("openvino"):
        yield "verify", RESIDUAL, recovered, "--runtime", "openvino"


@pytest.mark.slow
def test_outputs_of_long_commands_are_what_the_schema_says(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for words in _long_walk(tmp_path):
        result = run(*words, "--json")
        assert result.exit_code == 0, (words, result.stdout, result.stderr)
        assert json.loads(result.stdout)
