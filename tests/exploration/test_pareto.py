"""The set that nothing dominates, against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxprune.errors import UsageError
from onnxprune.exploration import non_dominated, pareto_front
from onnxprune.exploration.runs import Figures
from tests.exploration.support import made_up

_VALUES = st.one_of(st.integers(0, 3).map(float), st.just(float("nan")), st.just(float("inf")))


def by_definition(rows: list[list[float]]) -> list[bool]:
    """Quadratic, in plain Python: what the words say."""
    known = [not any(np.isnan(v) for v in row) for row in rows]

    def dominates(a: list[float], b: list[float]) -> bool:
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))

    return [
        ok and not any(other_ok and dominates(other, row) for other, other_ok in zip(rows, known, strict=True))
        for row, ok in zip(rows, known, strict=True)
    ]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # Machines may be busy.
@given(st.integers(1, 4).flatmap(lambda k: st.lists(st.lists(_VALUES, min_size=k, max_size=k), max_size=25)))
def test_it_is_what_the_definition_says(rows: list[list[float]]) -> None:
    costs = np.array(rows, dtype=np.float64).reshape(len(rows), len(rows[0]) if rows else 1)
    assert non_dominated(costs).tolist() == by_definition(rows)


def test_ten_thousand_points_that_are_all_on_the_front() -> None:
    x = np.random.default_rng(0).permutation(10_000).astype(np.float64)
    assert non_dominated(np.stack([x, -x], axis=1)).all()


def test_accuracy_counts_upwards_and_resources_downwards() -> None:
    cheap, good = made_up(0, accuracy=0.6, flops=10.0), made_up(1, accuracy=0.9, flops=40.0)
    worse, equal = made_up(2, accuracy=0.6, flops=20.0), made_up(3, accuracy=0.9, flops=40.0)
    assert pareto_front([worse, good, cheap, equal], ["flops"]) == (cheap, good, equal)


def test_a_run_that_the_original_beats_is_on_no_front() -> None:
    slow, fast = made_up(0, accuracy=0.8, latency=0.003), made_up(1, accuracy=0.7, latency=0.001)
    better = made_up(2, accuracy=0.95, latency=0.004)
    original = Figures(accuracy=0.9, latency=0.002)
    assert pareto_front([slow, fast, better]) == (fast, slow, better)
    assert pareto_front([slow, fast, better], original=original) == (fast, better)
    assert pareto_front([slow], original=Figures(accuracy=0.9)) == (slow,), "its latency is not known"
    same = made_up(3, accuracy=0.9, latency=0.002)
    assert pareto_front([same], original=original) == (same,)


def test_failed_runs_and_missing_figures_are_left_out() -> None:
    runs = [made_up(0), made_up(1, status="failed", accuracy=1.0), made_up(2, latency=None, accuracy=1.0)]
    assert [run.key for run in pareto_front(runs, ["latency"])] == ["run0"]
    assert [run.key for run in pareto_front(runs, ["params"])] == ["run2"]


@pytest.mark.parametrize("over", [[], ["speed"], ["accuracy"]])
def test_what_to_weigh_against_is_checked(over: list[str]) -> None:
    with pytest.raises(UsageError, match="some of params, flops"):
        pareto_front([made_up(0)], over)
