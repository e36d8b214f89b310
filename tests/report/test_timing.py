"""Time per layer: fused and renamed nodes are told to the layers that they were made from."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

import pytest

import onnxprune
from onnxprune.ir.tracing import NodeTime, Trace
from onnxprune.report import timing
from tests.cli.support import MODELS, RESIDUAL, done

LAYERS = [layer.name for layer in onnxprune.analyze(RESIDUAL).layers]


def timed(monkeypatch: pytest.MonkeyPatch, *nodes: NodeTime) -> Mapping[str, float]:
    """The times of the residual model where the profiler says this."""
    monkeypatch.setattr(timing, "traced", lambda *_, **__: Trace(nodes, between=0.5))
    return timing.layer_times(onnxprune.analyze(RESIDUAL), RESIDUAL)


def test_names_lead_to_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    times = timed(
        monkeypatch,
        NodeTime("/Relu_output_0_nchwc", "Conv", 1.0),  # stem and its activation
        NodeTime(LAYERS[1], "FusedConv", 2.0),
        NodeTime(f"{LAYERS[2]}_output_0_nchwc", "Conv", 3.0),
        NodeTime("fused /head/Gemm/MatMulAddFusion", "FusedGemm", 4.0),
        NodeTime("/MaxPool_output_0_nchwc", "MaxPool", 100.0),
        NodeTime("ReorderOutput", "ReorderOutput", 100.0),
        NodeTime("nobody knows", "Conv", 100.0),
    )
    assert times == {LAYERS[0]: 1.0, LAYERS[1]: 2.0, LAYERS[2]: 3.0, LAYERS[-1]: 4.0}


@pytest.mark.parametrize("name", ["residual_torchscript", "vgg_keras_tensorflow", "depthwise_dynamo", "unet_dynamo"])
def test_most_layers_of_real_models_are_found(name: str) -> None:
    analysis = onnxprune.analyze(MODELS / f"{name}.onnx")
    times = timing.layer_times(analysis, MODELS / f"{name}.onnx", runs=1)
    names = {layer.name for layer in analysis.layers}
    assert set(times) <= names
    assert len(times) >= 0.9 * len(names), names - set(times)


def test_the_report_shows_time(tmp_path: Path) -> None:
    done("report", RESIDUAL, "--time", "-o", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert '<option value="time">time</option>' in text
    assert "under onnxruntime's profiler, which slows" in html.unescape(text)
