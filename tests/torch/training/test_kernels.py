"""Faster kernels change no result, and leave no trace in the module."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, fx, nn

from onnxprune.torch.training.kernels import channels_last, quicken


def _network() -> fx.GraphModule:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 1),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 12, 1, groups=2),
        nn.Conv2d(12, 6, 1, stride=2),
        nn.Conv2d(6, 6, 1, padding=1),
        nn.Conv2d(6, 10, 1, bias=False),
        nn.BatchNorm2d(10),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(10, 4),
    )
    module = fx.symbolic_trace(layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert isinstance(module, fx.GraphModule)
    return module.train()


def _images() -> Tensor:
    return channels_last(torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(1)))


def _gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    module.zero_grad()
    result: Tensor = module(x)
    result.square().sum().backward()  # type: ignore[no-untyped-call]
    return [result.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


def test_results_and_gradients_are_the_same() -> None:
    module, x = _network(), _images()
    plain = copy.deepcopy(module)
    quicken(module)
    assert [type(part).__name__ for part in module.modules() if isinstance(part, nn.Conv2d)] == [
        "Conv2d", "_Pointwise", "Conv2d", "Conv2d", "Conv2d", "_Pointwise",
    ]  # fmt: skip
    for got, wanted in zip(_gradients(module, x), _gradients(plain, x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    # Other layouts, and samples without a batch, go the usual way.
    torch.testing.assert_close(module(x.contiguous()), plain(x.contiguous()))
    points = [n for n, part in module.named_modules() if type(part).__name__ == "_Pointwise"]
    one = torch.randn(8, 4, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(module.get_submodule(points[0])(one), plain.get_submodule(points[0])(one))


@pytest.mark.parametrize("is_quick", [False, True])
def test_the_gradient_behind_a_pool_lies_channels_last(is_quick: bool) -> None:
    module = _network()
    if is_quick:
        quicken(module)
    last = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)][-1]
    seen: list[bool] = []

    def watch(part: nn.Module, inputs: object, result: Tensor) -> None:
        result.register_hook(lambda g: seen.append(g.is_contiguous(memory_format=torch.channels_last)))

    last.register_forward_hook(watch)
    module(_images()).square().sum().backward()
    assert seen == [is_quick]


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_undone_leaves_nothing(autocast: torch.dtype | None) -> None:
    module = fx.symbolic_trace(nn.Sequential(_network(), nn.Sequential()))
    module.add_module("strided", nn.Conv2d(4, 4, 3, stride=2, groups=4))
    before = [(name, type(part), len(part._forward_hooks)) for name, part in module.named_modules()]
    undo = quicken(module, autocast)
    assert [(name, type(part), len(part._forward_hooks)) for name, part in module.named_modules()] != before
    undo()
    assert [(name, type(part), len(part._forward_hooks)) for name, part in module.named_modules()] == before
