"""The reference models, pruned in every mode: certified by the library, and checked without its help."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from tests.zoo.independent import Arrays, difference, masked, noise, run, telling, weights_that_differ

FOLDER = Path(__file__).parents[2] / "models"
FILES = sorted(FOLDER.glob("*.onnx"))
TOLERANCE = 1e-4

every_model = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.mark.parametrize("mode", ["pa", "fa", "ma"])
@every_model
def test_pruned_models_equal_their_masked_originals(path: Path, mode: str, tmp_path: Path) -> None:
    model = onnxprune.load(path)
    analysis = onnxprune.analyze(model)
    for level in (0.3, 0.5, 0.7):
        plan = onnxprune.plan(analysis, mode=mode, reduce=level)
        pruned = onnxprune.apply(model, plan)
        certificate = onnxprune.verify(model, pruned, plan)
        assert certificate.passed
        assert not certificate.approximate
        assert certificate.max_relative <= TOLERANCE
        written = tmp_path / f"{level}.onnx"
        pruned.save(written)
        _check_without_the_library(analysis.model.to_proto(), plan, onnx.load(written), analysis.shapes.binding)


@every_model
def test_the_certificate_sees_a_wrong_channel(path: Path) -> None:
    """Other channels of the same number make a valid model, which is another one."""
    model = onnxprune.load(path)
    plan = onnxprune.plan(model, channels=0.5)
    others = onnxprune.plan(model, channels=0.5, criterion="random", seed=1)
    assert plan.after == others.after
    assert not onnxprune.verify(model, onnxprune.apply(model, others), plan).passed


@every_model
def test_the_certificate_sees_a_changed_weight(path: Path) -> None:
    model = onnxprune.load(path)
    plan = onnxprune.plan(model, channels=0.5)
    proto = onnxprune.apply(model, plan).to_proto()
    weight = max((w for w in proto.graph.initializer if w.data_type == onnx.TensorProto.FLOAT), key=_size)
    values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    assert not onnxprune.verify(model, proto, plan).passed


def _size(weight: onnx.TensorProto) -> int:
    return int(np.prod(weight.dims))


def _check_without_the_library(
    normal: onnx.ModelProto, plan: onnxprune.Plan, pruned: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    onnx.checker.check_model(pruned, full_check=True)
    assert weights_that_differ(normal, plan.removed, pruned) == []
    feeds, names = noise(normal, shapes), telling(normal)
    wanted: Arrays = run(masked(normal, plan.removed), feeds, names)
    assert difference(wanted, run(pruned, feeds, names)) <= TOLERANCE
