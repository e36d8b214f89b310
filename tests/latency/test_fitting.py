"""Meeting a latency by measuring and correcting, on machines that deviate from the prediction in known ways."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

import onnxprune
from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import BudgetError, MeasurementError, UsageError
from onnxprune.ir.model import Model
from onnxprune.ir.sampling import exactly
from onnxprune.latency.cache import Cache
from onnxprune.latency.fitting import _gain, meet_latency
from onnxprune.latency.model import LatencyProfile
from onnxprune.latency.profile import profile_latency
from tests.latency.fakes import FakeMachine
from tests.latency.networks import chain

_ROUNDS = exactly(2)


@pytest.fixture
def analysis() -> Analysis:
    return onnxprune.analyze(chain(64, 128, 64, 5))


def profile(analysis: Analysis, folder: Path, machine: FakeMachine) -> LatencyProfile:
    return profile_latency(analysis, machine=machine, round_to=1, cache=Cache(folder, machine.identity))


@pytest.mark.parametrize("bend", [0.5, 0.8, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("share", [0.4, 0.7])
def test_the_measured_latency_is_within_five_percent(
    analysis: Analysis, tmp_path: Path, bend: float, share: float
) -> None:
    machine = FakeMachine(bend=bend)
    known = profile(analysis, tmp_path, machine)
    if bend == 0.5 and share == 0.4:
        with pytest.raises(BudgetError, match="latency cannot fall to"):
            meet_latency(analysis, known, reduce=1 - share, machine=machine)
        return
    fit = meet_latency(analysis, known, reduce=1 - share, machine=machine)
    asked = share * known.baseline.median
    assert fit.asked == pytest.approx(asked)
    assert fit.met
    assert 0.95 * asked <= fit.best.measured <= 1.05 * asked
    # Not only said, but so:
    seconds = machine.rounds([analysis.model, fit.model], {}, _ROUNDS)[0]
    assert seconds[1] == pytest.approx(fit.best.measured, rel=1e-9)
    assert (len(fit.trials) == 1) == (bend == 1.0)
    assert fit.best in fit.trials


def test_the_corrected_profile_starts_where_the_last_one_ended(analysis: Analysis, tmp_path: Path) -> None:
    machine = FakeMachine(bend=1.5)
    known = profile(analysis, tmp_path, machine)
    first = meet_latency(analysis, known, reduce=0.5, machine=machine)
    assert first.profile.gain > 1
    second = meet_latency(analysis, first.profile, reduce=0.5, machine=machine)
    assert len(first.trials) > 1
    assert len(second.trials) == 1


def test_other_budgets_may_ask_for_more(analysis: Analysis, tmp_path: Path) -> None:
    machine = FakeMachine()
    known = profile(analysis, tmp_path, machine)
    limit = 0.9 * known.baseline.median
    fit = meet_latency(analysis, known, mode="flops", reduce=0.7, max_latency=limit, machine=machine)
    assert fit.best.measured < 0.9 * limit
    assert fit.plan.after["flops"] <= 0.3 * analysis.totals["flops"]
    assert len(fit.trials) == 1


def test_a_latency_that_holds_already_removes_nothing(analysis: Analysis, tmp_path: Path) -> None:
    machine = FakeMachine()
    fit = meet_latency(analysis, profile(analysis, tmp_path, machine), max_latency=1.0, machine=machine)
    assert not fit.plan


def test_what_no_width_reaches_is_refused(analysis: Analysis, tmp_path: Path) -> None:
    machine = FakeMachine()
    known = profile(analysis, tmp_path, machine)
    with pytest.raises(BudgetError, match=r"latency cannot fall to 0\.001 ms: the smallest reachable value is"):
        meet_latency(analysis, known, max_latency=1e-6, machine=machine)


def test_a_prediction_that_is_too_careful_is_put_right(analysis: Analysis, tmp_path: Path) -> None:
    machine = FakeMachine(bend=2.5)
    known = profile(analysis, tmp_path, machine)
    asked = 0.3 * known.baseline.median
    with pytest.raises(BudgetError, match="latency cannot fall to"):
        onnxprune.plan(analysis, mode="latency", max_latency=asked, latency=known, floor=0.5)
    fit = meet_latency(analysis, known, max_latency=asked, machine=machine, floor=0.5)
    assert fit.best.measured == pytest.approx(asked, rel=0.05)


@dataclass
class Halving:
    """Integers that take ``share`` of a model's time."""

    machine: FakeMachine
    share: float
    models: list[Model] = field(default_factory=list)

    def __call__(self, model: Model) -> Model:
        draft = model.edit()
        draft.skeleton.doc_string = "integers"
        self.models.append(model)
        return draft.finish()

    def time(self, model: Model) -> float:
        seconds = FakeMachine.time(self.machine, model)
        return seconds * self.share if model.skeleton.doc_string == "integers" else seconds


@pytest.mark.parametrize(("share", "asked", "trials"), [(0.5, 0.55, 1), (0.5, 0.4, 2), (0.9, 0.5, 2), (1.0, 0.6, 2)])
def test_where_integers_suffice_nothing_is_removed(
    analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, asked: float, trials: int
) -> None:
    machine = FakeMachine()
    known = profile(analysis, tmp_path, machine)
    quantise = Halving(machine, share)
    monkeypatch.setattr(machine, "time", quantise.time)
    fit = meet_latency(analysis, known, reduce=1 - asked, machine=machine, quantise=quantise)
    assert (fit.precision, len(fit.trials), len(quantise.models)) == ("int8", trials, trials)
    assert bool(fit.plan) == (share > asked)
    assert fit.best.measured <= 1.05 * fit.asked
    assert machine.rounds([analysis.model, fit.model], {}, _ROUNDS)[0, 1] == pytest.approx(fit.best.measured)
    # What was learned of integers says nothing of the next plan in floats.
    assert fit.profile == known
    floats = meet_latency(analysis, known, reduce=1 - asked, machine=FakeMachine())
    assert floats.precision == "float"
    assert share == 1 or fit.plan.after["params"] > floats.plan.after["params"]


def test_a_noisy_machine_is_named_with_the_spread(analysis: Analysis, tmp_path: Path) -> None:
    machine = FakeMachine(noise=3.0)
    known = profile(analysis, tmp_path, FakeMachine())
    with pytest.raises(MeasurementError, match=r"too noisy .* middle half spreads over \d+ % of the median"):
        meet_latency(analysis, known, reduce=0.5, machine=machine)


def test_the_profile_has_to_be_of_this_machine(analysis: Analysis, tmp_path: Path) -> None:
    known = profile(analysis, tmp_path, FakeMachine(name="another"))
    with pytest.raises(UsageError, match="measured on another machine"):
        meet_latency(analysis, known, reduce=0.5, machine=FakeMachine())
    with pytest.raises(UsageError, match="no latency is asked for"):
        meet_latency(analysis, known, mode="flops", reduce=0.5, machine=FakeMachine(name="another"))
    with pytest.raises(UsageError, match="between 0 and 1"):
        meet_latency(analysis, known, reduce=1.5, machine=FakeMachine(name="another"))


def test_the_gain_is_right_at_the_target() -> None:
    # Through (0.5, 0.6) and (1, 1) a measured 0.5 needs a predicted 0.375.
    assert _gain([(1.0, 1.0), (0.5, 0.6)], 0.5) == pytest.approx(0.5 / 0.625)
    # Between two measurements around the target the line goes through both.
    assert _gain([(1.0, 1.0), (0.5, 0.6), (0.4, 0.4)], 0.5) == pytest.approx(0.5 / 0.55)
