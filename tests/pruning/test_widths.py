"""The grid of widths: which counts are kept by default, and what the budgets have to say to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.analysis.atoms import Group
from onnxprune.pruning import widths
from onnxprune.pruning.widths import ANY, BLOCKS, Grid, block, finer, grids
from tests.latency.networks import chain

MODELS = Path(__file__).parents[2] / "models"


def _group(units: int, *positions: int) -> Group:
    """So many units, each of which takes so many positions of a class of its own."""
    atoms = np.arange(units)
    return Group(
        index=0,
        atoms=atoms,
        cells=np.zeros(units, dtype=np.int64),
        take=np.array([1]),
        classes=np.arange(len(positions)),
        multiplicity=np.array(positions),
        approximate=None,
    )


@pytest.mark.parametrize(
    ("grid", "group", "kept"),
    [
        (Grid(16, 8), _group(96, 1), [96, 80, 64, 48, 32, 16]),
        (Grid(16, 8), _group(70, 1), [70, 64, 48, 32, 16]),
        (Grid(16, 8), _group(24, 1), [24, 16, 8]),
        (Grid(16, 16), _group(24, 1), [24, 16]),
        (Grid(16, 16), _group(12, 1), [12]),
        # Four positions to a unit, as in a grouped convolution: four units are a block. A map flattened takes any.
        (Grid(16, 16), _group(16, 4), [16, 12, 8, 4]),
        (Grid(16, 16), _group(16, 32), list(range(16, 0, -1))),
        (Grid(16, 16), _group(64, 1, 49), [64, 48, 32, 16]),
        (Grid(12, 12), _group(24, 8), list(range(24, 0, -3))),
        (ANY, _group(3, 1), [3, 2, 1]),
    ],
)
def test_what_a_grid_keeps(grid: Grid, group: Group, kept: list[int]) -> None:
    assert (group.units - grid.levels(group, 1)).tolist() == kept


def test_no_less_than_the_floor_is_kept() -> None:
    assert (64 - Grid(16, 16).levels(_group(64, 1), 20)).tolist() == [64, 48, 32]
    assert (64 - Grid(16, 16).levels(_group(64, 1), 0)).tolist() == [64, 48, 32, 16, 0]


def test_finer_grids_come_after_coarser_ones() -> None:
    assert grids(12) == (Grid(12, 12),)
    assert grids("auto:16") == (
        *(Grid(16, 16), Grid(16, 8), Grid(16, 4)),
        *(Grid(8, 8), Grid(4, 4), ANY),
    )
    assert [grid.multiple for grid in finer(Grid(12, 12))] == [6, 4, 3, 2, 1]


@pytest.mark.parametrize(
    ("extensions", "machine", "channels"),
    [
        ({"baseline": ["SSE"], "found": ["AVX2"]}, "x86_64", 8),
        ({"baseline": ["SSE"], "found": ["AVX2", "AVX512F", "AVX512CD"]}, "x86_64", 16),
        ({"baseline": ["X86_V2"], "found": ["X86_V3", "X86_V4"]}, "AMD64", 16),
        ({"baseline": ["NEON"], "found": []}, "aarch64", 16),
        ({}, "riscv64", 8),
    ],
)
def test_the_block_follows_from_the_processor(
    monkeypatch: pytest.MonkeyPatch, extensions: dict[str, list[str]], machine: str, channels: int
) -> None:
    block.cache_clear()
    monkeypatch.setattr(np, "show_config", lambda mode: {"SIMD Extensions": extensions})
    monkeypatch.setattr(widths.platform, "machine", lambda: machine)
    assert block() == channels
    assert block("CUDAExecutionProvider") == BLOCKS["CUDAExecutionProvider"] == 8
    assert block("SomeExecutionProvider") == BLOCKS["CPUExecutionProvider"] == 8
    block.cache_clear()


def _left(plan: onnxprune.Plan, model: Any) -> list[int]:
    pruned = onnxprune.apply(model, plan)
    return [weight.shape[0] for weight in pruned.weights.values() if len(weight.shape) == 4]


@pytest.mark.parametrize("allocation", ["complexity", "complexity-mean", "uniform", "global"])
def test_by_default_whole_blocks_go(allocation: str) -> None:
    model = chain(96, 128, 64, 128, 96, 5)
    plan = onnxprune.plan(model, reduce=0.5, allocation=allocation, round_to="auto:16")
    assert plan.settings["round_to"] == "auto:16"
    off = [count for count in _left(plan, model)[:-1] if count % 16]
    # What whole blocks take too much, a group or two get back; never so that the blocked layout is lost.
    assert len(off) <= 2
    assert not [count for count in off if count % 4]
    assert 0.48 <= plan.after["flops"] / plan.before["flops"] <= 0.5


def test_draws_are_as_fine_on_the_grid() -> None:
    # Draws of whole blocks would leave a group, by chance, up to 80 channels more or less than is expected.
    model = chain(24, 256, 24, 128, 48, 192, 5)
    expected = np.array(
        _left(onnxprune.plan(model, reduce=0.5, allocation="complexity-mean", round_to="auto:16"), model)
    )
    for seed in range(8):
        plan = onnxprune.plan(model, reduce=0.5, allocation="complexity", seed=seed, round_to="auto:16")
        assert np.abs(np.array(_left(plan, model)) - expected).max() <= 40


def test_the_default_is_what_the_processor_likes_and_the_same_anywhere_once_it_is_said() -> None:
    model = chain(96, 128, 64, 5)
    plan = onnxprune.plan(model, reduce=0.4)
    assert plan.settings["round_to"] == f"auto:{block()}"
    assert onnxprune.plan(model, **plan.settings) == plan
    assert plan != onnxprune.plan(model, reduce=0.4, round_to=1)


@pytest.mark.parametrize("reduce", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_narrow_networks_meet_the_budget_nearly(path: Path, reduce: float) -> None:
    plan = onnxprune.plan(path, reduce=reduce, round_to="auto:16")
    assert 0 <= 1 - reduce - plan.after["flops"] / plan.before["flops"] <= 0.03


def test_a_share_of_channels_is_taken_as_it_is_said() -> None:
    model = chain(24, 40, 5)
    plan = onnxprune.plan(model, channels=0.5)
    assert _left(plan, model)[:2] == [12, 20]
    assert plan.settings["round_to"] == 1


def test_a_budget_that_a_multiple_cannot_meet_names_one_that_can() -> None:
    model = chain(16, 24, 5)
    with pytest.raises(onnxprune.BudgetError, match=r"at multiples of 16; round_to=8 reaches it"):
        onnxprune.plan(model, reduce=0.7, round_to=16, floor=1)
    onnxprune.plan(model, reduce=0.7, round_to=8, floor=1)
    onnxprune.plan(model, reduce=0.7, floor=1)


@pytest.mark.parametrize("text", ["", "auto:", "auto:0", "auto:x", "16", "auto:1.5", "some"])
def test_what_is_no_rounding(text: str) -> None:
    with pytest.raises(onnxprune.UsageError, match="round_to must be a whole number, 'auto', 'auto:N' or 'measured'"):
        onnxprune.plan(chain(16, 5), reduce=0.5, round_to=text)
