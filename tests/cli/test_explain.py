"""``explain``: groups, coupled axes, the paths to them, and pins."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import networkx as nx
import pytest

import onnxprune
from onnxprune.analysis.explain import Bundle, coupling_graph, explain
from onnxprune.analysis.prunability import summarize
from onnxprune.ops.relations import Axis
from tests.cli.support import MODELS, RESIDUAL, conv, done, done_json, model, node, refused

DENSE = MODELS / "dense_torchscript.onnx"
STEM = "/stem/stem.0/Conv"


def only_bundle(bundles: tuple[Bundle, ...]) -> Bundle:
    assert len(bundles) == 1
    return bundles[0]


def test_residual_stream() -> None:
    explanation = explain(onnxprune.analyze(RESIDUAL), STEM)
    assert (explanation.channels, explanation.prunable) == (16, 16)
    bundle = only_bundle(explanation.bundles)
    losing = {kind: {layer.name for layer in bundle.layers if layer.loses == kind} for kind in ("filters", "inputs")}
    assert losing["filters"] == {f"/stages/stages.{stage}/second/second.0/Conv" for stage in (0, 1)}
    assert losing["inputs"] == {
        *(f"/stages/stages.{stage}/first/first.0/Conv" for stage in (0, 1, 2)),
        "/stages/stages.2/shortcut/shortcut.0/Conv",
    }
    added = next(layer for layer in bundle.layers if layer.name == "/stages/stages.0/second/second.0/Conv")
    assert [step.node for step in added.path] == ["/Relu", "/MaxPool", "/stages/stages.0/Add", "/stages/stages.0/Add"]


@pytest.mark.parametrize("source", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_the_whole_truth(source: Path) -> None:
    """What is listed is what a plan removes, and every path is a walk of steps that the coupling graph has."""
    analysis = onnxprune.analyze(source)
    coupling = analysis.coupling
    for report in analysis.layers:
        explanation = explain(analysis, report.name)
        assert explanation.prunable == report.prunable
        listed = sorted(channel for bundle in explanation.bundles for channel in bundle.channels)
        assert listed == (list(range(report.channels)) if explanation.bundles else [])
        for bundle in explanation.bundles:
            assert (bundle.group is None) == bool(bundle.pins)
            start = bundle.axes[0].axis
            for coupled in bundle.axes:
                walk = [start, *(step.axis for step in coupled.path)]
                assert walk[-1] == coupled.axis
                assert all(coupling.network.has_edge(a, b) for a, b in pairwise(walk))
            if bundle.group is not None:
                atom = coupling.groups[bundle.group].atoms[:1]
                removed = {
                    coupling.axes.axis(axis)
                    for members, positions in zip(coupling.members, coupling.removed_positions(atom), strict=True)
                    for axis in members
                    if len(positions)
                }
                assert {coupled.axis for coupled in bundle.axes} == removed


def test_pins_name_node_reason_and_path() -> None:
    proto = model(conv("x", "a", 8, 3), node("Relu", ["a"], "b"), node("Sigmoid", ["b"], "y"))
    explanation = explain(onnxprune.analyze(proto), "conv_a")
    bundle = only_bundle(explanation.bundles)
    assert bundle.group is None
    pin = bundle.pins[0]
    assert (pin.node, pin.reason, pin.axis) == ("Sigmoid 'Sigmoid_y'", "reaches graph output 'y'", Axis("y", 1))
    assert [step.node for step in pin.path] == ["Relu_b", "Sigmoid_y"]


def test_only_some_channels_pinned() -> None:
    """The first half of the channels reaches the output through a Split, the other half does not."""
    proto = model(
        conv("x", "a", 8, 3),
        node("Split", ["a"], "y", axis=1, num_outputs=2),
        conv("b", "c", 4, 4),
    )
    proto.graph.node[1].output.append("b")
    del proto.graph.node[1].attribute[1]  # The number of outputs is an attribute only from opset 18 on.
    explanation = explain(onnxprune.analyze(proto), "conv_a")
    assert explanation.prunable == 4
    assert {bundle.channels: bundle.group is None for bundle in explanation.bundles} == {
        (0, 1, 2, 3): True,
        (4, 5, 6, 7): False,
    }
    summary = summarize(onnxprune.analyze(proto))
    assert "conv_a" in summary.pinned[0].layers


def test_terminal_output_names_path_and_pin() -> None:
    said = done("explain", RESIDUAL, STEM)
    assert "16 output channels" in said
    assert "through /Relu → /MaxPool → /stages.0/Add" in said
    assert "onnx::Conv_128[0]" in said
    said = done("explain", RESIDUAL, "/head/Gemm")
    assert "All 10 channels are pinned" in said
    assert "reaches graph output 'logits': Gemm '/head/Gemm' at logits[1]" in said


def test_every_path_of_the_json_ends_at_its_axis() -> None:
    for bundle in done_json("explain", DENSE, done_json("analyze", DENSE)["layers"][0]["name"])["bundles"]:
        for coupled in bundle["axes"][1:]:
            assert coupled["path"][-1]["axis"] == coupled["axis"]


def test_names_from_the_table_are_understood() -> None:
    whole = "/stages/stages.0/first/first.0/Conv"
    for pasted in (whole, "/stages.0/first.0/Conv", "/stages.0/first.0", "/stages.0/…st.0"):
        assert done("explain", RESIDUAL, pasted).splitlines()[0] == whole


def test_unknown_layer_and_no_layer() -> None:
    assert f"did you mean {STEM}" in refused(2, "explain", RESIDUAL, "/stem/Conv")
    assert "give a layer" in refused(2, "explain", RESIDUAL)


def test_graphs(tmp_path: Path) -> None:
    dot, graphml = tmp_path / "graph.dot", tmp_path / "graph.graphml"
    said = done("explain", RESIDUAL, "--dot", dot, "--graphml", graphml)
    network = coupling_graph(onnxprune.analyze(RESIDUAL))
    assert f"{network.number_of_nodes()} axes" in said
    read = nx.read_graphml(graphml)
    assert dict(read.nodes(data=True)) == dict(network.nodes(data=True))
    assert read.number_of_edges() == network.number_of_edges()
    ElementTree.parse(graphml)
    text = dot.read_text(encoding="utf-8")
    assert text.count(" -- ") == network.number_of_edges()
    assert '"logits[1]"' in text
    done("explain", RESIDUAL, STEM, "--dot", dot)
    assert '"logits[1]"' not in dot.read_text(encoding="utf-8")
    assert "two outputs" in refused(2, "explain", RESIDUAL, "--dot", dot, "--graphml", dot)
