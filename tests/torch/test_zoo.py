"""Published models as trainable modules."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from onnx import ModelProto

import onnxprune
from onnxprune.errors import ConversionError
from onnxprune.ir.model import Model
from onnxprune.torch import to_module, write_back
from tests.zoo.sources import UnavailableError
from tests.zoo.subjects import ALL, Subject

from .support import assert_same, assert_trainable, feeds, run_module, run_onnx

pytestmark = pytest.mark.zoo

QUICK = ("light_squeezenet", "rapidocr_cls", "mtcnn_rnet", "mtcnn_onet", "shufflenet_v2_x1_0_dynamo")


def load(subject: Subject) -> onnxprune.Model:
    try:
        return onnxprune.load(subject.load())
    except UnavailableError as error:
        pytest.skip(str(error))


def subjects(names: tuple[str, ...]) -> list[Subject]:
    return [subject for subject in ALL if subject.name in names]


def check(subject: Subject) -> None:
    model = load(subject)
    shapes = subject.shapes()
    pruned = onnxprune.compress(model, input_shapes=shapes, certify=False, mode="flops", reduce=0.4).model
    for each in (model, pruned):
        module, inputs = to_module(each), feeds(each, shapes)
        assert_same(run_onnx(each, inputs), run_module(module, inputs))
        assert write_back(module, each) is each
        assert_trainable(module, inputs)


@pytest.mark.parametrize("subject", subjects(QUICK), ids=lambda subject: subject.name)
def test_equals_onnxruntime_and_trains(subject: Subject) -> None:
    check(subject)


@pytest.mark.slow
@pytest.mark.parametrize("subject", [s for s in ALL if s.name not in QUICK], ids=lambda subject: subject.name)
def test_all_equal_onnxruntime_and_train(subject: Subject) -> None:
    check(subject)


@pytest.mark.parametrize("name", ["rapidocr_cls", "mtcnn_rnet"])
def test_pruned_file_learns_and_is_written_back(name: str) -> None:
    """A file that Paddle made, and one that Keras made: a few steps make the loss smaller, in onnxruntime too."""
    (subject,) = subjects((name,))
    shapes = subject.shapes()
    pruned = onnxprune.compress(load(subject), input_shapes=shapes, mode="params", reduce=0.3).model
    module, inputs = to_module(pruned).train(), feeds(pruned, shapes)
    before = write_back(module, pruned)
    assert before is pruned
    target = [torch.zeros_like(y) for y in run_module(module, inputs)]
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-4)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        parts = [(y - t).square().mean() for y, t in zip(run_module(module, inputs), target, strict=True)]
        loss = torch.stack(parts).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    trained = write_back(module, pruned)
    assert _without_history(trained) == _without_history(pruned)
    module.eval()
    assert_same(run_onnx(trained, inputs), run_module(module, inputs))


def test_everything_that_cannot_be_converted_is_named() -> None:
    (subject,) = subjects(("rapidocr_cls",))
    registry = onnxprune.torch.Converters([])
    with pytest.raises(ConversionError, match=r"no converter for .*Conv \(opset \d+\) at \d+ nodes"):
        to_module(load(subject), registry=registry)


def _without_history(model: Model) -> ModelProto:
    """The skeleton without what the file tells of itself."""
    skeleton = model.edit().skeleton
    del skeleton.metadata_props[:]
    return skeleton
