"""The sensitivity scan: what one group does to the outputs, kept on disk, and used by global allocation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.data.samples import Samples, collect
from onnxprune.errors import UsageError
from onnxprune.pruning.sensitivity import GroupSensitivity, Sensitivity, SensitivityCache, scan_sensitivity
from tests.helpers import GraphBuilder, run


def _two_branches() -> onnx.ModelProto:
    """Two hidden widths added up; the second one hardly reaches the output."""
    g = GraphBuilder(17)
    x = g.input("x", ("n", 6))
    strong = g.op("Gemm", g.op("Relu", g.op("Gemm", x, g.weight(6, 8), g.vector(8))), g.weight(8, 4))
    faint = g.constant(0.01 * g.rng.standard_normal((12, 4)), dtype=np.float32)
    weak = g.op("Gemm", g.op("Relu", g.op("Gemm", x, g.weight(6, 12), g.vector(12))), faint)
    g.output(g.op("Add", strong, weak), ["n", 4])
    return g.model()


def _samples(model: onnx.ModelProto) -> Samples:
    x = np.random.default_rng(3).standard_normal((64, 6)).astype(np.float32)
    return collect({"x": x}, onnxprune.load(model))


def test_it_measures_what_a_group_does_to_the_outputs() -> None:
    model = _two_branches()
    samples = _samples(model)
    analysis = onnxprune.analyze(model)
    scan = scan_sensitivity(analysis, samples, criterion="l2", refit=False, fractions=(0.5,))
    damage = {curve.units: curve.damage[0] for curve in scan.groups}
    assert damage[8] > 100 * damage[12]
    # The same by hand: the plan that takes half of the strong group's channels, and the divergence of the outputs.
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Gemm"]
    first = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == weights[0])
    gone = np.argsort(np.linalg.norm(first, axis=0))[:4]
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    for tensor in masked.graph.initializer:
        if tensor.name == weights[1]:
            values = numpy_helper.to_array(tensor).copy()
            values[gone] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    before, after = (run(proto, dict(samples.inputs))[0].astype(np.float64) for proto in (model, masked))
    p, q = (np.exp(y) / np.exp(y).sum(axis=1, keepdims=True) for y in (before, after))
    assert damage[8] == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-4)
    refitted = scan_sensitivity(analysis, samples, criterion="l2", fractions=(0.5,))
    assert {curve.units: curve.damage[0] for curve in refitted.groups}[8] < 0.8 * damage[8]


def test_global_spares_what_the_outputs_depend_on() -> None:
    model = _two_branches()
    analysis = onnxprune.analyze(model)
    scan = scan_sensitivity(analysis, _samples(model), criterion="l2")
    weights = [node.input[1] for node in model.graph.node if node.op_type == "Gemm"]

    def left(sensitivity: Sensitivity | None) -> int:
        plan = onnxprune.plan(analysis, reduce=0.3, allocation="global", sensitivity=sensitivity)
        return 8 - len(plan.removed.get(weights[0], {}).get(1, ()))

    assert left(scan) > left(None)
    other = onnxprune.analyze("models/vgg_dynamo.onnx")
    with pytest.raises(UsageError, match="measured for another model"):
        onnxprune.plan(other, reduce=0.3, allocation="global", sensitivity=scan)


def test_curves_rise_and_go_on_behind_the_last_point() -> None:
    curve = GroupSensitivity(0, 8, ("a",), (0.25, 0.5), (0.2, 0.1)).losses()
    np.testing.assert_allclose(curve[:5], [0, 0.1, 0.2, 0.2, 0.2])
    assert (np.diff(curve[4:]) > 0).all()


def test_scans_are_kept_by_model_samples_and_criterion(tmp_path: Path) -> None:
    proto = _two_branches()
    model, samples = onnxprune.load(proto), _samples(proto)
    scan = scan_sensitivity(onnxprune.analyze(model), samples, criterion="l2", fractions=(0.5,))
    cache = SensitivityCache(tmp_path)
    assert cache.read(model, samples, "l2") is None
    path = cache.write(model, samples, scan)
    assert cache.read(model, samples, "l2") == scan
    assert cache.read(model, samples, "l1") is None
    assert cache.read(model, samples.part(0, 32), "l2") is None
    assert cache.read(onnxprune.load("models/vgg_dynamo.onnx"), samples, "l2") is None
    path.write_text("{")
    with pytest.warns(UserWarning, match="is damaged"):
        assert cache.read(model, samples, "l2") is None
    with pytest.raises(UsageError, match="fractions must ascend"):
        scan_sensitivity(onnxprune.analyze(model), samples, fractions=(0.5, 0.2))
