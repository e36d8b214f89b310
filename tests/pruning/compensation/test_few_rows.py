"""The fit among the rows against the one for the features, and its errors against fits that left samples out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.pruning.compensation.few_rows import fit_rows
from onnxprune.pruning.compensation.ridge import Moments, solve

Array = NDArray[np.float64]


def _data(rows: int, groups: int = 2, features: int = 12, outputs: int = 4) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(rows)
    x = rng.standard_normal((groups, rows, features)) + rng.uniform(-3, 3, (groups, 1, features))
    y = x @ rng.standard_normal((groups, features, outputs)) + 0.3 * rng.standard_normal((groups, rows, outputs))
    return x, y + 2, rng.standard_normal((groups, features, outputs))


@pytest.mark.parametrize("rows", [2, 7, 12, 40])
@pytest.mark.parametrize("share", [1e-2, 1.0, 30.0])
@pytest.mark.parametrize("intercept", [True, False])
def test_it_is_the_solution_for_the_features(rows: int, share: float, intercept: bool) -> None:
    x, y, start = _data(rows)
    moments = Moments.about(x[:, :2].mean(axis=1), y[:, :2].mean(axis=1))
    moments.add(x, y)
    matrix, bias = solve(moments, start, share, intercept=intercept)
    fit = fit_rows(x.astype(np.float32), y - x @ start, np.arange(rows), (share,), intercept=intercept)
    if fit.change is None:
        pytest.skip("the weights as they are do better on samples left out")
    np.testing.assert_allclose(start + fit.change, matrix, atol=2e-4)
    if intercept:
        np.testing.assert_allclose(fit.bias, bias, atol=1e-3)
    assert fit.after == pytest.approx(moments.error(matrix, bias), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("per_sample", [1, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_errors_of_samples_left_out_are_those_of_fits_without_them(per_sample: int, intercept: bool) -> None:
    x, y, start = _data(15, groups=1)
    share, sample = 0.3, np.arange(15) // per_sample
    shift = x.mean(axis=1, keepdims=True) if intercept else 0.0
    ridge = share * np.square(x - shift).mean() * 15
    total = 0.0
    for left in np.unique(sample):
        seen, wanted = x[0, sample != left], (y - x @ start)[0, sample != left]
        ones = np.ones((len(seen), 1)) if intercept else np.zeros((len(seen), 0))
        known = np.hstack([seen, ones])
        damping = np.diag([ridge] * 12 + [0.0] * ones.shape[1])
        found = np.linalg.solve(known.T @ known + damping, known.T @ wanted)
        rows = np.hstack([x[0, sample == left], np.ones((per_sample, 1))[:, : ones.shape[1]]])
        total += np.square((y - x @ start)[0, sample == left] - rows @ found).sum()
    fit = fit_rows(x.astype(np.float32), y - x @ start, sample, (share,), intercept=intercept)
    assert fit.share == share
    assert fit.unseen == pytest.approx(total / 15, rel=1e-3)
    assert fit.unseen > fit.after


def test_weights_that_noise_cannot_improve_stay() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((1, 24, 30)).astype(np.float32), rng.standard_normal((1, 24, 3))
    fit = fit_rows(x, noise.copy(), np.arange(24), (1e-4, 1e-2), intercept=True)
    assert (fit.share, fit.change) == (None, None)
    assert fit.bias is not None
    np.testing.assert_allclose(fit.bias, noise.mean(axis=1))
    assert fit.unseen == pytest.approx(np.square(noise - noise.mean(axis=1)).sum() / 24 * (24 / 23) ** 2)


@pytest.mark.parametrize("kind", ["one row", "constant", "one sample"])
def test_too_little_to_fit_to_gives_finite_weights(kind: str) -> None:
    x, y, start = _data(1 if kind == "one row" else 6)
    if kind == "constant":
        x[...] = 2.0
    fit = fit_rows(x.astype(np.float32), y - x @ start, np.zeros(x.shape[1], dtype=np.int64), (1e-4,), intercept=True)
    assert fit.bias is not None
    assert np.isfinite(fit.bias).all()
    assert fit.change is None or np.isfinite(fit.change).all()
    if kind != "one sample":
        assert fit.share is None
