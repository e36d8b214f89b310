"""Other views of pictures: what they are, and that a fit which has seen one view has seen the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.data import read_data
from onnxprune.data.augmenting import Views, augmented, parse_augmentations
from onnxprune.data.samples import Samples, collect, collect_both
from onnxprune.data.spec import parse_spec
from onnxprune.errors import DataError, UsageError
from onnxprune.passes.normalize import normalize
from onnxprune.pruning.compensation.few_rows import fit_rows

MODELS = Path(__file__).parents[2] / "models"


def test_augmentations_are_other_views_of_the_same_pictures() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((64, 3, 32, 32), dtype=np.float32)
    flipped = augmented(x, {"flip"}, rng)
    same = [np.allclose(a, b, atol=1e-5) for a, b in zip(flipped, x, strict=True)]
    mirrored = [np.allclose(a, b[:, :, ::-1], atol=1e-5) for a, b in zip(flipped, x, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True))
    assert 16 < sum(same) < 48
    # A crop of a ramp is a ramp of less, and within the same values.
    ramp = np.broadcast_to(np.linspace(0, 1, 32, dtype=np.float32), (64, 3, 32, 32))
    cropped = augmented(ramp, {"crop"}, rng)
    steps = np.diff(cropped[:, 0, 0, 2:-2])
    assert steps.min() > -1e-5
    assert steps.max() < 1.1 / 31
    assert cropped.max() <= 1 + 1e-5
    mixed = augmented(x, {"mix"}, rng)
    assert 0 < sum(not np.array_equal(a, b) for a, b in zip(mixed, x, strict=True)) < 40
    assert mixed.dtype == np.float32
    assert augmented(np.moveaxis(x, 1, 3), {"crop", "flip", "mix"}, rng).shape == (64, 32, 32, 3)
    rows = rng.random((8, 5), dtype=np.float32)
    assert augmented(rows, {"crop", "mix"}, rng) is rows
    assert parse_augmentations("crop, flip") == {"crop", "flip"}
    assert parse_augmentations("none") == frozenset()


def test_a_spec_says_how_often_calibration_sees_each_picture() -> None:
    assert parse_spec("x?augment=crop,flip").views == Views(frozenset(("crop", "flip")), 4)
    assert parse_spec("x?augment=flip&views=2").views.count == 2
    assert parse_spec("x").views == Views()
    for wrong, message in (("x?views=3", "augment=crop"), ("x?augment=blur", "'blur' is not known")):
        with pytest.raises(DataError, match=message):
            parse_spec(wrong)
    model = normalize(onnxprune.load(MODELS / "residual_torchscript.onnx"))
    data = read_data(f"{MODELS / 'fashion_sample.npz'}?augment=flip&views=3&limit=20", model)
    plain = collect(data, model, 10)
    seen = plain.viewed()
    (name,) = plain.inputs
    assert (len(plain), len(seen), seen.seen, seen.step) == (10, 30, 3, 18)
    # Each picture comes as it is first, its other views follow, and no view is seen again.
    assert np.array_equal(seen.inputs[name][::3], plain.inputs[name])
    sums = [view.sum() for view in seen.inputs[name]]
    assert np.allclose(sums[0::3], sums[1::3], rtol=1e-4)
    assert seen.viewed() is seen
    fit, others, same = collect_both(data, model, 8)
    assert (len(fit.viewed()), len(others.viewed()), same) == (24, 12, False)


def test_what_a_fit_did_not_see_has_no_view_that_it_saw() -> None:
    """With the views of a picture in different parts, a fit to nothing but noise would seem right."""
    rng = np.random.default_rng(0)
    x = np.repeat(rng.standard_normal((1, 12, 40)).astype(np.float32), 4, axis=1)
    y = np.repeat(rng.standard_normal((1, 12, 3)), 4, axis=1)
    picture = np.arange(48) // 4
    apart = fit_rows(x.copy(), y.copy(), picture, (1e-3, 1e3), intercept=True)
    mingled = fit_rows(x.copy(), y.copy(), np.arange(48), (1e-3, 1e3), intercept=True)
    assert mingled.unseen < 0.1 * apart.unseen


def test_views_are_for_pictures() -> None:
    rows = Samples({"x": np.zeros((4, 3), np.float32)}, None, 2, views=Views(frozenset({"flip"}), 2))
    with pytest.raises(DataError, match="augment is for images"):
        rows.viewed()
    images = np.zeros((4, 3, 16, 16), np.float32)
    two = Samples({"x": images, "y": images}, None, 2, views=Views(frozenset({"flip"}), 2))
    with pytest.raises(DataError, match="one input"):
        two.viewed()
    with pytest.raises(UsageError, match="there are crop, flip, mix"):
        parse_augmentations("turn")
