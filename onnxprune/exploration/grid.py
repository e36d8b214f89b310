"""Which runs to make: all combinations, or a spread of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.exploration.runs import Setting
from onnxprune.exploration.steps import Nothing, Step

_DECIMALS = 3
_MODES = {"params": "params", "flops": "flops", "memory": "memory", "pa": "params", "fa": "flops", "ma": "memory"}
"""Both names of every mode."""


@dataclass(frozen=True)
class Grid:
    """The values to choose from; those of :class:`~onnxprune.exploration.runs.Setting`."""

    modes: Sequence[str] = ("params", "flops", "memory")
    reduce: Sequence[float] = (0.3, 0.5, 0.7)
    allocations: Sequence[str] = ("complexity",)
    criteria: Sequence[str] = ("l2",)
    seeds: Sequence[int] = (0,)
    steps: Sequence[Step] = (Nothing(),)
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        for name in ("modes", "reduce", "allocations", "criteria", "seeds", "steps"):
            if not len(getattr(self, name)):
                raise UsageError(f"there is nothing to explore: no {name} given")
        for value in self.reduce:
            if not 0 < value < 1:
                raise UsageError(f"reduce is a fraction between 0 and 1, not {value}")
        for mode in self.modes:
            if mode not in _MODES:
                # A profile of latencies belongs to one machine, and runs may be made on many.
                more = "; limit latencies when you pick" if mode in ("latency", "la") else ""
                raise UsageError(f"mode '{mode}' cannot be explored; choose some of {', '.join(_MODES)}{more}")
        self._check_names()

    def _check_names(self) -> None:
        """A misspelt name is refused now, and not in every run."""
        from onnxprune.pruning.allocation import allocation
        from onnxprune.pruning.criteria import default_registry

        for name in self.allocations:
            allocation(name)
        for name in self.criteria:
            default_registry().find(name)

    def settings(self) -> tuple[Setting, ...]:
        """Every combination once, strong and weak reductions mixed as they are listed."""
        product = itertools.product(
            self.seeds, self.steps, self.allocations, self.criteria, self.reduce, self._canonical_modes
        )
        found = (
            Setting(mode, float(reduce), allocation, criterion, seed, step, self.options)
            for seed, step, allocation, criterion, reduce, mode in product
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
        choices: list[Sequence[Any]] = [
            self._canonical_modes, self.allocations, self.criteria, self.seeds, self.steps
        ]  # fmt: skip
        points = qmc.Halton(1 + len(choices), seed=seed).random(count)
        least, greatest = min(self.reduce), max(self.reduce)
        found = []
        for first, *rest in points.tolist():
            mode, allocation, criterion, draw, step = (
                options[min(int(at * len(options)), len(options) - 1)]
                for options, at in zip(choices, rest, strict=True)
            )
            reduce = round(least + (greatest - least) * first, _DECIMALS)
            found.append(Setting(mode, reduce, allocation, criterion, draw, step, self.options))
        return tuple(dict.fromkeys(found))

    @property
    def _canonical_modes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(_MODES[mode] for mode in self.modes))
