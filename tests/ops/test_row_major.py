"""Pairs of coordinates on both sides of a Reshape, against counting all elements."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from onnxprune.ops.relations import component_count
from onnxprune.ops.row_major import components, counter, pairs

SHAPES = [
    ((4, 6), (2, 12)),
    ((2, 3, 4), (6, 4)),
    ((12, 5, 5), (3, 100)),
    ((2, 8, 3), (4, 4, 3)),
    ((6, 4), (4, 6)),
    ((10, 9), (6, 15)),
    ((2, 3, 5, 4), (5, 24)),
]


@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_pairs_and_components_are_those_of_all_elements(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    elements = np.arange(np.prod(before))
    ins, outs = np.unravel_index(elements, before), np.unravel_index(elements, after)
    for i, o in product(range(len(before)), range(len(after))):
        a, b = counter(before, i), counter(after, o)
        at_a, at_b = pairs(a, b)
        found = list(zip(at_a.tolist(), at_b.tolist(), strict=True))
        assert len(found) == len(set(found))
        assert set(found) == set(zip(ins[i].tolist(), outs[o].tolist(), strict=True))
        assert components(a, b) == component_count(ins[i], outs[o], before[i], after[o])
