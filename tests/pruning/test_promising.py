"""``max_loss``: as much goes as is proven to lose so little."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.data.bounds import Losses
from onnxprune.data.losses import reference
from onnxprune.data.samples import Samples, collect_three
from onnxprune.errors import AnswersError, BudgetError, DataError, UsageError
from onnxprune.ir.provenance import steps_of
from onnxprune.pruning.history import promise_told
from onnxprune.pruning.promising import Promise, Trial, kept, prove, search

MODELS = Path(__file__).parents[2] / "models"
DENSE = MODELS / "dense_dynamo.onnx"


def images(count: int = 900, *, labels: bool = False, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    pictures = rng.normal(0.3, 0.3, (count, 1, 28, 28)).astype(np.float32)
    model = onnxprune.load(DENSE)
    samples = Samples({"image": pictures}, None, 1, fixed=True)
    if not labels:
        return samples
    said = reference(model, samples).before.stacked("logits")
    assert said is not None
    return replace(samples, targets=said.argmax(axis=1))


def test_as_much_goes_as_is_proven(tmp_path: Path) -> None:
    """The bound is that of samples apart, below what was promised, and stands in the file."""
    result = onnxprune.compress(DENSE, calibration=images(), max_loss=0.2, criterion="l2", compensate="none")
    found = result.promise
    assert found is not None
    assert result.certificate
    assert 0 < found.bound.upper <= 0.2
    assert found.bound.mean < found.bound.upper
    assert result.plan.after["flops"] < result.plan.before["flops"]
    tested = [trial for trial in found.trials if trial.bound is not None]
    assert [trial.damage for trial in tested] == sorted(trial.damage for trial in tested)
    assert steps_of(result.model)[-1]["promise"]["upper"] == found.bound.upper
    assert "Promise kept" in repr(result)
    told = promise_told(result.model)
    assert told is not None
    assert told.chosen == found.best.name
    assert [name for name, _, _ in told.path] == [trial.name for trial in found.trials]
    assert all(
        (upper is None) == (trial.bound is None) for (_, _, upper), trial in zip(told.path, found.trials, strict=True)
    )
    json.dumps(found.to_dict())
    passed = [trial.made for trial in tested if trial.bound and trial.bound.upper <= 0.2]
    assert result.plan.after["flops"] == min(made.plan.after["flops"] for made in passed)


def test_three_parts_have_nothing_in_common() -> None:
    model = onnxprune.load(DENSE)
    twice = images(60)
    twice = replace(twice, inputs={name: np.concatenate([a, a]) for name, a in twice.inputs.items()})
    fit, choosing, proving = collect_three(twice, model, 20)
    assert not {*fit.digests(), *choosing.digests()} & {*proving.digests()}
    assert len(fit) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_loss": 0.01}, "needs calibration data"),
        ({"max_loss": 0.01, "reduce": 0.5, "calibration": images(9)}, "decides how much goes"),
        ({"max_loss": 0.01, "recover": True, "calibration": images(9)}, "onnxprune auto"),
        ({"max_loss": 0.01, "min_agreement": 0.9, "calibration": images(9)}, "either max_loss"),
        ({"max_loss": 1.5, "calibration": images(9)}, "share between 0 and 1"),
        ({"max_loss": 0.1, "confidence": 0.2, "calibration": images(9)}, "at least 0.5"),
    ],
)
def test_contradictions_are_told_before_any_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        onnxprune.compress(Path("there is no such file"), **options)  # type: ignore[arg-type]


def test_too_few_samples_are_told_before_any_work() -> None:
    with pytest.raises(DataError, match="takes at least 299 samples"):
        onnxprune.compress(DENSE, calibration=images(300), max_loss=0.01)


def test_labels_that_do_not_fit_are_told_before_any_work() -> None:
    samples = images(200, labels=True)
    assert samples.targets is not None
    beyond = replace(samples, targets=samples.targets + 10)
    with pytest.raises(DataError, match="outside of the model's 10 classes"):
        onnxprune.compress(DENSE, calibration=beyond, max_loss=0.1)
    wrong = replace(samples, targets=(samples.targets + 1) % 10)
    with pytest.raises(DataError, match="no better than chance"):
        onnxprune.compress(DENSE, calibration=wrong, max_loss=0.1)


def test_labels_count_what_is_lost_and_what_is_won() -> None:
    model = onnxprune.load(DENSE)
    smaller = onnxprune.compress(DENSE, reduce=0.3, certify=False).model
    samples = images(200, labels=True)
    changed, lost = (reference(model, s).losses(smaller) for s in (replace(samples, targets=None), samples))
    assert (changed.kind, lost.kind) == ("share", "paired")
    # All labels are what the original says: every changed answer is one lost.
    assert np.array_equal(changed.values, lost.values)


def test_no_promise_from_synthetic_samples() -> None:
    with pytest.raises(DataError, match="prove nothing about real data"):
        onnxprune.compress(DENSE, calibration=replace(images(), made="noise"), max_loss=0.1)


def _promise(most: float) -> Promise:
    said = reference(onnxprune.load(DENSE), images(400))
    return Promise(most, 0.95, said, said)


def test_what_cannot_be_kept_tells_how_near_it_came() -> None:
    losses = Losses(np.ones(10), "share", "")
    other = onnxprune.compress(DENSE, reduce=0.5, certify=False).model
    tested = prove(_promise(0.001), [Trial("half", other, losses)], lambda model: model)
    with pytest.raises(AnswersError, match="with half, the mildest candidate"):
        kept(_promise(0.001), tested, lambda trial: 0)


def test_search_closes_in_on_what_is_foreseen_to_hold() -> None:
    promise, rng = _promise(0.1), np.random.default_rng(0)

    def make(reduce: float) -> Trial[float]:
        return Trial(str(reduce), reduce, Losses((rng.random(5000) < reduce / 4).astype(float), "share", ""))

    tried = [trial.made for trial in search(make, promise.excess)]
    assert len(tried) <= 6
    # 10 % is foreseen on 400 samples where about 7.5 % are changed: at 0.3.
    assert abs(tried[-1] - 0.3) < 0.03


def test_search_keeps_a_last_candidate_that_can_be_made() -> None:
    def make(reduce: float) -> Trial[float]:
        if reduce > 0.01:
            raise BudgetError("so much cannot go")
        return Trial(str(reduce), reduce, Losses(np.zeros(9), "share", ""))

    assert [trial.made < 0.01 for trial in search(make, lambda trial: -1.0)] == [True]


def test_search_goes_where_a_line_between_what_holds_and_what_does_not_is_right() -> None:
    asked: list[float] = []

    def make(reduce: float) -> Trial[float]:
        asked.append(reduce)
        return Trial("", reduce, Losses(np.zeros(1), "share", ""))

    search(make, lambda trial: trial.made - 0.6)
    assert min(abs(reduce - 0.6) for reduce in asked[:3]) < 0.02
    # A cliff is found, too, if more slowly.
    asked.clear()
    search(make, lambda trial: 9.0 if trial.made > 0.2 else -0.01)
    assert min(abs(reduce - 0.2) for reduce in asked) < 0.05
