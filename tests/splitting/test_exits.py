"""Early exits: thresholds whose promise holds, what they save, and what is no exit."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import onnxprune
from onnxprune.data.samples import collect
from onnxprune.errors import AnswersError, DataError, UsageError
from onnxprune.latency.times import record_times
from onnxprune.splitting import Exits, early_exits
from onnxprune.splitting.writing import schema
from tests.cli.support import MODELS, RESIDUAL, done, done_json, refused, saved
from tests.latency.fakes import FakeMachine

SAMPLE = MODELS / "fashion_sample.npz"
HEAD = Path(__file__).parents[2] / "examples" / "split" / "early_head.py"


@pytest.fixture(scope="module")
def two_heads() -> onnxprune.Model:
    made = runpy.run_path(str(HEAD))["with_early_head"]
    model: onnxprune.Model = made(onnxprune.load(RESIDUAL), "/stages/stages.1/Relu_1_output_0", str(SAMPLE))
    return model


def graded(noises: tuple[float, ...] = (0.8, 0.3), classes: int = 3) -> onnx.ModelProto:
    """A model whose last output is x[:, 0], and whose early ones, e0 and so on, are that with x[:, k] of noise."""
    outputs = ", ".join([*(f"float[N, {classes}] e{k}" for k in range(len(noises))), f"float[N, {classes}] last"])
    parts = [f"part{k}" for k in range(len(noises) + 1)]
    lines = [f"{', '.join(parts)} = Split <axis = 1, num_outputs = {len(parts)}> (x)", "flat0 = Flatten (part0)"]
    for k, noise in enumerate(noises):
        lines += [
            f"noise{k} = Flatten (part{k + 1})",
            f"scale{k} = Constant <value_float = {noise}> ()",
            f"more{k} = Mul (noise{k}, scale{k})",
            f"flat{k + 1} = MatMul (flat{k}, one)",
            f"sum{k} = Add (flat{k + 1}, more{k})",
            f"e{k} = MatMul (sum{k}, one)",
        ]
    lines += [
        f"behind = MatMul (flat{len(noises)}, one)",
        "behind2 = MatMul (behind, one)",
        "last = MatMul (behind2, one)",
    ]
    body = "\n".join(lines)
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 18]>
    g (float[N, {len(parts)}, {classes}] x) => ({outputs}) <float[{classes}, {classes}] one> {{ {body} }}""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(classes, dtype=np.float32), "one"))
    return model


def drawn(count: int, seed: int, parts: int = 3, classes: int = 3) -> NDArray[np.float32]:
    return (4 * np.random.default_rng(seed).standard_normal((count, parts, classes))).astype(np.float32)


def routed(model: onnx.ModelProto, x: NDArray[np.float32], found: Exits) -> tuple[NDArray[np.int64], float]:
    """By hand: where each sample leaves, and the share of those that get another answer than the last output's."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    scores = dict(zip([o.name for o in session.get_outputs()], session.run(None, {"x": x}), strict=True))
    place, answers = [], []
    for i in range(len(x)):
        for k, one in enumerate(found.exits):
            row = scores[one.output][i].astype(np.float64)
            sure = (np.exp(row - row.max()) / np.exp(row - row.max()).sum()).max()
            if k == len(found.exits) - 1 or sure >= found.threshold:
                place.append(k)
                answers.append(row.argmax() != scores[found.exits[-1].output][i].argmax())
                break
    return np.array(place), float(np.mean(answers))


def test_what_is_told_is_what_happens_and_the_promise_holds() -> None:
    model = graded()
    analysis = onnxprune.analyze(model)
    other = drawn(2000, 99)
    broken = 0
    for seed in range(12):
        found = early_exits(analysis, {"x": drawn(700, seed)}, max_loss=0.05, confidence=0.8)
        place, lost = routed(model, other, found)
        shares = np.bincount(place, minlength=3) / len(other)
        assert np.allclose(shares, [one.share for one in found.exits], atol=0.06)
        assert found.bound.upper <= 0.05
        assert sum(one.differ for one in found.exits) == pytest.approx(found.bound.mean)
        broken += lost > 0.05
    assert broken <= 4  # 2.4 are expected at most
    assert found.early > 0.2
    early, middle, last = (one.macs for one in found.exits)
    assert (early, middle, last, found.macs) == (18, 36, 63, 45)
    assert found.mean_macs == pytest.approx(sum(one.share * one.macs for one in found.exits))
    assert [one.tensors for one in found.exits][-1] == ()


def test_a_laxer_promise_lets_more_leave() -> None:
    analysis, samples = onnxprune.analyze(graded()), {"x": drawn(2000, 0)}
    shares = [early_exits(analysis, samples, max_loss=most).early for most in (0.01, 0.03, 0.1)]
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    assert early_exits(analysis, samples, max_loss=0.03, certainty="margin").early > 0.1


def test_an_exit_that_is_sure_and_wrong_keeps_no_promise() -> None:
    model = graded()
    model.graph.node[-3].input[0] = "turned"
    model.graph.node.insert(len(model.graph.node) - 3, onnx.helper.make_node("Neg", ["flat2"], ["turned"]))
    with pytest.raises(AnswersError, match="the promise cannot be kept: where only the surest leave"):
        early_exits(onnxprune.analyze(model), {"x": drawn(2000, 0)}, max_loss=0.01)


@pytest.mark.parametrize(
    ("exits", "said"),
    [
        (("e0", "lost"), "did you mean last"),
        (("e0",), "at least two outputs"),
        (("e0", "e0"), "at least two outputs"),
        (("last", "e0"), r"leaving at 'last' saves nothing: .*--exits e0,last"),
    ],
)
def test_what_is_no_exit_is_told(exits: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        early_exits(onnxprune.analyze(graded()), {"x": drawn(700, 0)}, max_loss=0.05, exits=exits)


def test_too_few_samples_and_made_up_ones_are_refused() -> None:
    analysis = onnxprune.analyze(graded())
    with pytest.raises(DataError, match=r"takes at least 299 samples .* and there are 240"):
        early_exits(analysis, {"x": drawn(300, 0)}, max_loss=0.01)
    made = replace(collect({"x": drawn(300, 0)}, analysis.model), made="noise")
    with pytest.raises(DataError, match="prove nothing about real data"):
        early_exits(analysis, made, max_loss=0.05)
    with pytest.raises(UsageError, match="did you mean margin"):
        early_exits(analysis, {"x": drawn(300, 0)}, max_loss=0.05, certainty="margins")


def test_an_exit_that_another_needs_comes_first() -> None:
    model = graded()
    model.graph.node.append(onnx.helper.make_node("Identity", ["e0"], ["again"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("again", 1, ["N", 3]))
    with pytest.raises(UsageError, match="'e0' is computed where 'again' is: name exits from early to late"):
        early_exits(onnxprune.analyze(model), {"x": drawn(700, 0)}, max_loss=0.05, exits=("again", "e0", "last"))


def test_samples_leave_one_by_one() -> None:
    analysis = onnxprune.analyze(graded(), {"x": (8, 3, 3)})
    with pytest.raises(UsageError, match="takes 8 samples at once"):
        early_exits(analysis, {"x": drawn(700, 0)}, max_loss=0.05)


def test_outputs_of_other_shapes_are_no_exits(tmp_path: Path) -> None:
    words = ("--calibrate", SAMPLE, "--max-loss", "5%")
    assert "no two are float scores of one shape" in refused(2, "exits", RESIDUAL, *words)
    model = graded()
    model.graph.node.append(onnx.helper.make_node("Concat", ["e1", "e1"], ["wide"], axis=1))
    model.graph.output.append(onnx.helper.make_tensor_value_info("wide", 1, ["N", 6]))
    path = saved(tmp_path, model)
    assert "float scores of one shape" in refused(2, "exits", path, *words, "--exits", "e0,wide")
    assert "--max-loss 1% --calibrate SPEC" in refused(2, "exits", path)


def test_the_command_tells_what_is_saved(
    two_heads: onnxprune.Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    path, times = tmp_path / "two.onnx", tmp_path / "times.json"
    two_heads.save(path)
    record_times(onnxprune.analyze(two_heads), machine=FakeMachine()).save(times)
    words = ("exits", path, "--calibrate", SAMPLE, "--max-loss", "5%")
    told = done_json(*words, "--times", times)
    assert [one["output"] for one in told["exits"]] == ["early", "logits"]
    assert told["early"] > 0.3
    assert told["mean_macs"] < told["macs"] < told["exits"][-1]["macs"]
    assert told["mean_seconds"] < told["seconds"]
    assert told["exits"][0]["tensors"] == ["/stages/stages.1/Relu_1_output_0"]
    text = done(*words)
    assert "Promise kept" in text
    assert "leave early" in text
    other = tmp_path / "other.json"
    record_times(onnxprune.analyze(RESIDUAL), machine=FakeMachine()).save(other)
    assert "recorded of another model" in refused(2, *words, "--times", other)


def test_the_parts_between_exits_route_as_was_told(tmp_path: Path) -> None:
    """Parts are run one after the other, each sample as far as it has to go, by the manifest alone."""
    source, folder, data = graded(), tmp_path / "parts", tmp_path / "x.npz"
    path, x = saved(tmp_path, source), drawn(700, 5)
    np.savez(data, x=x)
    words = ("exits", path, "--calibrate", data, "--max-loss", "5%", "-o", folder)
    assert "Certificate passed" in done(*words)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    jsonschema.validate(manifest, schema())
    assert [part["file"] for part in manifest["parts"]] == ["part1.onnx", "part2.onnx", "part3.onnx"]
    found = early_exits(onnxprune.analyze(source), {"x": x}, max_loss=0.05)
    place, _ = routed(source, x[:50], found)
    assert len(set(place)) == 3
    whole = dict(zip(("e0", "e1", "last"), np.array(session_of(path).run(None, {"x": x[:50]})), strict=True))
    for i, expected in enumerate(place):
        known = {"x": x[i : i + 1]}
        for at, part in enumerate(manifest["parts"]):
            session = session_of(folder / part["file"])
            given = {value["name"]: known[value["name"]] for value in part["inputs"]}
            names = [value["name"] for value in part["outputs"]]
            known |= dict(zip(names, session.run(names, given), strict=True))
            scores = known[manifest["exits"]["exits"][at]["output"]].astype(np.float64)
            if (np.exp(scores) / np.exp(scores).sum()).max() >= manifest["exits"]["threshold"] or at == 2:
                break
        assert at == expected
        assert np.allclose(scores, whole[("e0", "e1", "last")[at]][i])
    assert "is there" in refused(2, *words)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path))
