"""Which runs to make: all combinations, or a spread of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxprune.errors import UsageError, unknown
from onnxprune.exploration.runs import Setting
from onnxprune.exploration.steps import Float, Nothing, Step
from onnxprune.pruning.options import MODES, PlanOptions

_DECIMALS = 3


@dataclass(frozen=True)
class Grid:
    """The values to choose from, and the ``options`` of :func:`onnxprune.plan` that are the same in every run."""

    modes: Sequence[str] = ("params", "flops", "memory")
    reduce: Sequence[float] = (0.3, 0.5, 0.7)
    allocations: Sequence[str] = ("complexity",)
    criteria: Sequence[str] = ("l2",)
    seeds: Sequence[int] = (0,)
    steps: Sequence[Step] = (Nothing(),)
    precisions: Sequence[Step] = (Float(),)
    options: PlanOptions = field(default_factory=PlanOptions)

    def __post_init__(self) -> None:
        for name in ("modes", "reduce", "allocations", "criteria", "seeds", "steps", "precisions"):
            if not len(getattr(self, name)):
                raise UsageError(f"there is nothing to explore: no {name} given")
        for mode in self.modes:
            if mode not in MODES:
                raise UsageError(unknown("mode", mode, MODES, "some of"))
        self.settings()  # Odd values are refused now, and not in every run.

    def settings(self) -> tuple[Setting, ...]:
        """Every combination once, strong and weak reductions mixed as they are listed."""
        product = itertools.product(
            self.seeds,
            self.steps,
            self.allocations,
            self.criteria,
            self.reduce,
            self._canonical_modes,
            self.precisions,
        )
        found = (
            self._exact(float(reduce), mode, allocation, criterion, seed, step, precision)
            for seed, step, allocation, criterion, reduce, mode, precision in product
        )
        return tuple(dict.fromkeys(found))

    def search(self, count: int, seed: int = 0) -> tuple[Setting, ...]:
        """``count`` settings spread evenly over the values, with reductions between the least and the greatest.

        A scrambled Halton sequence: a longer search begins with the settings of a shorter one of the same seed, and
        the order in which runs end does not matter, so that a search resumes and grows like a grid.
        """
        from scipy.stats import qmc

        if count < 1:
            raise UsageError(f"a search takes at least one run, not {count}")
        points = qmc.Halton(1 + len(self.choices), seed=seed).random(count)
        least, greatest = min(self.reduce), max(self.reduce)
        found = []
        for first, *rest in points.tolist():
            chosen = (
                options[min(int(at * len(options)), len(options) - 1)]
                for options, at in zip(self.choices.values(), rest, strict=True)
            )
            found.append(self.setting(least + (greatest - least) * first, *chosen))
        return tuple(dict.fromkeys(found))

    @property
    def choices(self) -> dict[str, Sequence[Any]]:
        """All that is chosen besides the reduction, in the order that :meth:`setting` takes."""
        return {
            "mode": self._canonical_modes,
            "allocation": self.allocations,
            "criterion": self.criteria,
            "seed": self.seeds,
            "then": self.steps,
            "precision": self.precisions,
        }

    def setting(
        self, reduce: float, mode: str, allocation: str, criterion: str, seed: int, then: Step, precision: Step
    ) -> Setting:
        """A setting with any reduction."""
        return self._exact(round(reduce, _DECIMALS), mode, allocation, criterion, seed, then, precision)

    def _exact(
        self, reduce: float, mode: str, allocation: str, criterion: str, seed: int, then: Step, precision: Step
    ) -> Setting:
        varied = {"mode": mode, "reduce": reduce, "allocation": allocation, "criterion": criterion, "seed": seed}
        return Setting(**{**self.options.given(), **varied}, then=then, precision=precision)

    @property
    def _canonical_modes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(MODES[mode] for mode in self.modes))
