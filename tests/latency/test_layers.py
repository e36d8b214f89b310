"""Layers by themselves: what they depend on, and that they run at any width."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto

import onnxprune
from onnxprune.ir.tracing import NodeTime
from onnxprune.latency.grid import knots, points, typical
from onnxprune.latency.layer_models import Point, batches, side_by_side, times_of_points
from onnxprune.latency.layers import LayerCase, layer_cases
from tests.cli.support import MODELS
from tests.latency.networks import chain, depthwise


def cases(model: ModelProto) -> list[LayerCase]:
    return [case for case in layer_cases(onnxprune.analyze(model)) if case is not None]


def test_roles_are_what_may_shrink() -> None:
    assert [case.full for case in cases(chain(8, 12, 5))] == [(8,), (8, 12), (12,)]
    assert [case.full for case in cases(depthwise(16))] == [(16,), (16,), (16,)]


def test_layers_that_take_equal_times_share_a_signature() -> None:
    _, first, second, third = cases(chain(8, 8, 8, 8, 5))[:4]
    assert first.kind == second.kind == third.kind
    wide = cases(chain(8, 12, 5))[1]
    assert wide.key == first.key, "widths are not in the signature"
    assert wide.kind != first.kind
    assert cases(chain(8, 8, 5, size=10))[1].key != first.key, "sizes of feature maps are"
    assert cases(depthwise(8))[1].key == cases(depthwise(16))[1].key != first.key


@pytest.mark.parametrize(
    ("model", "widths"),
    [
        (chain(8, 12, 5), [(3,), (5, 7), (1,)]),
        (depthwise(16), [(6,), (7,), (9,)]),
    ],
)
def test_layers_run_side_by_side_at_any_width(model: ModelProto, widths: list[tuple[int, ...]]) -> None:
    found = [Point(case, w) for case, w in zip(cases(model), widths, strict=True)]
    proto, inputs = side_by_side(found)
    onnx.checker.check_model(proto, full_check=True)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    layers = [node for node in proto.graph.node if node.op_type == "Conv"]
    if len(widths[1]) == 2:
        assert [shapes[node.input[1]][:2] for node in layers] == [(3, 3), (7, 5), (5, 1)]
    else:
        assert [shapes[node.input[1]][:2] for node in layers] == [(6, 3), (7, 1), (5, 9)]
        assert [a.i for a in layers[1].attribute if a.name == "group"] == [7]
    results = ort.InferenceSession(proto.SerializeToString()).run(None, inputs)
    assert len(results) == 3
    assert all(np.isfinite(result) for result in results)


@pytest.mark.parametrize("name", ["dense_dynamo", "unet_torchscript", "depthwise_keras_tensorflow", "vgg_keras_torch"])
def test_layers_of_real_models_run_at_half_their_width(name: str) -> None:
    analysis = onnxprune.analyze(MODELS / f"{name}.onnx")
    found = [case for case in layer_cases(analysis) if case is not None]
    assert len(found) >= 0.8 * len(analysis.costs.layers)
    half = [Point(case, tuple(-(-width // 2) for width in case.measured_full)) for case in found]
    proto, inputs = side_by_side(half)
    assert len(proto.graph.output) == len(found)
    ort.InferenceSession(proto.SerializeToString()).run(None, inputs)


def test_times_find_their_layers_without_what_surrounds_them() -> None:
    nodes = [
        NodeTime("ReorderInput_token_3<case 1>", "ReorderInput", 8.0),
        NodeTime("<case 1>y_nchwc", "Conv", 2.0),
        NodeTime("<case 1>y_more", "Add", 0.5),
        NodeTime("<case 11>y", "Conv", 3.0),
        NodeTime("maximum 1", "ReduceMax", 9.0),
    ]
    found = times_of_points(nodes, 12)
    assert (found[1], found[11]) == (2.5, 3.0)
    assert found[:1] + found[2:11] == [None] * 10


def test_batches_stay_small() -> None:
    point = Point(cases(chain(8, 12, 5))[1], (8, 12))
    size = point.nbytes
    assert size == 4 * (8 * 81 + 12 * 8 * 9)
    assert [len(batch) for batch in batches([point] * 5, most_bytes=2 * size)] == [2, 2, 1]
    assert [len(batch) for batch in batches([point] * 2, most_bytes=1)] == [1, 1]


def test_widths_are_no_rounder_than_what_is_promised() -> None:
    assert typical(50, 100, 4) == 52
    assert typical(50, 100, 1) in (49, 51)
    assert typical(30, 16, 16) == 16, "there is no narrower one"
    assert knots(64, 16) == (16, 64)
    for full in (1, 2, 7, 24, 100, 512):
        for multiple in (1, 2, 8, 16):
            found = knots(full, multiple)
            assert found[-1] == full
            assert list(found) == sorted(set(found))
            assert all(width % multiple == 0 and width % (2 * multiple) != 0 for width in found[:-1])
    assert points(((1, 2), (3, 4))) == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert points(()) == [()]
