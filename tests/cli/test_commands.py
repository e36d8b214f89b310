"""What the commands do when all is well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

import onnxprune
from tests.cli.support import MODELS, RESIDUAL, VGG, conv, done, done_json, model, node, process, refused, run, saved

DEPTHWISE = MODELS / "depthwise_torchscript.onnx"


def test_help_names_every_command() -> None:
    said = done("--help", columns=80)
    for command in ("analyze", "prune", "apply", "verify", "explain", "normalize", "run", "passes"):
        assert f" {command} " in said
        assert "Usage" in done(command, "--help", columns=80)


def test_no_arguments_is_help() -> None:
    assert "Usage" in done()


def test_version() -> None:
    assert done("--version") == f"onnxprune {onnxprune.__version__}\n"


def test_log_level_tells_what_passes_did(tmp_path: Path) -> None:
    words = ("normalize", VGG, "-o", tmp_path / "out.onnx")
    assert "onnxprune.passes" not in run_apart(*words)
    assert "DEBUG onnxprune.passes.base: pass fold_shapes: nothing to do" in run_apart(
        "--log-level", "debug", *words, "--force"
    )


def run_apart(*words: object) -> str:
    """What a command says on standard error, in a process of its own: logging is set up once per process."""
    command = [sys.executable, "-m", "onnxprune", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_module_runs_and_help_imports_nothing_heavy() -> None:
    script = (
        "import runpy, sys, atexit\n"
        "heavy = ('numpy', 'onnx', 'onnxruntime', 'networkx', 'scipy', 'torch')\n"
        "atexit.register(lambda: print(*(name for name in heavy if name in sys.modules), sep='', file=sys.stderr))\n"
        "runpy.run_module('onnxprune', run_name='__main__')\n"
    )
    result = process("--help", script=script)
    assert result.returncode == 0
    assert "Usage: onnxprune" in result.stdout
    assert result.stderr.strip() == ""


def test_prune_does_not_import_torch(tmp_path: Path) -> None:
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch' in sys.modules))\n"
        "from onnxprune.cli import main; main()"
    )
    result = process("prune", VGG, "-o", tmp_path / "out.onnx", "--reduce", "0.5", script=script)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("False\n")
    assert result.stderr == ""


def test_wrong_usage() -> None:
    assert "No such command 'prun'" in refused(2, "prun")
    assert "--output" in refused(2, "prune", RESIDUAL)
    assert "give a budget" in refused(2, "prune", RESIDUAL, "-o", "out.onnx")
    assert "--max-params" in refused(2, "prune", RESIDUAL, "-o", "out.onnx", "--max-params", "5Q")
    assert "between 0 and 1" in refused(2, "prune", RESIDUAL, "-o", "out.onnx", "--reduce", "5")
    assert "NAME=VALUE" in refused(2, "prune", RESIDUAL, "-o", "out.onnx", "--reduce", "0.5", "--floors", "x")
    for option in ("mode", "allocation", "criterion"):
        said = refused(2, "prune", RESIDUAL, "-o", "out.onnx", "--reduce", "0.5", f"--{option}", "strange")
        assert "'strange' is not known; choose one of" in said


@pytest.mark.parametrize("words", [["prune", RESIDUAL], ["analyze", "nowhere.onnx"], ["explain", RESIDUAL, "nothing"]])
def test_errors_are_json_when_asked_for(words: list[object]) -> None:
    result = run(*words, "--json")
    assert result.exit_code == 2
    assert result.stderr == ""
    error = json.loads(result.stdout)["error"]
    assert error["type"] in ("UsageError", "ModelError")
    assert error["message"]


def test_analyze_agrees_with_the_library() -> None:
    analysis = onnxprune.analyze(DEPTHWISE)
    found = done_json("analyze", DEPTHWISE)
    expected = json.loads(json.dumps(analysis.to_dict()))
    assert {key: found[key] for key in expected} == expected
    summary = found["summary"]
    assert summary["prunable"] + sum(pinned["share"] for pinned in summary["pinned"]) == pytest.approx(1)
    said = done("analyze", DEPTHWISE)
    for layer in analysis.layers:
        assert layer.name in said
    assert "reaches graph output 'logits'" in said
    assert "FLOPs are counted as MACs" in said
    assert "% of MACs are prunable" in said.splitlines()[-1]


def test_prune_reports_what_it_did(tmp_path: Path) -> None:
    output, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    found = done_json("prune", RESIDUAL, "-o", output, "--mode", "pa", "--reduce", "0.5", "--plan-out", plan)
    # The pruned file, analysed on its own, is the judge of the report.
    pruned = onnxprune.analyze(output)
    assert 0.5 <= found["removed"]["params"] < 0.52
    assert found["after"] == pytest.approx({**pruned.totals, "file_size": output.stat().st_size})
    for layer, judge in zip(found["layers"], pruned.layers, strict=True):
        assert layer["name"] == judge.name
        after = {"channels": judge.channels, "params": judge.params, "flops": judge.flops, "memory": judge.memory}
        assert layer["after"] == after
    assert found["certificate"]["passed"]
    assert found["settings"]["mode"] == "params"
    assert onnxprune.Plan.load(plan).removed == onnxprune.plan(RESIDUAL, mode="params", reduce=0.5).removed


def test_prune_options_reach_the_library(tmp_path: Path) -> None:
    words = "--max-params 60k --max-flops 2.5M --max-memory 400KB --allocation uniform --criterion random --seed 7"
    more = "--floor 4 --floors /stages/stages.4/*=0.5 --round-to 4 --exclude /stem/* --exact-only"
    plan = tmp_path / "plan.json"
    done("prune", RESIDUAL, "-o", tmp_path / "o.onnx", *words.split(), *more.split(), "--plan-out", plan)
    expected = onnxprune.plan(
        RESIDUAL,
        max_params=60_000,
        max_flops=2_500_000,
        max_memory=400_000,
        allocation="uniform",
        criterion="random",
        seed=7,
        floor=4,
        floors={"/stages/stages.4/*": 0.5},
        round_to=4,
        exclude=["/stem/*"],
        exact_only=True,
    )
    assert onnxprune.Plan.load(plan).to_dict() == json.loads(json.dumps(expected.to_dict()))


def test_include_and_channels(tmp_path: Path) -> None:
    layer = "/stages/stages.0/first/first.0/Conv"
    found = done_json("prune", RESIDUAL, "-o", tmp_path / "o.onnx", "--channels", "0.5", "--include", layer)
    changed = {entry["name"] for entry in found["layers"] if entry["before"]["channels"] != entry["after"]["channels"]}
    assert changed == {layer}


def test_apply_and_verify_repeat_prune(tmp_path: Path) -> None:
    first, second, plan = tmp_path / "1.onnx", tmp_path / "2.onnx", tmp_path / "plan.json"
    pruned = done("prune", RESIDUAL, "-o", first, "--reduce", "0.4", "--plan-out", plan, "--no-bench")
    applied = done("apply", RESIDUAL, plan, "-o", second, "--no-bench")
    assert first.read_bytes() == second.read_bytes()
    assert pruned.splitlines()[:-1] == applied.splitlines()[:-1]
    assert "Certificate passed" in done("verify", RESIDUAL, second, plan, "--samples", "2")
    result = run("verify", RESIDUAL, RESIDUAL, plan)
    assert result.exit_code == 1
    assert "Certificate FAILED" in result.stdout


def test_budget_that_is_met_already(tmp_path: Path) -> None:
    said = done("prune", RESIDUAL, "-o", tmp_path / "out.onnx", "--max-params", "1G")
    assert "meets the budget as it is: nothing was removed" in said
    assert (tmp_path / "out.onnx").exists()


def test_normalize_writes_what_plans_refer_to(tmp_path: Path) -> None:
    source, output = MODELS / "vgg_keras_tensorflow.onnx", tmp_path / "normal.onnx"
    done("normalize", source, "-o", output, "--check", "equality")
    plan = onnxprune.plan(source, reduce=0.5)
    names = {weight.name for weight in onnx.load(output).graph.initializer}
    assert {name for name in plan.removed if name in onnxprune.normalize(source).weights} <= names
    assert onnxprune.plan(output, reduce=0.5).removed == plan.removed


def test_run_and_list_passes(tmp_path: Path) -> None:
    listed = done_json("passes")["passes"]
    assert all(entry["summary"] for entry in listed)
    names = [entry["name"] for entry in listed]
    assert "eliminate_identity" in names
    assert "shrink" not in names, "text cannot give it the plan that it wants"
    path = saved(tmp_path, model(conv("x", "a", 8, 3), node("Identity", ["a"], "b"), conv("b", "y", 4, 8)))
    output = tmp_path / "out.onnx"
    # These are for training, and undo each other; or they want options.
    others = ("reinitialize", "restore_batchnorm", "prune", "quantize", "keep", "substitute", "factorize")
    names = [name for name in names if name not in others]
    words = ["run", path, "-o", output, "--passes", ",".join(names), "--check", "equality"]
    found = done_json(*words)
    assert found["modified"]
    assert found["nodes"] == {"before": 3, "after": 2}
    assert [entry.op_type for entry in onnx.load(output).graph.node] == ["Conv", "Conv"]


def test_run_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    said = refused(2, "run", RESIDUAL, "-o", output, "--passes", "eliminate-identity")
    assert "did you mean eliminate_identity" in said
    assert "wants plan, which text cannot give" in refused(2, "run", RESIDUAL, "-o", output, "--passes", "shrink")
    assert "wants the name of a pass" in refused(2, "run", RESIDUAL, "-o", output, "--passes", ",")
    assert not output.exists()


def test_input_shapes(tmp_path: Path) -> None:
    source = MODELS / "depthwise_dynamo.onnx"
    name = next(iter(onnxprune.analyze(source).shapes.binding))
    for given in ("4,1,28,28", "4x1x28x28", f"{name}=4,1,28,28"):
        assert done_json("analyze", source, "--input-shape", given)["input_shapes"] == {name: [4, 1, 28, 28]}
    said = done("prune", source, "-o", tmp_path / "o.onnx", "--reduce", "0.3", "--input-shape", "4,1,28,28")
    assert f"Input shapes: {name} 4×1×28×28." in said
    assert "is not a shape" in refused(2, "analyze", source, "--input-shape", "4,-1")
    assert "twice" in refused(2, "analyze", source, "--input-shape", "4,1,28,28", "--input-shape", "4,1,28,28")
    assert "has no input 'other'" in refused(2, "analyze", source, "--input-shape", "other=4,1,28,28")


def test_closed_pipe_is_no_traceback() -> None:
    script = (
        "import os, sys\n"
        "read, write = os.pipe(); os.close(read); os.dup2(write, 1)\n"
        "from onnxprune.cli import main; main()"
    )
    result = process("analyze", RESIDUAL, script=script)
    assert result.stderr == ""
    assert result.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX locales")
def test_terminal_without_unicode() -> None:
    result = process("analyze", RESIDUAL, env={"PYTHONIOENCODING": "ascii", "COLUMNS": "80"})
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
