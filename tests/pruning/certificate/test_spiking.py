"""Spiking networks: one layer in all time steps, pruned and certified; thresholds hide no fault."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.pruning.mutations.power import measure_power
from tests.spiking import STEPS, spiking


@pytest.mark.parametrize("kind", ["cast", "less", "where", "logic", "sign"])
def test_one_layer_in_all_steps_is_pruned_and_certified(kind: str) -> None:
    model = spiking(kind, batch=1)
    analysis = onnxprune.analyze(model)
    assert len(analysis.groups) == 2, "the two convolutions, whatever the step"
    assert all(len(group.layers) == STEPS for group in analysis.groups)
    macs = {layer.name: layer.flops for layer in analysis.layers}
    assert len(macs) == 3 * STEPS, "every use costs"
    elements = sum(weight.size for weight in model.weights.values() if weight.size > 1)
    assert elements == 8 * 9 + 8 + 8 * 8 * 9 + 8 + 4 * 128 + 4
    assert sum(layer.params for layer in analysis.layers) == elements, "weights and biases count once"
    plan = onnxprune.plan(model, reduce=0.5)
    pruned = onnxprune.apply(model, plan)
    certificate = onnxprune.verify(model, pruned, plan)
    assert certificate.complete, certificate.sentences
    assert certificate.decisions > 0
    for extents in ((8, 1, 3, 3), (8, 8, 3, 3), (4, 128), (4,)):
        (name,) = (name for name, weight in model.weights.items() if weight.shape == extents)
        assert name in pruned.weights, "still one weight in all steps"
    assert len(pruned.weights) <= len(model.weights)


@pytest.mark.parametrize("kind", ["cast", "where"])
def test_every_wrong_weight_is_noticed(kind: str) -> None:
    model = spiking(kind, batch=1)
    plan = onnxprune.plan(model, channels=0.5)
    power = measure_power(model, onnxprune.apply(model, plan), plan, 60)
    assert power.tried == 60
    assert power.by_tensors + power.refused == power.tried, power.sentences


def test_values_at_their_thresholds_are_told() -> None:
    model = spiking("cast", batch=1)
    plan = onnxprune.plan(model, channels=0.5)
    calm = onnxprune.verify(model, onnxprune.apply(model, plan), plan)
    # All potentials of the first layer lie at the threshold: its filters are zero, and its bias is the threshold.
    proto = model.to_proto()
    for tensor in proto.graph.initializer:
        if list(tensor.dims) == [8, 1, 3, 3]:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full((8, 1, 3, 3), 1e-12, np.float32), tensor.name))
            bias = next(node.input[2] for node in proto.graph.node if list(node.input)[1:2] == [tensor.name])
    for tensor in proto.graph.initializer:
        if tensor.name == bias:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(8, 0.5, np.float32), bias))
    edge = onnxprune.verify(proto, onnxprune.apply(proto, plan), plan)
    assert edge.passed
    assert edge.decisions == calm.decisions
    assert calm.near == 0
    assert edge.near >= 4 * 16
    assert any("near to their thresholds" in sentence for sentence in edge.sentences)


def test_a_file_whose_thresholds_are_scalars_is_proven_as_it_is() -> None:
    model = spiking(batch=1)
    plan = onnxprune.plan(model, channels=0.5)
    pruned = onnxprune.apply(model, plan)
    assert any(weight.shape == () and weight.dtype.kind == "f" for weight in pruned.weights.values())
    assert onnxprune.prove(model, pruned, plan).passed
