"""``bench``: what it reports is what was measured, and what it says when it cannot measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import MeasurementError, UsageError
from onnxprune.ir.sampling import exactly
from onnxprune.ir.tracing import NodeTime, TypeTime, by_type, read_trace
from onnxprune.latency.bench import ModelTimes, _noise
from onnxprune.latency.statistics import paired_ratio, spread
from tests.cli.support import RESIDUAL, VGG, done, done_json, refused, saved, two_convs


def test_the_trace_gives_the_median_of_the_counted_runs() -> None:
    def run(at: int) -> dict[str, object]:
        return {"cat": "Session", "name": "model_run", "ts": at, "dur": 100}

    def kernel(name: str, at: int, lasts: int, op_type: str = "Conv") -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": at, "dur": lasts, "args": {"op_name": op_type}}

    events = [
        run(0), kernel("a", 1, 90), kernel("b", 95, 9, "Relu"),
        run(200), kernel("a", 201, 10), kernel("b", 250, 2, "Relu"), kernel("b", 255, 3, "Relu"),
        run(400), kernel("a", 401, 30), kernel("b", 450, 5, "Relu"), kernel("loop", 400, 99, "Loop"),
        {"cat": "Node", "name": "a_fence_before", "ts": 401, "dur": 50, "args": {"op_name": "Conv"}},
    ]  # fmt: skip
    assert read_trace(events, warmup=1).nodes == (
        NodeTime("a", "Conv", pytest.approx(20e-6)),
        NodeTime("b", "Relu", pytest.approx(5e-6)),  # twice in one run, as in a loop: summed
    )
    assert read_trace(events, warmup=1, quantile=0).nodes[0].seconds == pytest.approx(10e-6)


def test_types_are_summed_the_slowest_first() -> None:
    nodes = [NodeTime("a", "Relu", 1.0), NodeTime("b", "Conv", 2.0), NodeTime("c", "Conv", 3.0)]
    assert by_type(nodes) == (TypeTime("Conv", 2, 5.0), TypeTime("Relu", 1, 1.0))


def subject(seconds: list[float], reference: list[float]) -> ModelTimes:
    times, others = np.array(seconds), np.array(reference)
    return ModelTimes("m.onnx", {}, spread(times), paired_ratio(times, others), None)


def test_a_noisy_machine_is_named_with_the_spread() -> None:
    quiet = subject([1.0, 1.01, 1.02] * 5, [2.0, 2.02, 2.04] * 5)
    assert _noise([quiet]) is None
    noisy = _noise([quiet, subject([0.001, 0.002, 0.004] * 5, [0.001] * 15)])
    assert noisy is not None
    assert "150 % of the median (1 to 4 ms)" in noisy
    assert "between 1.00 and 4.00" in noisy


def test_models_run_side_by_side(tmp_path: Path) -> None:
    result = onnxprune.bench(RESIDUAL, onnxprune.load(two_convs()), rounds=exactly(2), per_operator=True)
    first, second = result.subjects
    assert (first.name, second.name) == (str(RESIDUAL), "model 2")
    assert second.inputs == {"x": (1, 3, 8, 8)}
    assert (first.latency.count, first.ratio) == (2, None)
    assert second.layers == {"fp32": 2, "fp16": 0, "int8": 0}
    assert second.ratio is not None
    assert second.ratio.low <= second.ratio.median <= second.ratio.high
    assert sum(node.op_type in ("Conv", "FusedConv") for node in second.nodes) == 2
    if first.memory is not None:
        assert 0 < first.memory.model < first.memory.peak


def test_the_command_prints_all_of_it(tmp_path: Path) -> None:
    small = saved(tmp_path, two_convs())
    data = done_json("bench", small, RESIDUAL, "--rounds", 2, "--no-memory", "--threads", 2)
    settings = {"threads": 2, "inter_threads": 1, "provider": "CPUExecutionProvider", "runtime": "onnxruntime"}
    assert data["engine"] == settings
    assert [entry["model"] for entry in data["models"]] == [str(small), str(RESIDUAL)]
    assert data["models"][0]["ratio"] is None
    assert set(data["models"][1]["ratio"]) == {"median", "low", "high"}
    assert data["models"][1]["latency"]["count"] == 2
    assert data["models"][0]["layers"] == {"fp32": 2, "fp16": 0, "int8": 0}
    text = done("bench", small, "--rounds", 2, "--no-memory", "--per-operator", "--top", 1)
    assert "slowest 1 of" in text
    assert "2 fp32" in text
    assert "1 thread, CPUExecutionProvider; 2 rounds. Inputs: x 1×3×8×8." in text


def test_shapes_go_to_the_models_that_have_the_input(tmp_path: Path) -> None:
    small = saved(tmp_path, two_convs())
    data = done_json("bench", VGG, small, "--rounds", 2, "--no-memory", "--input-shape", "image=4,1,28,28")
    assert [entry["input_shapes"] for entry in data["models"]] == [{"image": [4, 1, 28, 28]}, {"x": [1, 3, 8, 8]}]
    assert "no model has an input 'z'" in refused(2, "bench", VGG, small, "--input-shape", "z=1,3")


def test_what_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one model"):
        onnxprune.bench()
    with pytest.raises(UsageError, match=r"no NoSuchProvider here; choose one of .*CPUExecutionProvider"):
        onnxprune.bench(RESIDUAL, provider="NoSuchProvider", memory=False)
    with pytest.raises(UsageError, match="threads must not be negative"):
        onnxprune.bench(RESIDUAL, threads=-1)
    with pytest.raises(UsageError, match="one for each of the 1 models"):
        onnxprune.bench(RESIDUAL, input_shapes=[None, None])
    unknown = two_convs()
    unknown.graph.node[1].op_type, unknown.graph.node[1].domain = "Nonsense", "nowhere"
    unknown.opset_import.add(domain="nowhere", version=1)
    with pytest.raises(MeasurementError, match="onnxruntime does not load"):
        onnxprune.bench(unknown, memory=False)
    with pytest.raises(MeasurementError, match=r"process that measures the memory of model\.onnx failed"):
        onnxprune.bench(unknown)
