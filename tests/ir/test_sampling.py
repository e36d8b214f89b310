"""Rounds and their statistics, with clocks that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from onnxprune.errors import UsageError
from onnxprune.ir.sampling import Rounds, exactly, sample
from onnxprune.latency.statistics import paired_ratio, spread
from tests.latency.fakes import FakeClock


def test_every_subject_gets_its_own_time() -> None:
    clock = FakeClock()
    seconds = sample([clock.taking(0.25), clock.taking(0.5)], exactly(4), clock)
    assert seconds.tolist() == [[0.25, 0.5]] * 4


def test_warm_up_runs_do_not_count() -> None:
    clock = FakeClock()
    seconds = sample([clock.taking(8.0, 8.0, 1.0, 1.0, 1.0, 1.0)], exactly(4, warmup=2), clock)
    assert seconds.ravel().tolist() == [1.0, 1.0, 1.0, 1.0]


def test_the_order_turns_round() -> None:
    order: list[str] = []
    clock = FakeClock()

    def subject(name: str) -> object:
        clock.now += 1.0
        order.append(name)
        return None

    sample([lambda: subject("a"), lambda: subject("b")], exactly(3, warmup=1), clock)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"


def test_fast_subjects_run_several_times_per_turn() -> None:
    clock = FakeClock()
    begin = clock.now
    seconds = sample([clock.taking(0.25)], Rounds(warmup=1, most=2, least=2, turn=1.0), clock)
    assert seconds.ravel().tolist() == [0.25, 0.25]
    assert clock.now - begin == 0.25 + 2 * 1.0


def test_time_limits_the_rounds_but_not_below_the_least() -> None:
    clock = FakeClock()
    assert len(sample([clock.taking(1.0)], Rounds(most=100, least=3, seconds=7.5), clock)) == 8
    assert len(sample([clock.taking(1.0)], Rounds(most=100, least=12, seconds=7.5), clock)) == 12


@pytest.mark.parametrize("wrong", [{"warmup": 0}, {"least": 0}, {"most": 5, "least": 6}])
def test_impossible_rounds_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="warm-up"):
        Rounds(**wrong)


def test_spread_of_known_times() -> None:
    found = spread(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert (found.median, found.lower, found.upper, found.fastest, found.count) == (3.0, 2.0, 4.0, 1.0, 5)
    assert found.mad == 1.0  # distances 2, 1, 0, 1, 97
    assert found.iqr == 2.0
    assert found.relative == pytest.approx(2 / 3)


def test_what_slows_a_round_down_drops_out_of_the_ratio() -> None:
    disturbance = np.random.default_rng(0).uniform(1, 10, size=20)
    found = paired_ratio(0.5 * disturbance, disturbance)
    assert found.median == pytest.approx(0.5, abs=1e-12)
    assert found.uncertainty == pytest.approx(0, abs=1e-12)


def test_the_interval_is_that_of_scipy() -> None:
    rng = np.random.default_rng(1)
    ratios = rng.normal(0.6, 0.05, size=40)
    found = paired_ratio(ratios, np.ones(40))
    expected = bootstrap(
        (ratios,), np.median, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.median == np.median(ratios)
    # Two bootstraps of a median differ by the gaps between neighbouring values.
    assert found.low == pytest.approx(expected.low, abs=0.004)
    assert found.high == pytest.approx(expected.high, abs=0.004)
