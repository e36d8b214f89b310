"""``onnxprune report`` and its bad inputs, without a browser."""

from __future__ import annotations

import html
import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.main import get_command

import onnxprune
from onnxprune.cli.app import app
from onnxprune.cli.options import Offer
from onnxprune.errors import UsageError
from onnxprune.ir.engine import Engine
from onnxprune.ir.provenance import with_steps
from onnxprune.latency.bench import Bench, ModelTimes
from onnxprune.latency.statistics import Ratio, Spread
from onnxprune.pruning.comparison import compare, compare_models
from onnxprune.pruning.options import CompressOptions, JobOptions, PlanOptions, options_of
from onnxprune.report import Report, candidate, subject
from onnxprune.report.page import prune_command, render
from onnxprune.report.payload import labels
from tests.cli.support import MODELS, RESIDUAL, VGG, conv, done, done_json, model, node, refused, run, saved


def embedded(path: Path) -> dict[str, object]:
    """The data that a page holds."""
    match = re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert match is not None
    found: dict[str, object] = json.loads(match[1])
    return found


def test_files_compare_as_the_plan_says(folder: Path) -> None:
    before, after = onnxprune.analyze(RESIDUAL), onnxprune.analyze(folder / "half.onnx")
    expected = compare(before, onnxprune.Plan.load(folder / "half.json"))
    found = compare_models(before, after)
    assert found.layers == expected.layers
    assert found.before == expected.before
    assert found.after == expected.after


def test_a_plan_alone_shows_what_it_would_do(folder: Path, tmp_path: Path) -> None:
    done("report", RESIDUAL, "--plan", folder / "half.json", "-o", tmp_path / "r.html")
    with_file = embedded(folder / "report.html")
    alone = embedded(tmp_path / "r.html")
    assert alone["candidates"] == ["half"]
    assert alone["metrics"]["flops"]["after"][0] == with_file["metrics"]["flops"]["after"][0]  # type: ignore[index]
    assert "passed" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_without_a_plan_there_is_no_certificate(folder: Path, tmp_path: Path) -> None:
    with_plan = done_json("report", RESIDUAL, folder / "half.onnx", "-o", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert with_plan["bytes"] == len(text.encode())
    assert "no certificate" not in text  # the file tells its plan
    silent = with_steps(onnxprune.load(folder / "half.onnx"), ())
    silent.save(tmp_path / "silent.onnx")
    done("report", RESIDUAL, tmp_path / "silent.onnx", "-o", tmp_path / "s.html")
    text = (tmp_path / "s.html").read_text(encoding="utf-8")
    assert "no certificate" in text
    assert "The file tells no plan" in text


def test_weights_that_nobody_tells_of_fail_as_verify_does(folder: Path, tmp_path: Path) -> None:
    proto = onnx.load(folder / "half.onnx")
    weight = next(w for w in proto.graph.initializer if len(w.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    onnx.save(proto, tmp_path / "trained.onnx")
    plan = folder / "half.json"
    for words in (
        ("report", RESIDUAL, tmp_path / "trained.onnx", "--plan", plan, "-o", tmp_path / "r.html", "--no-bench"),
        ("verify", RESIDUAL, tmp_path / "trained.onnx", plan),
    ):
        result = run(*words)
        assert result.exit_code == 1, result.output
    text = html.unescape((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "The certificate FAILED: do not use this file" in text
    assert f"those of {weight.name} have changed" in text


def test_a_refit_that_the_file_tells_of_is_proven_and_told(tmp_path: Path) -> None:
    data = f"{MODELS / 'fashion_sample.npz'}?holdout=0.5"
    done("prune", RESIDUAL, "-o", tmp_path / "a.onnx", "--reduce", 0.4, "--calibrate", data, "--no-bench")
    found = done_json("report", RESIDUAL, tmp_path / "a.onnx", "-o", tmp_path / "r.html", "--no-bench")
    assert found["verdicts"] == [{"name": "a.onnx", "headline": "Proven; answers kept", "passed": True}]
    text = html.unescape((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "250 samples of fashion_sample.npz?holdout=0.5" in text
    assert "So the file tells; --calibrate measures it anew." in text
    found = done_json(
        "report", RESIDUAL, tmp_path / "a.onnx", "-o", tmp_path / "s.html", "--no-bench", "--calibrate", data
    )
    assert found["passed"]
    text = html.unescape((tmp_path / "s.html").read_text(encoding="utf-8"))
    assert re.search(r"The original's class for \d\d\.\d % of 250 samples.* On 250 samples\.", text)


def test_a_file_that_does_not_belong_to_the_plan_fails(folder: Path, tmp_path: Path) -> None:
    half, third = folder / "half.onnx", folder / "third.onnx"
    plans = ("--plan", folder / "half.json", "--plan", folder / "half.json")
    result = run("report", RESIDUAL, half, third, *plans, "-o", tmp_path / "r.html", "--no-bench", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [verdict["name"] for verdict in found["verdicts"]] == ["third.onnx", "half.onnx"]  # failures first
    assert [verdict["passed"] for verdict in found["verdicts"]] == [False, True]
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<span class="badge failed">failed</span>' in text
    assert "See whether the file belongs to this original and this plan" in html.unescape(text)
    assert text.index("card bad") < text.index("card warn")


def test_whole_runs_have_one_source(folder: Path) -> None:
    """What 'bench' measures is what the verdict and the totals say."""
    spread = Spread(2e-3, 1.9e-3, 2.1e-3, 1e-4, 1.8e-3, 100)
    faster = Spread(1e-3, 0.9e-3, 1.1e-3, 1e-4, 0.8e-3, 100)
    times = Bench(
        Engine(),
        (
            ModelTimes("a.onnx", {}, spread, None, None),
            ModelTimes("half.onnx", {}, faster, Ratio(0.5, 0.48, 0.52), None),
        ),
        None,
    )
    model, pruned = onnxprune.load(RESIDUAL), onnxprune.load(folder / "half.onnx")
    original = subject("a.onnx", model, onnxprune.analyze(model))
    shown = candidate(original, subject("half.onnx", pruned, onnxprune.analyze(pruned)))
    page = render(Report(original, (shown,), times=times, machine="a processor", date="1 May"))
    assert times.beside_first() in html.unescape(page)
    assert "2.00 × as fast" in page
    assert "On a processor, 1 May." in page
    assert re.search(r'time of a run</th><td class="number">2 ms</td>\s*<td class="number">1 ms', page)


def test_another_model_is_no_pruned_form(folder: Path, tmp_path: Path) -> None:
    message = refused(2, "report", RESIDUAL, VGG, "-o", tmp_path / "r.html")
    assert "no pruned form" in message
    message = refused(2, "report", folder / "half.onnx", RESIDUAL, "-o", tmp_path / "r.html")
    assert "more channels" in message
    assert not list(tmp_path.iterdir())


def test_plans_and_models_have_to_pair(folder: Path, tmp_path: Path) -> None:
    files = (folder / "half.onnx", folder / "third.onnx")
    message = refused(2, "report", RESIDUAL, *files, "--plan", folder / "half.json", "-o", tmp_path / "r.html")
    assert "1 plans are given for 2 pruned models" in message


def test_an_input_is_not_overwritten(folder: Path) -> None:
    half = folder / "half.onnx"
    before = half.read_bytes()
    refused(2, "report", RESIDUAL, half, "-o", half)
    assert half.read_bytes() == before


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    message = refused(2, "report", RESIDUAL, "-o", tmp_path / "r.html")
    assert "reports need jinja2, which is not installed; install it with: pip install 'jinja2" in message
    assert not list(tmp_path.iterdir())


def test_names_with_markup_stay_text(tmp_path: Path) -> None:
    nasty = "</script><script>alert(1)</script><!-- <b>"
    proto = model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), conv("b", "y", 4, 8))
    proto.graph.node[0].name = nasty
    path = saved(tmp_path, proto)
    done("report", path, "-o", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert embedded(tmp_path / "r.html")["layers"]["name"][0] == nasty  # type: ignore[index]


@pytest.mark.parametrize("name", ["depthwise_dynamo", "dense_torchscript", "unet_keras_tensorflow", "vgg_keras_torch"])
def test_pages_of_all_kinds_of_models(name: str, tmp_path: Path) -> None:
    done("report", MODELS / f"{name}.onnx", "-o", tmp_path / "r.html")
    analysis = onnxprune.analyze(MODELS / f"{name}.onnx")
    data = embedded(tmp_path / "r.html")
    lanes = data["coupling"]["lanes"]  # type: ignore[index]
    assert {lane[0] for lane in lanes} == {group for layer in analysis.layers for group in layer.groups}
    for one, (_, first, last, height) in enumerate(lanes):
        for _, other_first, other_last, other_height in lanes[one + 1 :]:
            assert height != other_height or last < other_first or other_last < first, "lanes do not cross"


OPTIONS: list[dict[str, Any]] = [
    {"mode": "params", "reduce": 0.4, "seed": 7, "floors": {"/stem*": 0.5}, "exclude": ["/head/Gemm"]},
    {"max_flops": 2.5e6, "max_params": 60e3, "max_memory": 4e5, "exact_only": True, "criterion": "l1"},
    {"max_latency": 0.01077456, "include": ["/stage*"], "grouped": "best", "split": "outer", "floor": 2.0},
    {"channels": 0.25, "exact_norm": True, "input_shapes": {"image": (2, 1, 28, 28)}},
    {"reduce": 0.3, "compensate": "bias", "certify": False, "provenance": False, "verify_memory": 10**8},
    {"reduce": 0.3, "task": "classes", "min_agreement": 0.05, "calibration_samples": 9, "memory": 10**9},
    {"reduce": 0.3, "task": "text", "int8": True, "method": "entropy", "max_drop": 0.02, "keep_float": ("/head/*",)},
]


@pytest.mark.parametrize("given", OPTIONS, ids=lambda given: next(iter(given)))
def test_every_option_is_written_as_the_command_reads_it(given: dict[str, Any]) -> None:
    """What the command line makes of the words is the options object that they were made of."""
    calibration = {"calibration": "data.npz?x"} if "task" in given else {}
    options = CompressOptions(**given, **calibration)
    made = {**options.settings(), **{f.name: getattr(options, f.name) for f in fields(JobOptions)}}
    command = get_command(app).commands["prune"]  # type: ignore[attr-defined]
    words = shlex.split(prune_command("m.onnx", "o.onnx", made))[2:]
    values = command.make_context("prune", words).params
    for kind, offer in ((PlanOptions, Offer(without=("calibration",))), (JobOptions, Offer())):
        read = offer.read(kind, {p.name: values[p.name] for p in offer.parameters(kind)})
        for name in options_of(kind):
            if name not in ("input_shapes", "calibration" if kind is PlanOptions else ""):
                wanted, found = getattr(options, name), getattr(read, name)
                assert (wanted or None) == (found or None) or wanted == found, name
    shapes = given.get("input_shapes", {})
    assert list(values["input_shape"] or ()) == [f"{k}={','.join(map(str, s))}" for k, s in shapes.items()]


def test_the_command_makes_the_model_again(tmp_path: Path) -> None:
    data = MODELS / "fashion_sample.npz"
    given = ("--calibrate", data, "--calibration-samples", 32, "--floors", "/stem*=0.5", "--seed", 7)
    # Sums on several threads differ in the last bit: both commands run as a user's do.
    first = ["onnxprune", "prune", RESIDUAL, "--reduce", 0.4, *given, "-o", tmp_path / "a.onnx"]
    subprocess.run([sys.executable, "-m", *map(str, first)], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    done("report", RESIDUAL, tmp_path / "a.onnx", "-o", tmp_path / "r.html")
    page = html.unescape((tmp_path / "r.html").read_text(encoding="utf-8"))
    (command,) = re.findall(r"<code>(onnxprune prune .*?)</code>", page)
    words = shlex.split(command.replace("-o a.onnx", "-o b.onnx"))
    assert "fashion_sample.npz" in words  # its folder is nobody else's business
    for path in (RESIDUAL, data):
        (tmp_path / path.name).symlink_to(path)
    subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_labels_are_short_and_apart() -> None:
    layers = [("/a/a.0/Conv", "Conv"), ("/a/a.1/Conv", "Conv"), ("x/Conv", "Conv"), ("x", "Gemm")]
    assert labels(layers) == ["/a.0", "/a.1", "x/Conv", "x"]


def test_models_of_no_layers_are_refused_as_pruned_forms() -> None:
    empty = onnxprune.analyze(model(node("Relu", ["x"], "y")))
    with pytest.raises(UsageError, match="lacks 14"):
        compare_models(onnxprune.analyze(RESIDUAL), empty)


def test_the_command_is_listed() -> None:
    assert "report" in [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
