"""At which widths layers are measured."""

from __future__ import annotations

from itertools import product

from onnxprune.latency.layers import Widths

#: Besides the unpruned one, each role is measured at this share of its channels: at counts of whole blocks, the time
#: of a convolution is a + b·n + c·m + d·n·m in its channels n and m, which four points determine.
_FRACTIONS = (1 / 4,)
#: Multiples of channels that are tried; the number of lanes of vector units are powers of two.
MULTIPLES = (1, 2, 4, 8, 16, 32)


def typical(wanted: float, full: int, multiple: int) -> int:
    """A width near ``wanted`` such as rounding to ``multiple`` gives: a multiple of it, but of no larger power of two.

    So a profile does not promise for all widths what only rounder ones keep. ``full`` where there is none.
    """
    step = 2 * multiple
    candidates = range(multiple, full, step)
    return min(candidates, key=lambda width: abs(width - wanted)) if candidates else full


def knots(full: int, multiple: int) -> tuple[int, ...]:
    """The widths at which one role is measured, ascending, the last unpruned."""
    return tuple(sorted({full, *(typical(fraction * full, full, multiple) for fraction in _FRACTIONS)}))


def points(axes: tuple[tuple[int, ...], ...]) -> list[Widths]:
    """All combinations of the widths of the roles."""
    return list(product(*axes))
