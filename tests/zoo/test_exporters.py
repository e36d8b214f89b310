"""The same networks in every form that exporters and runtimes give them: opsets, options, optimisers."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest

import onnxprune

from .independent import weights_that_differ
from .subjects import Subject, exported

pytestmark = [pytest.mark.zoo, pytest.mark.slow]

NETWORKS = ("mobilenet_v3_small", "shufflenet_v2_x1_0", "googlenet", "densenet121", "regnet_y_400mf")
TORCHSCRIPT_OPSETS = (9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
DYNAMO_OPSETS = (18, 19, 20, 21, 22, 23)
LEFT = 0.35
"""The share of multiply-accumulates that channels=0.5 leaves at most, whatever the form."""


def check(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Half of all channels go, the certificate holds, weights are the original ones less what is removed."""
    source = onnxprune.load(model)
    analysis = onnxprune.analyze(source, shapes)
    plan = onnxprune.plan(analysis, channels=0.5)
    pruned = onnxprune.apply(source, plan)
    certificate = onnxprune.verify(source, pruned, plan, input_shapes=shapes)
    assert certificate.passed
    assert not certificate.approximate
    assert weights_that_differ(analysis.model.to_proto(), plan.removed, pruned.to_proto()) == []
    assert plan.after["flops"] <= LEFT * plan.before["flops"]


def check_subject(subject: Subject) -> None:
    """`check` for a network of the zoo."""
    try:
        model = subject.load()
    except Exception as error:  # an exporter that does not know the opset or one of the operators
        if type(error).__module__.startswith("torch"):
            pytest.skip(f"PyTorch cannot export it: {type(error).__name__}")
        raise
    check(model, subject.shapes())


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("opset", TORCHSCRIPT_OPSETS)
@pytest.mark.parametrize("network", NETWORKS)
def test_torchscript_exports_of_every_opset(network: str, opset: int, dynamic: bool) -> None:
    check_subject(exported(network, "torchscript", dynamic=dynamic, opset=opset))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("opset", DYNAMO_OPSETS)
@pytest.mark.parametrize("network", NETWORKS)
def test_dynamo_exports_of_every_opset(network: str, opset: int, dynamic: bool) -> None:
    check_subject(exported(network, "dynamo", dynamic=dynamic, opset=opset))


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
@pytest.mark.parametrize("network", NETWORKS)
def test_models_that_onnxruntime_optimised(network: str, level: str, tmp_path: Path) -> None:
    subject = exported(network, "torchscript")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(subject.load().SerializeToString(), options, providers=["CPUExecutionProvider"])
    check(onnx.load(tmp_path / "optimised.onnx"), subject.shapes())
