"""Times as a file: what it holds, and whose times are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import DataError, UsageError
from onnxprune.ir.tracing import NodeTime, Trace
from onnxprune.latency.profile import _by_node
from onnxprune.latency.times import Times, record_times, schema
from tests.cli.support import done, done_json, refused, saved
from tests.latency.fakes import FakeMachine
from tests.latency.networks import chain


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Times:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    return record_times(onnxprune.analyze(chain(32, 64, 48, 5)), machine=FakeMachine())


def test_what_is_written_is_read_back_and_predicts_the_same(times: Times, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    times.save(tmp_path / "times.json")
    jsonschema.validate(json.loads((tmp_path / "times.json").read_text()), schema())
    again = Times.load(tmp_path / "times.json")
    assert again.to_json() == times.to_json()
    analysis = onnxprune.analyze(chain(32, 64, 48, 5))
    half = np.maximum(analysis.costs.full // 2, 1)
    assert again.of(analysis).of(analysis).total(half) == times.profile.of(analysis).total(half)


def test_times_of_another_model_or_of_other_shapes_are_refused(times: Times) -> None:
    with pytest.raises(UsageError, match="another model"):
        times.of(onnxprune.analyze(chain(32, 64, 40, 5)))
    other = Times(times.digest, {"x": (1, 3, 7, 7)}, times.capacity, times.profile)
    with pytest.raises(UsageError, match="--input-shape x=1,3,7,7"):
        other.of(onnxprune.analyze(chain(32, 64, 48, 5)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "plan"}, "holds no times"),
        ({"version": 2}, "version 2"),
        ({"seconds": {}}, "damaged"),
        ({"capacity": {"macs": 0, "bandwidth": 1}}, "not positive"),
        ({"nodes": {"y": None}}, "damaged"),
        ({"layers": 3}, "damaged"),
    ],
)
def test_a_damaged_file_is_told(times: Times, tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps({**times.to_dict(), **change}))
    with pytest.raises(DataError, match=said):
        Times.load(path)
    path.write_text("{")
    with pytest.raises(DataError, match="no JSON"):
        Times.load(path)


def test_names_of_fused_nodes_are_traced_back() -> None:
    model = onnxprune.load(chain(8, 8, 5))
    names = ["ReorderInput", "r0_nchwc", "c1", "fused c0/Clip", "ReorderOutput_token_3", "y"]
    trace = Trace(tuple(NodeTime(name, "Conv", 1.0) for name in names), 0.0)
    # What has a name of its own counts with what runs before it; the first, with the first node.
    assert _by_node(model, trace) == {"c0": 3.0, "r0": 1.0, "c1": 1.0, "y": 1.0}


def test_the_command_writes_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("onnxprune.latency.machine.LocalMachine", lambda engine: FakeMachine())
    model, file = saved(tmp_path, chain(32, 5)), tmp_path / "times.json"
    assert "Wrote" in done("profile", model, "-o", file)
    assert done_json("profile", model, "-o", file)["model"]["digest"] == Times.load(file).digest
    assert "input" in refused(2, "profile", model, "-o", model)
