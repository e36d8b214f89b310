"""The fit against numpy's least squares."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxprune.pruning.compensation.ridge import Moments, bias_of, choose_share, solve

Array = NDArray[np.float64]


def _moments(x: Array, y: Array) -> Moments:
    moments = Moments.about(x[:, :3].mean(axis=1), y[:, :3].mean(axis=1))
    for start in range(0, x.shape[1], 50):
        moments.add(x[:, start : start + 50], y[:, start : start + 50])
    return moments


def _data(groups: int = 1, rows: int = 400, features: int = 6, outputs: int = 4) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((groups, rows, features)) + rng.uniform(-3, 3, (groups, 1, features))
    y = x @ rng.standard_normal((groups, features, outputs)) + rng.uniform(-2, 2, (groups, 1, outputs))
    y += 0.3 * rng.standard_normal(y.shape)
    return x, y, rng.standard_normal((groups, features, outputs))


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_without_ridge_it_is_least_squares(groups: int, intercept: bool) -> None:
    x, y, start = _data(groups)
    matrix, bias = solve(_moments(x, y), start, 1e-12, intercept=intercept)
    for g in range(groups):
        known = np.column_stack([x[g], np.ones(x.shape[1])]) if intercept else x[g]
        wanted = np.linalg.lstsq(known, y[g], rcond=None)[0]
        np.testing.assert_allclose(matrix[g], wanted[: x.shape[2]], atol=1e-4)
        if intercept:
            assert bias is not None
            np.testing.assert_allclose(bias[g], wanted[-1], atol=1e-4)


def test_the_ridge_draws_towards_the_weights_that_are_there() -> None:
    """The closed form as stacked least squares: √λ·(W - W₀) as further rows."""
    x, y, start = _data()
    share = 0.3
    centred, target = x[0] - x[0].mean(axis=0), y[0] - y[0].mean(axis=0)
    ridge = share * np.square(centred).mean(axis=0).mean() * len(centred)
    stacked = np.vstack([centred, np.sqrt(ridge) * np.eye(6)])
    wanted = np.linalg.lstsq(stacked, np.vstack([target, np.sqrt(ridge) * start[0]]), rcond=None)[0]
    matrix, _ = solve(_moments(x, y), start, share, intercept=True)
    np.testing.assert_allclose(matrix[0], wanted, atol=1e-4)


def test_errors_are_those_of_the_rows() -> None:
    x, y, start = _data(2)
    bias = np.random.default_rng(3).standard_normal((2, 4))
    moments = _moments(x, y)
    residual = x @ start + bias[:, None] - y
    assert moments.error(start, bias) == pytest.approx(np.square(residual).sum(axis=(0, 2)).mean(), rel=1e-4)
    assert moments.variance() == pytest.approx(y.var(axis=1).sum(), rel=1e-5)
    halves = _moments(x[:, :100], y[:, :100])
    rest = Moments.about(halves.shift_x, halves.shift_y)
    rest.add(x[:, 100:], y[:, 100:])
    halves += rest
    assert halves.error(start, bias) == pytest.approx(moments.error(start, bias), rel=1e-4)


@pytest.mark.parametrize("kind", ["constant", "repeated", "few rows", "all constant"])
def test_a_singular_gram_matrix_gives_finite_weights_and_the_right_mean(kind: str) -> None:
    x, y, start = _data(rows=3 if kind == "few rows" else 400)
    if kind == "constant":
        x[..., 2] = 5.0
    elif kind == "repeated":
        x[..., 2] = x[..., 3]
    elif kind == "all constant":
        x[...] = 2.0
    moments = _moments(x, y)
    matrix, bias = solve(moments, start, 1e-4, intercept=True)
    assert bias is not None
    assert np.isfinite(matrix).all()
    np.testing.assert_allclose((x @ matrix + bias[:, None]).mean(axis=1), y.mean(axis=1), atol=1e-4)
    if kind == "all constant":
        np.testing.assert_array_equal(matrix, start)


def test_held_out_rows_choose_and_refuse() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((1, 20, 3))
    x, more = rng.standard_normal((1, 24, 20)), rng.standard_normal((1, 500, 20))
    noise = 0.5 * rng.standard_normal((1, 24, 3))
    train = Moments.about(np.zeros((1, 20)), np.zeros((1, 3)))
    train.add(x, x @ weights + noise)
    held_out = Moments.about(np.zeros((1, 20)), np.zeros((1, 3)))
    held_out.add(more, more @ weights)
    shares = (1e-4, 1e-1, 1.0)
    errors = [held_out.error(*solve(train, np.zeros_like(weights), s, intercept=True)) for s in shares]
    chosen, least = choose_share(train, held_out, np.zeros_like(weights), shares, intercept=True)
    assert (chosen, least) == (shares[np.argmin(errors)], min(errors))
    # The true weights cannot be improved upon by fitting noise.
    assert choose_share(train, held_out, weights, (1e-4,), intercept=True)[0] is None
    assert bias_of(train, weights).shape == (1, 3)
