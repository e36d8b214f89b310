"""``prune`` with a latency, on a machine whose times are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import typer

import onnxprune
from onnxprune._display import seconds
from onnxprune.cli.timing import timing_lines
from onnxprune.cli.units import parse_duration
from onnxprune.ir.engine import Engine
from onnxprune.latency.bench import Bench, ModelTimes
from onnxprune.latency.statistics import Ratio, spread
from onnxprune.pruning.widths import block
from tests.cli.support import done, done_json, refused, saved
from tests.latency.fakes import FakeMachine
from tests.latency.networks import chain


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("onnxprune.latency.machine.LocalMachine", lambda engine: FakeMachine(lanes=4, bend=1.3))
    return saved(tmp_path, chain(64, 128, 64, 5))


def test_a_latency_is_asked_for_met_and_reported(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    data = done_json("prune", model, "-o", output, "--mode", "la", "--reduce", 0.5, "--round-to", "measured")
    latency = data["latency"]
    assert latency["met"] is True
    assert latency["measured"] == pytest.approx(latency["asked"], rel=0.05)
    assert latency["profile"]["multiple"] == 4
    assert data["settings"]["round_to"] == 4
    assert data["certificate"]["passed"] is True
    weight = onnxprune.load(output).weights["w1"]
    assert weight.shape[0] % 4 == weight.shape[1] % 4 == 0
    text = done("prune", model, "-o", output, "--max-latency", f"{1e6 * latency['asked']:.1f}us", "--round-to", 4)
    assert "Latency: asked " in text
    assert "channel counts are multiples of 4." in text
    text = done("prune", model, "-o", output, "--max-latency", f"{1e6 * latency['asked']:.1f}us", "--round-to", 1)
    assert "channel counts are multiples of 1." in text


def test_the_measured_multiple_goes_with_any_budget(model: Path, tmp_path: Path) -> None:
    data = done_json("prune", model, "-o", tmp_path / "out.onnx", "--reduce", 0.5, "--round-to", "measured")
    assert data["settings"]["round_to"] == 4
    assert data["latency"] is None
    data = done_json("prune", model, "-o", tmp_path / "out.onnx", "--channels", 0.5, "--round-to", "measured")
    assert data["settings"]["round_to"] == 4


def test_by_default_counts_suit_the_provider(model: Path, tmp_path: Path) -> None:
    given = ("prune", model, "-o", tmp_path / "out.onnx", "--reduce", 0.5)
    assert done_json(*given)["settings"]["round_to"] == f"auto:{block()}"
    assert done_json(*given, "--provider", "CUDAExecutionProvider")["settings"]["round_to"] == "auto:8"


def test_what_cannot_be_done_is_said(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    assert "latency cannot fall to 0.001 ms" in refused(1, "prune", model, "-o", output, "--max-latency", "1us")
    assert "write it like 5ms" in refused(2, "prune", model, "-o", output, "--max-latency", "5")
    assert "must be a whole number" in refused(2, "prune", model, "-o", output, "--reduce", 0.5, "--round-to", "x")
    assert "give either --channels, or a latency" in refused(
        2, "prune", model, "-o", output, "--channels", 0.5, "--max-latency", "1ms"
    )
    assert not output.exists()


@pytest.mark.parametrize(("text", "value"), [("5ms", 0.005), ("1.2 s", 1.2), ("800us", 0.0008), (".5 µs", 5e-7)])
def test_times_as_people_write_them(text: str, value: float) -> None:
    assert parse_duration(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["", "5", "ms", "5 m", "-5ms", "5,2ms"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time"):
        parse_duration(text)


def test_times_as_people_read_them() -> None:
    read = [seconds(value) for value in (0.0, 2.45e-5, 0.00427, 0.9996, 12.0)]
    assert read == ["0 µs", "24.5 µs", "4.27 ms", "1.00 s", "12 s"]


def test_prune_ends_with_the_time_of_both_files(model: Path, tmp_path: Path) -> None:
    given = ("prune", model, "-o", tmp_path / "out.onnx", "--reduce", 0.5)
    before, after = done_json(*given)["bench"]["models"]
    assert before["ratio"] is None
    assert after["ratio"]["median"] > 0
    assert "Time of a run: " in done(*given)
    assert "Time of a run" not in done(*given, "--no-bench")
    assert done_json(*given, "--no-bench")["bench"] is None
    # What was measured to find the plan is not measured again.
    assert done_json(*given, "--mode", "la")["bench"] is None


def _timed(ratio: float) -> Bench:
    before = ModelTimes("a", {}, spread(np.full(5, 0.01)), None, None)
    after = ModelTimes("b", {}, spread(np.full(5, 0.01 * ratio)), Ratio(ratio, ratio, ratio), None)
    return Bench(Engine(), (before, after), None)


def test_a_result_that_is_not_faster_says_why_and_what_to_do() -> None:
    plan = onnxprune.plan(chain(64, 64, 5), reduce=0.3, round_to=1)
    ((told, style),) = timing_lines(_timed(0.5), plan)
    assert "10 ms → 5 ms, 0.50 of the original's" in told
    assert style == ""
    (_, _), (why, style) = timing_lines(_timed(1.2), plan)
    assert "slower" in why
    assert "--round-to auto" in why
    assert style == "yellow"
    (_, _), (why, _) = timing_lines(_timed(1.2), onnxprune.plan(chain(64, 64, 5), reduce=0.3))
    assert "--mode latency" in why
    assert timing_lines("onnxruntime does not run it", plan) == [("Not timed: onnxruntime does not run it.", "yellow")]
