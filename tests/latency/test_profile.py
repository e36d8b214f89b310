"""Profiles, their cache, and what they predict, on a machine whose times are known."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

import onnxprune
from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import BudgetError, UsageError
from onnxprune.ir.caches import default_folder
from onnxprune.ir.sampling import exactly
from onnxprune.latency.cache import Cache
from onnxprune.latency.layers import layer_cases
from onnxprune.latency.model import LatencyProfile
from onnxprune.latency.profile import _monotone, choose_multiple, profile_latency
from onnxprune.pruning.consistency import removed_per_class
from onnxprune.pruning.widths import block
from tests.latency.fakes import FakeMachine
from tests.latency.networks import chain, depthwise

_ROUNDS = exactly(2)


@pytest.fixture
def analysis() -> Analysis:
    return onnxprune.analyze(chain(32, 64, 48, 5))


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, FakeMachine().identity)


def measured(analysis: Analysis, cache: Cache, machine: FakeMachine | None = None, round_to: int = 1) -> LatencyProfile:
    return profile_latency(analysis, machine=machine or FakeMachine(), round_to=round_to, cache=cache)


def kept_by(analysis: Analysis, plan: onnxprune.Plan) -> np.ndarray:
    kept = analysis.costs.full.copy()
    kept[:-1] -= [len(positions) for positions in removed_per_class(analysis, plan)]
    return kept


def test_the_unpruned_model_takes_what_was_measured(analysis: Analysis, cache: Cache) -> None:
    profile = measured(analysis, cache)
    machine = FakeMachine()
    elements = [32 * 27, 64 * 32 * 9, 48 * 64 * 9, 5 * 48 * 9]
    layers = sum(1e-6 + 1e-9 * count for count in elements)
    assert profile.layers == pytest.approx(layers, rel=1e-12)
    assert profile.others == {"Relu": 20e-6}
    assert profile.baseline.median == pytest.approx(layers + 30e-6, rel=1e-12)
    model = profile.of(analysis)
    assert model.total(analysis.costs.full) == pytest.approx(layers + 30e-6, rel=1e-12)
    each = [machine.layer(case, case.full) for case in layer_cases(analysis) if case]
    np.testing.assert_allclose(model.per_layer(analysis.costs.full), each, rtol=1e-12)


@pytest.mark.parametrize("channels", [0.25, 0.5, 0.75])
def test_pruned_models_take_what_was_predicted(analysis: Analysis, cache: Cache, channels: float) -> None:
    # Times of this machine are bilinear in the widths, and so interpolation is exact.
    profile, machine = measured(analysis, cache), FakeMachine()
    plan = onnxprune.plan(analysis, channels=channels, latency=profile)
    pruned = onnxprune.apply(analysis.model, plan)
    seconds = machine.rounds([analysis.model, pruned], {}, _ROUNDS)[0, 1]
    assert plan.after["latency"] == pytest.approx(seconds, rel=1e-9)
    assert plan.before["latency"] == pytest.approx(profile.baseline.median, rel=1e-12)


def test_interpolation_is_that_of_scipy(analysis: Analysis, cache: Cache) -> None:
    profile = measured(analysis, cache)
    rng = np.random.default_rng(0)
    bumpy = {
        kind: replace(table, seconds=_monotone(table.seconds * rng.uniform(0.5, 1.5, table.seconds.shape)))
        for kind, table in profile.tables.items()
    }
    model = replace(profile, tables=bumpy).of(analysis)
    cases = [case for case in layer_cases(analysis) if case is not None]
    scale = model.seconds[1].max() / bumpy[cases[1].kind].seconds.max()
    for _ in range(20):
        kept = np.append(rng.uniform(0.1, 1, len(analysis.costs.full) - 1) * analysis.costs.full[:-1], 1.0)
        found = model.per_layer(kept)
        for at, case in enumerate(cases):
            table = bumpy[case.kind]
            widths = [np.clip(kept[c], w[0], w[-1]) for c, w in zip(case.classes, table.widths, strict=True)]
            expected = RegularGridInterpolator(table.widths, table.seconds)(widths)[0] * scale
            assert found[at] == pytest.approx(expected, rel=1e-9)


def test_fewer_channels_never_take_longer(cache: Cache) -> None:
    analysis = onnxprune.analyze(depthwise(64))
    profile = measured(analysis, cache)
    rng = np.random.default_rng(0)
    noisy = {
        kind: replace(table, seconds=_monotone(table.seconds * rng.uniform(0.2, 2, table.seconds.shape)))
        for kind, table in profile.tables.items()
    }
    model = replace(profile, tables=noisy).of(analysis)
    group = analysis.coupling.groups[0]
    totals = []
    for removed in range(group.units):
        kept = analysis.costs.full.copy()
        kept[group.classes] -= removed * group.multiplicity
        totals.append(model.total(kept))
    assert all(after <= before for before, after in pairwise(totals))
    assert totals[-1] < totals[0]


def test_what_cannot_be_run_alone_follows_its_work(analysis: Analysis, cache: Cache) -> None:
    class Refusing(FakeMachine):
        def points(self, points):  # type: ignore[no-untyped-def]
            return [
                None if p.case.node.name == "c1" else t for p, t in zip(points, super().points(points), strict=True)
            ]

    profile = measured(analysis, cache, Refusing())
    assert len(profile.tables) == 3
    model = profile.of(analysis)
    half = np.append(analysis.costs.full[:-1] / 2, 1)
    before, after = model.per_layer(analysis.costs.full), model.per_layer(half)
    assert after[1] / before[1] == pytest.approx(0.25, rel=1e-12)
    assert model.total(analysis.costs.full) == pytest.approx(profile.baseline.median, rel=1e-12)


def test_plans_meet_a_latency_and_other_budgets_with_it(analysis: Analysis, cache: Cache) -> None:
    profile = measured(analysis, cache)
    unpruned = profile.baseline.median
    plan = onnxprune.plan(analysis, mode="la", reduce=0.3, latency=profile)
    assert plan.settings["mode"] == "latency"
    assert 0.68 * unpruned <= plan.after["latency"] <= 0.7 * unpruned
    both = onnxprune.plan(
        analysis, mode="flops", max_latency=0.8 * unpruned, max_params=0.3 * analysis.totals["params"], latency=profile
    )
    assert both.after["latency"] <= 0.8 * unpruned
    assert both.after["params"] <= 0.3 * analysis.totals["params"]
    for allocation in ("complexity", "complexity-mean", "uniform"):
        found = onnxprune.plan(analysis, mode="latency", reduce=0.4, allocation=allocation, latency=profile, round_to=4)
        assert found.after["latency"] <= 0.6 * unpruned
        counts = kept_by(analysis, found)[np.unique([c for g in analysis.coupling.groups for c in g.classes])]
        assert (counts % 4 == 0).all()


def test_a_latency_below_what_any_width_reaches_is_refused(analysis: Analysis, cache: Cache) -> None:
    profile = measured(analysis, cache)
    with pytest.raises(
        BudgetError, match=r"latency cannot fall to 0\.01 ms: the smallest reachable value is 0\.0\d+ ms"
    ):
        onnxprune.plan(analysis, max_latency=10e-6, latency=profile)


def test_latency_has_to_be_measured_first(analysis: Analysis, cache: Cache) -> None:
    for options in ({"mode": "latency", "reduce": 0.5}, {"max_latency": 0.001}):
        with pytest.raises(UsageError, match="latency has to be measured first"):
            onnxprune.plan(analysis, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="needs a latency profile"):
        onnxprune.plan(analysis, reduce=0.5, round_to="measured")
    with pytest.raises(UsageError, match="round_to must be"):
        profile_latency(analysis, machine=FakeMachine(), round_to=0, cache=cache)
    other = onnxprune.analyze(chain(16, 24, 5, size=7))
    with pytest.raises(UsageError, match="measured for another model"):
        other.measured({"latency": measured(analysis, cache)})


def test_the_multiple_is_the_smallest_that_pays(analysis: Analysis, cache: Cache) -> None:
    assert choose_multiple(analysis, machine=FakeMachine(lanes=8), cache=cache) == 8
    profile = profile_latency(analysis, machine=FakeMachine(lanes=8), round_to="measured", cache=cache)
    assert profile.multiple == 8
    assert profile.choices[1] == 1.0
    assert profile.choices[8] < 0.8 < profile.choices[4]
    plan = onnxprune.plan(analysis, reduce=0.5, round_to="auto", latency=profile)
    assert plan.settings["round_to"] == 8


def test_by_default_the_multiple_is_what_the_provider_computes_together(analysis: Analysis, cache: Cache) -> None:
    profile = profile_latency(analysis, machine=FakeMachine(), cache=cache)
    assert profile.multiple == block()
    assert not profile.choices


def test_without_a_difference_nothing_is_rounded(analysis: Analysis, tmp_path: Path) -> None:
    class Even(FakeMachine):
        def layer(self, case, widths):  # type: ignore[no-untyped-def]
            return super().layer(case, widths) - 1e-6

    assert choose_multiple(analysis, machine=Even(), cache=Cache(tmp_path, {})) == 1


def test_nothing_is_measured_twice(analysis: Analysis, cache: Cache) -> None:
    first = measured(analysis, cache)
    machine = FakeMachine()
    assert measured(analysis, cache, machine) == first
    assert machine.asked == []
    machine = FakeMachine(name="another")
    measured(analysis, Cache(cache.folder, machine.identity), machine)
    assert len(machine.asked) == sum(table.seconds.size for table in first.tables.values())


def test_what_a_busy_machine_shows_is_not_kept(analysis: Analysis, cache: Cache) -> None:
    profile = measured(analysis, cache, FakeMachine(busy=3.0))
    assert profile.disturbance == pytest.approx(3.0, rel=1e-9)
    assert not list(cache.folder.rglob("*.json"))
    # Shares of the whole are right all the same.
    assert profile.of(analysis).total(analysis.costs.full) == pytest.approx(profile.baseline.median)
    assert measured(analysis, cache).disturbance == pytest.approx(1.0, rel=1e-9)


def test_damaged_files_are_measured_again(analysis: Analysis, cache: Cache) -> None:
    first = measured(analysis, cache)
    files = sorted(cache.folder.rglob("*.json"))
    assert len(files) == 3, "the two middle layers share a signature"
    for file, text in zip(files, ["", '{"version": 1', files[2].read_text().replace("e-0", "x")], strict=True):
        file.write_text(text)
    with pytest.warns(UserWarning, match="is damaged"):
        again = measured(analysis, cache)
    assert again == first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measured(analysis, cache)
    assert json.loads(files[0].read_text())["machine"] == {"processor": "fake"}
    assert not list(cache.folder.rglob("*.tmp"))


def test_a_cache_that_cannot_be_written_costs_time_only(analysis: Analysis, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot be kept"):
        profile = measured(analysis, Cache(tmp_path / "file", {}))
    assert len(profile.tables) == 4


def test_the_cache_is_where_the_user_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("ONNXPRUNE_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_folder() == tmp_path / "xdg" / "onnxprune"
