"""Learning in 16 bits is a matter of the steps alone: what is measured and written is computed in floats."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from onnxprune.torch.training import precision
from onnxprune.torch.training.precision import learning_precision, leave_strided


def test_grouped_convolutions_with_strides_stay_in_floats() -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, stride=2, groups=8), nn.Conv2d(8, 4, 1))
    x = torch.randn(2, 8, 9, 9, generator=torch.Generator().manual_seed(0))
    before = module(x)
    leave_strided(module)
    twin = copy.deepcopy(module)
    twin[1].weight.data.zero_()
    assert torch.equal(module(x), before)  # a copy has its own weights
    with torch.autocast("cpu", torch.bfloat16):
        found = [module[0](x), module[:2](x), module(x)]
    assert [one.dtype for one in found] == [torch.bfloat16, torch.float32, torch.bfloat16]
    assert module.state_dict().keys() == twin.state_dict().keys()


def test_only_processors_with_tiles_learn_in_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    for there in (True, False):
        monkeypatch.setattr(precision, "multiplies_tiles", lambda there=there: there)
        with learning_precision():
            assert torch.is_autocast_enabled("cpu") == there
    monkeypatch.undo()
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert not precision.multiplies_tiles()
