"""The reference models, whole and pruned, as PyTorch modules."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import onnxprune
from onnxprune.torch import to_module, write_back

from .support import assert_same, assert_trainable, feeds, run_module, run_onnx

MODELS = sorted((Path(__file__).parents[2] / "models").glob("*.onnx"))


@pytest.fixture(params=MODELS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def batch_of(model: onnxprune.Model) -> dict[str, tuple[int, ...]]:
    """Two samples, where the file leaves the batch open."""
    shapes = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        shapes[value.name] = tuple(d.dim_value or (2 if i == 0 else 28) for i, d in enumerate(dims))
    return shapes


def test_equals_onnxruntime_and_trains(path: Path) -> None:
    model = onnxprune.load(path)
    module, inputs = to_module(model), feeds(model, batch_of(model))
    assert_same(run_onnx(model, inputs), run_module(module, inputs))
    assert_trainable(module, inputs)


def test_pruned_equals_onnxruntime_and_trains(path: Path) -> None:
    pruned = onnxprune.compress(path, reduce=0.5, mode="flops", seed=0).model
    module, inputs = to_module(pruned), feeds(pruned, batch_of(pruned))
    assert_same(run_onnx(pruned, inputs), run_module(module, inputs))
    assert_trainable(module, inputs)
    assert write_back(to_module(pruned), pruned) is pruned


def test_round_trip_is_identical(path: Path) -> None:
    model = onnxprune.load(path)
    assert write_back(to_module(model), model).to_proto() == model.to_proto()
    normal = onnxprune.normalize(model)
    assert write_back(to_module(model), normal).to_proto() == normal.to_proto()


def test_trained_values_come_back(path: Path) -> None:
    model = onnxprune.load(path)
    module, inputs = to_module(model), feeds(model, batch_of(model))
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    module.train()
    run_module(module, inputs)[0].square().mean().backward()
    optimizer.step()
    module.eval()
    trained = write_back(module, model)
    assert_same(run_onnx(trained, inputs), run_module(module, inputs))
    assert [n.name for n in trained.graph.node] in (
        [n.name for n in model.graph.node],
        [n.name for n in onnxprune.normalize(model).graph.node],
    )
    again = to_module(trained)
    for key, value in module.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(again.state_dict()[key], value, rtol=0, atol=0)
    assert not np.array_equal(run_onnx(trained, inputs)[0], run_onnx(model, inputs)[0])


def test_copies_are_independent(path: Path) -> None:
    module = to_module(path)
    copied = copy.deepcopy(module)
    assert copied.onnx_names == module.onnx_names
    inputs = feeds(path, batch_of(onnxprune.load(path)))
    before = run_module(module, inputs)[0]
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(run_module(module, inputs)[0], before)
    copied.load_state_dict(module.state_dict())
    assert torch.equal(run_module(copied, inputs)[0], before)
