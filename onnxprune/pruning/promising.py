"""A loss that is promised: candidates, of which the most reduced is taken whose loss is proven to be small enough.

Three sets of samples, apart from one another: what candidates are *fitted* to, what they are *chosen* by, and what
the promise is *proven* on. The last is looked at when all candidates are made and their order is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from onnxprune.analysis.atoms import Grouping
from onnxprune.data.bounds import SOURCES, Bound, Losses, fixed_sequence, require_samples
from onnxprune.data.losses import Reference, reference
from onnxprune.data.samples import Samples
from onnxprune.errors import AnswersError, BudgetError
from onnxprune.ir.model import Model
from onnxprune.pruning.criteria.base import Criterion, FloatArray, Scoring

_T = TypeVar("_T")

#: Candidates at most, and how near to each other the last ones are.
_HALVINGS, _NEAR = 6, 0.015
_BOLDEST = 0.95
#: A step goes at least so far into what is not yet known, as a share of it.
_INSIDE = 0.15


def _percent(share: float) -> str:
    """Two decimals: promises of 1 % are kept and broken by less than one."""
    return f"{100 * share:.2f} %"


@dataclass(frozen=True)
class Trial(Generic[_T]):
    """A candidate: its name, what it is, its losses on the samples to choose by, and its bound if it was tested."""

    name: str
    made: _T
    losses: Losses
    bound: Bound | None = None

    @property
    def damage(self) -> float:
        """How much has changed for better or worse, as a mean over samples: known more surely than what is lost."""
        return float(abs(self.losses.values).mean())

    def to_dict(self) -> dict[str, Any]:
        """All but the candidate itself, as plain data for JSON."""
        told = None if self.bound is None else self.bound.to_dict()
        return {"candidate": self.name, "foreseen": self.losses.mean, "bound": told}


@dataclass(frozen=True)
class Promise:
    """That the true mean loss is at most ``most``, with this ``confidence``; and the samples that decide.

    Attributes:
        most: the largest loss, as a share.
        confidence: of the bound.
        chosen_by: the original on the samples that candidates are chosen by.
        proven_on: the original on those that nothing else has seen.
    """

    most: float
    confidence: float
    chosen_by: Reference
    proven_on: Reference

    @classmethod
    def of(
        cls, original: Model, choosing: Samples, proving: Samples, *, most: float, confidence: float, task: str
    ) -> Promise:
        """Run the original on the samples, and see that they can prove the promise at all.

        Raises:
            DataError: there are too few (the message says how many it takes), they are made up, or labels do not fit.
            UsageError: the task is not known, or reads none of the outputs.
        """
        first = reference(original, choosing, task)
        found = cls(most, confidence, first, reference(original, proving, task, like=first))
        # Whether there are labels is a matter of the data, the same for both parts.
        require_samples(found.proven_on.kind, len(found.proven_on.samples), most, confidence)
        return found

    def foresees(self, trial: Trial[Any]) -> bool:
        """Whether a candidate is expected to keep it, by the samples to choose by."""
        return self.excess(trial) <= 0

    def excess(self, trial: Trial[Any]) -> float:
        """By how much a candidate is expected to break it, as the logarithm of a factor; not above 0 if not at all."""
        foreseen = trial.losses.foreseen(len(self.proven_on.samples), self.confidence)
        return math.log(max(foreseen, 1e-9) / self.most)

    def tried(self, name: str, made: _T, model: Model) -> Trial[_T]:
        """A candidate, on the samples to choose by."""
        return Trial(name, made, self.chosen_by.losses(model))


@dataclass(frozen=True)
class Kept(Generic[_T]):
    """A promise that is kept: by which candidate, and all that were tried, in the order of the tests."""

    promise: Promise
    trials: tuple[Trial[_T], ...]
    best: Trial[_T]

    @property
    def bound(self) -> Bound:
        """What is proven of the best."""
        assert self.best.bound is not None
        return self.best.bound

    @property
    def measured(self) -> str:
        """The loss, where none was promised."""
        bound = self.bound
        return (
            f"Not promised, but measured on {bound.samples:,} samples that nothing was fitted to or chosen by: "
            f"{self.promise.proven_on.what} {_percent(bound.mean)}, and so at most {_percent(bound.upper)} in truth at "
            f"{100 * bound.confidence:g} % confidence."
        )

    @property
    def sentences(self) -> list[str]:
        """What was promised, on how many samples, and what was found."""
        bound, what = self.bound, self.promise.proven_on.what
        tested = [trial for trial in self.trials if trial.bound is not None]
        bolder = next((t for t in tested if t.bound is not None and t.bound.upper > self.promise.most), None)
        lines = [
            f"Promise kept: {what} at most {_percent(self.promise.most)}, at {100 * bound.confidence:g} % confidence. "
            f"On {bound.samples:,} samples that nothing was fitted to or chosen by it is {_percent(bound.mean)}, and "
            f"so at most {_percent(bound.upper)} in truth ({SOURCES[bound.kind]})."
        ]
        tale = f"Candidates: {len(self.trials)} made, {len(tested)} tested, safe ones first: {self.best.name} is taken"
        if bolder is not None and bolder.bound is not None:
            tale += f", {bolder.name} could lose {_percent(bolder.bound.upper)}"
        return [*lines, f"{tale}."]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the candidates, as plain data for JSON."""
        return {
            "max_loss": self.promise.most,
            "what": self.promise.proven_on.what,
            **self.bound.to_dict(),
            "chosen": self.best.name,
            "candidates": [trial.to_dict() for trial in self.trials],
        }


def search(
    make: Callable[[float], Trial[_T]],
    excess: Callable[[Trial[_T]], float],
    *,
    enough: Callable[[], bool] = lambda: False,
) -> list[Trial[_T]]:
    """Candidates around the most (or least) that may go, close to each other at the end.

    Once one is known on either side, the next is where a straight line between both would be right, and an end that
    stays for a second time counts half (the Illinois method); else in the middle.

    Args:
        make: a candidate with so large a share removed; BudgetError where so much cannot go.
        excess: how much too bold this one is; not above 0 to go on with more removed.
        enough: tells that there is no time for another.
    """
    low, high = 0.0, _BOLDEST
    below = above = math.nan
    side: bool | None = None
    found: list[Trial[_T]] = []
    for _ in range(_HALVINGS):
        if (found and enough()) or high - low <= _NEAR:
            break
        part = below / (below - above) if below < 0 < above else 0.5
        middle = low + min(max(part, _INSIDE), 1 - _INSIDE) * (high - low)
        try:
            found.append(make(middle))
        except BudgetError:
            high, above = middle, math.nan
            continue
        much = excess(found[-1])
        again, side = side == (much <= 0), much <= 0
        if side:
            low, below, above = middle, much, above / 2 if again else above
        else:
            high, above, below = middle, much, below / 2 if again else below
    if not found:
        found.append(make(low + (high - low) / 2))  # or it says why nothing can go
    return found


def prove(promise: Promise, trials: Sequence[Trial[_T]], model: Callable[[_T], Model]) -> tuple[Trial[_T], ...]:
    """Test candidates in the given order, up to the first that fails: all of them, with the bounds of those tested.

    The order must not follow from the samples of the proof.
    """
    tested: list[Trial[_T]] = []

    def holds(trial: Trial[_T]) -> bool:
        bound = promise.proven_on.losses(model(trial.made)).bound(promise.confidence)
        tested.append(replace(trial, bound=bound))
        return bound.upper <= promise.most

    fixed_sequence(trials, holds)
    return (*tested, *trials[len(tested) :])


def kept(promise: Promise, tested: Sequence[Trial[_T]], cost: Callable[[Trial[_T]], Any]) -> Kept[_T]:
    """The candidate that passed and costs least: all that passed keep the promise, with one confidence for all.

    Raises:
        AnswersError: none passed; the message says how near the first came.
    """
    passed = [trial for trial in tested if trial.bound is not None and trial.bound.upper <= promise.most]
    if passed:
        return Kept(promise, tuple(tested), min(passed, key=cost))
    first = tested[0]
    assert first.bound is not None
    raise AnswersError(
        f"the promise cannot be kept: with {first.name}, the mildest candidate, {promise.proven_on.what} is "
        f"{_percent(first.bound.mean)} on {first.bound.samples:,} samples, and may be {_percent(first.bound.upper)} "
        f"at {100 * promise.confidence:g} % confidence ({_percent(promise.most)} was promised); promise less, or give "
        "more samples"
    )


class Remembered:
    """A criterion that is asked once for all candidates of a model, as it is or less some regions."""

    def __init__(self, criterion: Criterion) -> None:
        self.name = criterion.name
        self.comparable = criterion.comparable
        self._criterion = criterion
        # The models are held, too: an identity that is free again would be another model's.
        self._found: dict[tuple[int, Grouping], tuple[Model, FloatArray]] = {}

    def scores(self, scoring: Scoring) -> FloatArray:
        """The criterion's scores, computed once for every treatment of grouped convolutions."""
        model = scoring.analysis.model
        key = id(model), scoring.coupling.grouping
        if key not in self._found:
            self._found[key] = model, self._criterion.scores(scoring)
        return self._found[key][1]
