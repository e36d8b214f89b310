"""Axes of two shapes that count the same elements in row-major order, as the two sides of a Reshape do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, lcm, prod

import numpy as np

from onnxprune.ops.relations import IntArray, component_count


@dataclass(frozen=True)
class Counter:
    """How the coordinate on one axis runs over the elements: it moves every ``inner`` of them, up to ``extent``."""

    inner: int
    extent: int

    @property
    def period(self) -> int:
        """After how many elements the coordinate is 0 again."""
        return self.inner * self.extent

    def at(self, elements: IntArray) -> IntArray:
        """The coordinates of elements, given by their places in row-major order."""
        return elements // self.inner % self.extent


def counter(sizes: Sequence[int], axis: int) -> Counter:
    """The counter of one axis of a shape."""
    return Counter(prod(sizes[axis + 1 :]), sizes[axis])


def pairs(a: Counter, b: Counter) -> tuple[IntArray, IntArray]:
    """All pairs of coordinates that elements have on two axes, each pair once."""
    # Runs of elements shorter than both inner sizes have equal coordinates (one of each is enough), and beyond both
    # periods all repeats.
    elements = np.arange(0, lcm(a.period, b.period), gcd(a.inner, b.inner), dtype=np.int64)
    at_a, at_b = a.at(elements), b.at(elements)
    if _nested(a, b) and max(a.inner, b.inner) <= min(a.period, b.period):
        return at_a, at_b  # every element has a pair of its own
    # Not np.unique, whose hashing is ten times slower on what is nearly sorted.
    codes = np.sort(at_a * b.extent + at_b)
    at_a, at_b = np.divmod(codes[np.diff(codes, prepend=-1) > 0], b.extent)
    return at_a, at_b


def components(a: Counter, b: Counter) -> int:
    """Into how many components the positions of two axes fall when those with a common element are joined."""
    if _nested(a, b):
        # Both coordinates are made of digits, and positions are joined that agree on the digits which both have.
        return max(1, min(a.period, b.period) // max(a.inner, b.inner))
    return component_count(*pairs(a, b), a.extent, b.extent)


def _nested(a: Counter, b: Counter) -> bool:
    """Whether both axes are digits, or runs of digits, of one number system."""
    steps = sorted((a.inner, b.inner, a.period, b.period))
    return all(larger % smaller == 0 for smaller, larger in pairwise(steps))
