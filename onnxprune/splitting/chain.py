"""A chain of parts for machines with little memory, or for one that loads them in turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from onnxprune._display import long
from onnxprune.errors import BudgetError, UsageError
from onnxprune.splitting.costs import Ledger, PartCost
from onnxprune.splitting.cuts import Cut, find_cuts

_BISECTIONS = 24


def chain_within(ledger: Ledger, budgets: Sequence[float], *, most: int = 3, coding: str = "plain") -> tuple[Cut, ...]:
    """The cuts, each of which holds the one before, that let the fewest bytes cross while every part fits its budget.

    Args:
        ledger: of the model.
        budgets: bytes of weights and live activations that each part may take, from the input on.
        most: tensors that may cross at a cut.
        coding: how they cross.

    Raises:
        BudgetError: no cuts leave parts that fit, and the message says what needs the most; or a size is not known.
        UsageError: fewer than two budgets.
    """
    if len(budgets) < 2:
        raise UsageError("a chain has two parts or more; give a budget for each, like 256kB,512kB")
    found = _Chains(ledger, most, coding).within(budgets)
    if found is None:
        nodes = ledger.flow.computing
        name, least = max(
            ((ledger.graph.nodes[index].name, ledger.part(1 << index).memory) for index in nodes),
            key=lambda pair: pair[1],
        )
        said = ", ".join(long(budget, "B") for budget in budgets)
        raise BudgetError(
            f"no cuts of up to {most} tensors leave parts of at most {said}: '{name}' alone takes {long(least, 'B')}, "
            f"all together {long(ledger.part(ledger.flow.all).memory, 'B')}; allow more, or more parts"
        )
    return found


def even_chain(ledger: Ledger, parts: int, *, most: int = 3, coding: str = "plain") -> tuple[Cut, ...]:
    """The cuts into so many parts of which the largest takes the least memory.

    Raises:
        BudgetError: there are not as many cuts, or a size is not known.
        UsageError: fewer than two parts.
    """
    if parts < 2:
        raise UsageError(f"a chain has two parts or more, not {parts}")
    chains = _Chains(ledger, most, coding)
    low, high = 0.0, ledger.part(ledger.flow.all).memory
    best = chains.within([high] * parts)
    if best is None:
        raise BudgetError(f"the model cannot be cut into {parts} parts; ask for fewer, or allow more tensors (--most)")
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = chains.within([middle] * parts)
        low, high, best = (middle, high, best) if found is None else (low, middle, found)
    return best


class _Chains:
    """Chains of one model; what parts cost is asked once."""

    def __init__(self, ledger: Ledger, most: int, coding: str) -> None:
        unknown = [name for name, size in zip(ledger.flow.tensors, ledger.sizes, strict=True) if math.isnan(size)]
        if unknown:
            raise BudgetError(
                f"the size of '{unknown[0]}' is not known, it may follow from the data: no memory is known to hold the "
                "part that makes it; cut by name (--at)"
            )
        self._ledger = ledger
        self._cuts = [Cut((), 0), *find_cuts(ledger.flow, most).found, Cut((), ledger.flow.all)]
        self._wire = [sum(ledger.bytes_of(name, coding) for name in cut.tensors) for cut in self._cuts]
        self._memory = cache(lambda nodes: ledger.part(nodes).memory)
        #: Less than what a part takes at least: weights that it shares with no other.
        self._weights = [ledger.own_weights(cut.head) for cut in self._cuts]

    def within(self, budgets: Sequence[float]) -> tuple[Cut, ...] | None:
        """The chain that lets the fewest bytes cross, or None."""
        ends: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
        for place, budget in enumerate(budgets):
            last = place == len(budgets) - 1
            reached: dict[int, tuple[float, tuple[int, ...]]] = {}
            # The first that fits is the best: they come with the fewest bytes first.
            order = sorted(ends.items(), key=lambda item: item[1][0])
            for at in [len(self._cuts) - 1] if last else range(1, len(self._cuts) - 1):
                for before, (total, way) in order:
                    if self._fits(before, at, budget):
                        reached[at] = (total + self._wire[at], (*way, at))
                        break
            ends = reached
        if not ends:
            return None
        ((_, way),) = ends.values()
        return tuple(self._cuts[at] for at in way[:-1])

    def _fits(self, before: int, at: int, budget: float) -> bool:
        inner, outer = self._cuts[before].head, self._cuts[at].head
        if inner & ~outer or inner == outer or self._weights[at] - self._weights[before] > budget:
            return False
        return bool(self._memory(outer & ~inner) <= budget)


def costs_of(ledger: Ledger, cuts: Sequence[Cut]) -> tuple[PartCost, ...]:
    """What the parts between cuts cost."""
    borders = [0, *(cut.head for cut in cuts), ledger.flow.all]
    return tuple(ledger.part(after & ~before) for before, after in pairwise(borders))
