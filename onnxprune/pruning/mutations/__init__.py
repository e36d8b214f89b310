"""Faults to put into a pruned model on purpose: what a certificate must notice.

A check is worth what it catches. :func:`mutations` draws single faults of the kinds that wrong shrinking makes (a wrong
index, a vector that did not follow, a slice that is off by one) anywhere in a pruned model, led by its graph, the
coupling of its axes and the plan. Each changes the bytes of one constant or attribute; whether that changes what the
model computes is for the caller to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.model import Model
from onnxprune.pruning.mutations.channels import drop_bias, shift_slice, stale, swap, wrong_group, zero
from onnxprune.pruning.mutations.numbers import shift_extent, shift_index
from onnxprune.pruning.mutations.specimen import Draw, Kind, Mutation, Specimen
from onnxprune.pruning.plan import Plan

__all__ = ["Kind", "Mutation", "mutations"]

_MOST_MISSES = 300
"""After so many draws in a row that give nothing new, there is nothing left to draw."""


def mutations(
    pruned: Model,
    analysis: Analysis,
    plan: Plan,
    seed: int = 0,
    *,
    kinds: Collection[Kind] = tuple(Kind),
) -> Iterator[Mutation]:
    """Draw faults for a pruned model, different ones, until there are no more or nobody asks.

    Args:
        pruned: what ``apply`` made of the model.
        analysis: of the original.
        plan: what was removed.
        seed: of the draw.
        kinds: which kinds to draw.
    """
    rng = np.random.default_rng(seed)
    specimen = Specimen(pruned, analysis, plan)
    drawers = [(share, draw) for kind, share, draw in _DRAWERS if kind in kinds]
    drawn: set[Mutation] = set()
    misses = 0
    while drawers and misses < _MOST_MISSES:
        shares = np.array([share for share, _ in drawers], dtype=float)
        place = int(rng.choice(len(drawers), p=shares / shares.sum()))
        found = drawers[place][1](specimen, rng)
        if found is None:
            del drawers[place]  # this model has no place for that kind
        elif isinstance(found, Mutation) and found not in drawn:
            drawn.add(found)
            misses = 0
            yield found
        else:
            misses += 1


_DRAWERS: tuple[tuple[Kind, float, Callable[[Specimen, np.random.Generator], Draw]], ...] = (
    (Kind.SWAPPED_FILTERS, 4, lambda s, rng: swap(Kind.SWAPPED_FILTERS, producer=True, specimen=s, rng=rng)),
    (Kind.SWAPPED_INPUTS, 4, lambda s, rng: swap(Kind.SWAPPED_INPUTS, producer=False, specimen=s, rng=rng)),
    (Kind.ZEROED_CHANNEL, 3, zero),
    (Kind.DROPPED_BIAS, 2, drop_bias),
    (Kind.SHIFTED_SLICE, 4, shift_slice),
    (Kind.WRONG_GROUP, 2, wrong_group),
    (Kind.STALE_QUANTISER, 2, lambda s, rng: stale(Kind.STALE_QUANTISER, quantised=True, specimen=s, rng=rng)),
    (Kind.STALE_NORMALISER, 2, lambda s, rng: stale(Kind.STALE_NORMALISER, quantised=False, specimen=s, rng=rng)),
    (Kind.SHIFTED_EXTENT, 1, shift_extent),
    (Kind.SHIFTED_INDEX, 1, shift_index),
)
"""Every kind, how often it is drawn in comparison, and who draws it (None: the model has no place for it)."""
