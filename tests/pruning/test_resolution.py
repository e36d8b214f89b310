"""Regions on smaller maps: what is written, the proof of it, and plans that choose it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import NodeProto, helper

import onnxprune
from onnxprune.data.samples import Samples
from onnxprune.errors import BudgetError, PlanError, UsageError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ops.resizing import factor
from onnxprune.ops.substitutes import RESIZED
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.certificate.resized import interpolated, resized_differences
from onnxprune.pruning.certificate.verifying import usual_inputs
from onnxprune.pruning.comparison import compare
from onnxprune.pruning.plan import Plan, Replacement
from onnxprune.pruning.resizing import resized, resolutions
from tests.helpers import GraphBuilder

RESIDUAL, UNET = "models/residual_torchscript.onnx", "models/unet_torchscript.onnx"
SAMPLES = "models/fashion_sample.npz"


def whole(model: Model, side: int) -> Replacement:
    graph = model.derived(Graph)
    return Replacement(graph.inputs[0], graph.outputs[0], RESIZED, (side, side))


def faults(source: Model, result: Model, one: Replacement) -> list[str]:
    found = resized_differences(source, result, one, usual_inputs(onnxprune.analyze(source)))
    return [str(difference) for difference in found if not difference.passed]


def small_network(opset: int = 17, side: int = 12, flat: bool = False) -> Model:
    g = GraphBuilder(opset=opset)
    x = g.op("Relu", g.op("Conv", g.input("x", ("n", 3, side, side)), g.weight(8, 3, 3, 3), pads=[1, 1, 1, 1]))
    y = g.op("Conv", x, g.weight(6, 8, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    y = g.op("Flatten", y if flat else g.op("GlobalAveragePool", y))
    g.output(g.op("MatMul", y, g.weight(6 * (side // 2) ** 2 if flat else 6, 4)))
    return onnxprune.load(g.model())


@pytest.mark.parametrize("path", [RESIDUAL, UNET])
def test_the_original_on_smaller_maps_is_what_is_written(path: str) -> None:
    source = normalize(onnxprune.load(path))
    ways = list(resolutions(source))
    assert [one.kernel for one, _ in ways][:1] == [(24, 24)]
    for one, result in ways:
        assert not faults(source, result, one)
        plan = Plan.from_dict(Plan({}, replaced=(one,)).to_dict())
        assert plan.resized == (one,)
        assert not plan.new_layers
        assert onnxprune.verify(path, onnxprune.apply(path, plan), plan).passed


def test_the_answers_are_those_to_smaller_images() -> None:
    """By another way: the image made smaller outside, for the network with its input declared smaller."""
    source = onnxprune.load(RESIDUAL)
    result = onnxprune.apply(source, Plan({}, replaced=(whole(normalize(source), 24),)))
    images = np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)
    declared = source.to_proto()
    for dim in declared.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 24
    (got,) = ort.InferenceSession(result.to_bytes()).run(None, {"image": images})
    small = interpolated(images, (24, 24))
    (wanted,) = ort.InferenceSession(declared.SerializeToString()).run(None, {"image": small})
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def _other_mode(node: NodeProto) -> None:
    next(a for a in node.attribute if a.name == "mode").CopyFrom(helper.make_attribute("mode", "nearest"))


def _other_centres(node: NodeProto) -> None:
    name = "coordinate_transformation_mode"
    next(a for a in node.attribute if a.name == name).CopyFrom(helper.make_attribute(name, "align_corners"))


@pytest.mark.parametrize("spoil", [_other_mode, _other_centres])
@pytest.mark.parametrize("which", [0, 1])
def test_another_interpolation_is_noticed(spoil: Callable[[NodeProto], None], which: int) -> None:
    source = normalize(onnxprune.load(UNET))
    one = whole(source, 24)
    draft = resized(source, one).edit()
    spoil([node for node in draft.graph.node if node.op_type == "Resize"][[0, -1][which]])
    wrong = draft.finish()
    assert faults(source, wrong, one)
    assert not onnxprune.verify(source, wrong, Plan({}, replaced=(one,))).passed


def test_another_size_weight_or_node_is_noticed() -> None:
    source = normalize(onnxprune.load(RESIDUAL))
    one = whole(source, 24)
    assert faults(source, resized(source, whole(source, 16)), one)
    draft = resized(source, one).edit()
    name = next(name for name in draft.weights if name in source.weights and draft.weights[name].size > 100)
    draft.weights[name] = draft.weights[name].with_array(draft.weights[name].array * 1.01)
    assert any(name in fault for fault in faults(source, draft.finish(), one))
    draft = resized(source, one).edit()
    node = draft.graph.node[-1]
    node.input[0], read = "halved", node.input[0]
    half = draft.add_weight("half", np.float32([0.5])).name
    draft.graph.node.insert(len(draft.graph.node) - 1, helper.make_node("Mul", [read, half], ["halved"]))
    assert any("halved" in fault for fault in faults(source, draft.finish(), one))


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    small = normalize(small_network())
    for model, one, word in (
        (normalize(small_network(flat=True)), None, "such maps|holds the extents"),
        (normalize(small_network(opset=10)), None, "operator set 11"),
        (small, Replacement("x", "x", RESIZED, (8, 8)), "no region"),
        (small, Replacement("x", small.derived(Graph).outputs[0], RESIZED, (8,)), "no map of 1 extents"),
    ):
        with pytest.raises(PlanError, match=word):
            resized(model, one or whole(model, 8))
    g = GraphBuilder()
    x = g.input("x", (1, 3, 8, 8))
    for _ in range(2):
        g.output(g.op("GlobalAveragePool", g.op("Conv", x, g.weight(4, 3, 1, 1))))
    with pytest.raises(PlanError, match="2 outputs"):
        list(resolutions(normalize(onnxprune.load(g.model()))))


def test_borders_are_no_part_of_what_is_made_smaller() -> None:
    g = GraphBuilder()
    x = g.op("Mul", g.input("x", (1, 3, 16, 16)), g.constant(np.float32(0.5)))
    x = g.op("Conv", g.pad(x, [0, 0, 0, 0, 0, 0, 1, 1]), g.weight(8, 3, 3, 3), strides=[2, 2])
    g.output(g.op("GlobalAveragePool", x))
    ways = [one for one, _ in resolutions(normalize(onnxprune.load(g.model())))]
    assert {one.entry for one in ways} == {"x"}
    assert ways[0].kernel == (14, 14)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_every_operator_set_that_has_such_a_resize(opset: int) -> None:
    source = normalize(small_network(opset))
    assert not faults(source, resized(source, whole(source, 8)), whole(source, 8))


def test_a_part_of_a_network_may_be_on_smaller_maps_alone() -> None:
    source = normalize(onnxprune.load(RESIDUAL))
    one = Replacement(
        "/stages/stages.0/Relu_1_output_0", "/stages/stages.1/second/second.0/Conv_output_0", RESIZED, (8, 8)
    )
    result = resized(source, one)
    assert not faults(source, result, one)
    assert sum(node.op_type == "Resize" for node in result.graph.node) == 2


def test_factors_give_every_extent() -> None:
    for was in range(2, 300, 7):
        for now in range(1, was + 40, 5):
            found = np.float32(factor(was, now))
            assert np.floor(np.float32(was) * found) == np.floor(was * float(found)) == now
            assert abs(found - now / was) < 1e-6 * (now / was) + 1e-7


def test_a_plan_takes_resolution_and_channels() -> None:
    made = onnxprune.compress(
        RESIDUAL, reduce=0.4, levers="channels,resolution", calibration=SAMPLES, calibration_samples=64
    )
    assert made.certificate is not None
    assert made.certificate.passed
    assert made.plan.after["flops"] <= 0.6 * made.plan.before["flops"]
    alone = onnxprune.compress(RESIDUAL, reduce=0.25, levers="resolution", calibration=SAMPLES, calibration_samples=64)
    (one,) = alone.plan.replaced
    assert one.kernel == (25, 25)  # between 28 and the multiple of all strides, 24
    assert not alone.plan.removed
    assert one.saved["flops"] > 0
    unseen = onnxprune.compress(RESIDUAL, reduce=0.25, levers="resolution")
    assert unseen.plan.replaced == alone.plan.replaced
    assert unseen.compensation is None
    with pytest.raises(BudgetError, match="resolution alone"):
        onnxprune.compress(RESIDUAL, reduce=0.9, levers="resolution")
    told = compare(alone.analysis, alone.plan)
    assert sum(layer.before.flops for layer in told.layers) == alone.plan.before["flops"]
    assert (
        sum(layer.after.flops for layer in told.layers) == alone.plan.after["flops"] < 0.75 * alone.plan.before["flops"]
    )
    assert "resized 25×25" in str(one)


def test_a_resolution_that_cannot_change_is_told() -> None:
    model = small_network(flat=True)
    samples = Samples({"x": np.random.default_rng(0).standard_normal((32, 3, 12, 12)).astype(np.float32)}, None, 1)
    with pytest.raises(UsageError, match="levers 'resolution'"):
        onnxprune.compress(model, reduce=0.3, levers="resolution", calibration=samples)
    with pytest.raises(UsageError, match="smaller maps save no params"):
        onnxprune.compress(RESIDUAL, mode="params", reduce=0.3, levers="resolution", calibration=SAMPLES)
    with pytest.warns(UserWarning, match="resolution stays as it is"):
        onnxprune.compress(model, reduce=0.3, levers="channels,resolution", calibration=samples)


def test_resized_networks_recover() -> None:
    pytest.importorskip("torch")
    source = onnxprune.load(RESIDUAL)
    plan = Plan({}, replaced=(whole(normalize(source), 24),))
    small = onnxprune.apply(source, plan)
    done = onnxprune.recover(small, source, SAMPLES, plan=plan, steps=30)
    assert done.states[done.kept].damage < done.states[0].damage
    ort.InferenceSession(done.model.to_bytes())


def test_an_allocation_may_be_measured() -> None:
    model = small_network()
    images = np.random.default_rng(0).standard_normal((180, 3, 12, 12)).astype(np.float32)
    how: dict[str, Any] = {"reduce": 0.5, "calibration": Samples({"x": images}, None, 20), "certify": False}
    made = onnxprune.compress(model, allocation="measured", round_to=1, **how)
    name = made.plan.settings["allocation"]
    assert name in ("global", "uniform")
    # Tried with 128 of the samples, planned with all of them.
    assert made.plan.removed == onnxprune.compress(model, allocation=name, round_to=1, **how).plan.removed
    with pytest.raises(UsageError, match="allocation 'measured'"):
        onnxprune.compress(RESIDUAL, allocation="measured", reduce=0.5)
    with pytest.raises(UsageError, match="tried out"):
        onnxprune.plan(RESIDUAL, allocation="measured", reduce=0.5)


def test_a_map_that_follows_the_input_is_refused() -> None:
    g = GraphBuilder()
    g.output(g.op("Conv", g.input("x", (1, 3, "h", "w")), g.weight(4, 3, 3, 3), pads=[1] * 4))
    with pytest.raises(PlanError, match="make_dynamic_shape_fixed"):
        list(resolutions(normalize(onnxprune.load(g.model()))))
