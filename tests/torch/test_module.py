"""The module as users of PyTorch treat it, and what ``write_back`` makes of it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

import onnxprune
from onnxprune.errors import ConversionError, RegistryError
from onnxprune.ir.graph import Node
from onnxprune.passes.fold_batchnorm import FoldBatchnorm
from onnxprune.passes.reinitialize import Reinitialize
from onnxprune.passes.restore_batchnorm import RestoreBatchnorm
from onnxprune.torch import Builder, Converter, default_registry, to_module, write_back
from tests.helpers import GraphBuilder

from .support import assert_same, assert_trainable, feeds, run_module, run_onnx

MODELS = Path(__file__).parents[2] / "models"
RESIDUAL = MODELS / "residual_torchscript.onnx"
DEPTHWISE = MODELS / "depthwise_torchscript.onnx"


def image(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def test_real_modules_under_the_names_of_the_file() -> None:
    model = onnxprune.normalize(DEPTHWISE)
    module = to_module(model)
    kinds = {type(part) for part in module.modules()}
    assert {nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU, nn.Hardswish, nn.Hardsigmoid} <= kinds
    state = module.state_dict()
    for name, held in module.onnx_names.items():
        (values,) = (state[key].numpy() for key in held.keys)
        np.testing.assert_array_equal(held.layout.to_onnx([values]), model.weights[name].array)
    floats = {name for name, weight in model.weights.items() if weight.dtype.kind == "f" and weight.shape}
    assert floats == set(module.onnx_names)
    dotted = [name for name in module.onnx_names if name.endswith((".weight", ".bias", ".running_mean"))]
    assert dotted
    assert all(module.onnx_names[name].keys == (name,) for name in dotted)


def test_compiles_with_symbolic_sizes() -> None:
    module = to_module(MODELS / "vgg_keras_tensorflow.onnx")
    shape = [2, 28, 28, 1]
    compiled = torch.compile(module, backend="eager", fullgraph=True, dynamic=True)
    for batch in (2, 5):
        x = torch.randn(batch, *shape[1:])
        torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.parametrize("name", ["depthwise_torchscript", "residual_dynamo", "unet_torchscript"])
def test_trains_in_mixed_precision(name: str) -> None:
    module = to_module(MODELS / f"{name}.onnx").train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module(image()).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.parameters())
    assert all(p.dtype == torch.float32 for p in module.parameters())


def test_train_and_eval_differ_for_batch_statistics() -> None:
    module, x = to_module(DEPTHWISE), image(4)
    assert not module.training
    before = module(x)
    module.train()(x)
    assert not torch.equal(module.eval()(x), before)
    trained = write_back(module, DEPTHWISE)
    assert_same(run_onnx(trained, {trained.graph.input[0].name: x.numpy()}), [module(x)])


def test_only_values_differ() -> None:
    model = onnxprune.normalize(RESIDUAL)
    module = to_module(model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1e-3)
    trained = write_back(module, model)
    assert trained.skeleton == model.skeleton
    assert list(trained.weights) == list(model.weights)
    assert trained.path == model.path


def test_half_precision_copy_comes_back_in_the_type_of_the_file() -> None:
    module = to_module(RESIDUAL).to(torch.bfloat16)
    trained = write_back(module, RESIDUAL)
    assert {str(weight.dtype) for weight in trained.weights.values()} <= {"float32", "int64"}


def test_wrapped_modules_are_looked_into() -> None:
    module = torch.compile(nn.DataParallel(to_module(RESIDUAL)), backend="eager")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    trained = write_back(module, RESIDUAL)
    assert not any(weight.array.any() for weight in trained.weights.values() if weight.dtype.kind == "f")


def test_errors_of_write_back() -> None:
    with pytest.raises(ConversionError, match="pass what to_module returned"):
        write_back(nn.Linear(2, 2), RESIDUAL)
    with pytest.raises(ConversionError, match="the model that the module was made of"):
        write_back(to_module(RESIDUAL), MODELS / "vgg_torchscript.onnx")


def test_weights_that_the_given_file_shares() -> None:
    g = GraphBuilder(17)
    x = g.input("x", (2, 4))
    bias = g.vector(4)
    h = g.op("Gemm", x, g.weight(4, 4), bias)
    g.output(g.op("Gemm", h, g.weight(4, 4), bias))
    model = onnxprune.load(g.model())
    module, inputs = to_module(model), feeds(model)
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.add_(number)
    assert_same(run_onnx(write_back(module, model), inputs), run_module(module, inputs))


@pytest.mark.parametrize("calibrated", [True, False])
def test_restored_batchnorm_trains_and_folds_again(calibrated: bool) -> None:
    model = onnxprune.normalize(MODELS / "residual_dynamo.onnx")
    inputs = feeds(model, {model.graph.input[0].name: (8, 1, 28, 28)})
    restored = RestoreBatchnorm(inputs if calibrated else None)(model).model
    if not calibrated:
        restored = Reinitialize(seed=1)(restored).model
    module = to_module(restored)
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    if calibrated:
        assert_same(run_onnx(model, inputs), run_module(module, inputs))
    assert_trainable(module, inputs)
    trained = write_back(module, restored)
    folded = FoldBatchnorm()(trained).model
    assert_same(run_onnx(folded, inputs), run_module(module, inputs))
    assert len(folded.graph.node) == len(model.graph.node)


def test_layers_of_the_same_name_do_not_collide() -> None:
    g = GraphBuilder(17)
    x = g.input("forward", (2, 4))
    for name, shape in (("a", (4, 4)), ("a.b", (4,)), ("training", (4,)), ("a..b", (4,)), ("x y:0/z", (4,))):
        g.initializers.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    h = g.op("MatMul", x, "a")
    for name in ("a.b", "training", "a..b", "x y:0/z"):
        h = g.op("Add", h, name)
    g.output(h)
    model = g.model()
    module, inputs = to_module(model), feeds(model)
    assert_same(run_onnx(model, inputs), run_module(module, inputs))
    assert set(module.onnx_names) == {"a", "a.b", "training", "a..b", "x y:0/z"}
    module.load_state_dict(copy.deepcopy(module).state_dict())


def test_registry_can_be_extended() -> None:
    g = GraphBuilder(17, domains={"my": 1})
    g.output(g.op("Twice", g.input("x", (3,)), domain="my"), (3,))
    model = g.model()

    def twice(node: Node, build: Builder) -> torch.fx.Node:
        return build.call(torch.add, build.tensor(node, 0), build.tensor(node, 0))

    converter = Converter("Twice", twice, domain="my")
    registry = default_registry().extended(converter)
    module = to_module(model, registry=registry)
    torch.testing.assert_close(module(torch.ones(3)), torch.full((3,), 2.0))
    with pytest.raises(RegistryError, match=r"my\.Twice is registered twice"):
        registry.extended(converter)
