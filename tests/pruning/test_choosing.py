"""What ``plan`` takes, what it refuses, and the limits that it keeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

import onnxprune

MODELS = Path(__file__).parents[2] / "models"
RESIDUAL = MODELS / "residual_torchscript.onnx"
STEM = "/stem/stem.0/Conv"


def kept(model: Path, plan: onnxprune.Plan, layer: str) -> int:
    """How many output channels a layer has left."""
    analysis = onnxprune.analyze(onnxprune.apply(model, plan))
    return next(report.channels for report in analysis.layers if report.name == layer)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"floor": math.nan}, "floor"),
        ({"floors": {STEM: -1.0}}, "floor"),
        ({"max_flops": math.nan}, "max_flops"),
        ({"include": "nothing"}, "'nothing'"),
    ],
)
def test_values_out_of_range_are_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(onnxprune.UsageError, match=words):
        onnxprune.plan(RESIDUAL, reduce=0.3, **options)


def test_an_input_has_extents() -> None:
    with pytest.raises(onnxprune.ShapeError, match="extent below 1"):
        onnxprune.plan(RESIDUAL, reduce=0.3, input_shapes={"image": (0, 1, 28, 28)})


def test_a_single_name_is_a_name() -> None:
    for option in ("include", "exclude"):
        plans = [onnxprune.plan(RESIDUAL, reduce=0.1, **{option: given}) for given in (STEM, [STEM])]
        assert plans[0] == plans[1]
    assert kept(RESIDUAL, plans[0], STEM) == 16


def test_the_floor_of_a_layer_goes_before_the_common_one() -> None:
    """In both directions. The stem shares its channels with the additions that follow."""
    stream = {STEM: 2, "/stages/stages.*/second/*": 2}
    lower = onnxprune.plan(RESIDUAL, channels=0.8, floor=0.9, floors=stream)
    higher = onnxprune.plan(RESIDUAL, channels=0.8, floor=2, floors={STEM: 0.75})
    assert kept(RESIDUAL, lower, STEM) < 8
    assert kept(RESIDUAL, higher, STEM) == 12


def test_a_plan_tells_how_it_was_made() -> None:
    """All that it takes to make the same plan again."""
    options = {"reduce": 0.3, "floor": 0.2, "floors": {STEM: 0.5}, "round_to": 2, "exclude": ["/head/*"], "seed": 3}
    plan = onnxprune.plan(RESIDUAL, **options)
    assert options.items() <= plan.settings.items()
    assert onnxprune.plan(RESIDUAL, **plan.settings) == plan
