"""How far one tensor is from what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEWEST = 8
"""Elements of a channel below which its spread says little, and that of the whole tensor is taken."""

_ROUNDING = 8
"""How many units in the last place of a channel's largest value are rounding."""

_MOST_NAMED = 8

_SQUARES_OVERFLOW = 1e15
"""From here on, sums of squares of single-precision numbers may overflow."""


@dataclass(frozen=True)
class Scales:
    """What differences of a tensor are measured by, per channel: its spread, and how coarsely it is represented."""

    spread: NDArray[np.float64]
    grain: NDArray[np.float64]

    def allowed(self, tolerance: float) -> NDArray[np.float64]:
        """The largest difference, per channel, that is no difference."""
        allowed: NDArray[np.float64] = tolerance * self.spread + self.grain
        return allowed


@dataclass(frozen=True)
class TensorDifference:
    """How far one tensor of a model is from that of its reference (of a pruned one from the masked original).

    ``absolute`` is the largest difference; ``relative`` the largest over the spread (the standard deviation) of its
    channel, to which is added what the element type cannot represent. ``positions`` are those of the channels,
    counted in the pruned model, that differ by more than the tolerance (at most eight), and ``reason`` says where
    numbers cannot: another shape or type.
    """

    name: str
    node: str
    absolute: float
    relative: float
    passed: bool
    positions: tuple[int, ...] = ()
    reason: str = ""

    def __str__(self) -> str:
        """Where, and how much."""
        where = f"tensor '{self.name}' of node '{self.node}'"
        if self.reason:
            return f"{where} {self.reason}"
        at = f" at position{'s' if len(self.positions) > 1 else ''} {', '.join(map(str, self.positions))}"
        return f"{where} is off by {self.relative:.1e} of its spread{at if self.positions else ''}"


def scales(array: NDArray[Any], dim: int | None) -> Scales:
    """Spread and grain per position of ``dim`` (None: of the tensor as a whole)."""
    values = _as_float(array)
    others = None if dim is None else tuple(d for d in range(values.ndim) if d != dim)
    count = values.size if dim is None else values.size // max(values.shape[dim], 1)
    finite = values if np.isfinite(values).all() else np.where(np.isfinite(values), values, 0)
    largest = np.atleast_1d(np.abs(finite).max(axis=others, initial=0.0)).astype(np.float64)
    # In units of the largest, where squares would overflow: of an infinite spread, any difference is a small part.
    unit = largest.max(initial=0.0) if largest.max(initial=0.0) > _SQUARES_OVERFLOW else 1.0
    if count >= _FEWEST:
        spread = np.atleast_1d((finite / unit if unit > 1 else finite).std(axis=others)).astype(np.float64) * unit
    else:
        spread = np.full_like(largest, float((finite / unit).std()) * unit if finite.size else 0.0)
    eps = np.finfo(array.dtype).eps if array.dtype.kind == "f" else 0.0
    return Scales(spread, _ROUNDING * float(eps) * largest)


def compare(
    name: str, node: str, wanted: NDArray[Any], found: NDArray[Any], dim: int | None, tolerance: float
) -> TensorDifference:
    """Compare one tensor with what it should be, channel by channel along ``dim``."""
    wanted, found = np.asarray(wanted), np.asarray(found)
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        reason = f"is {_kind(found)} and should be {_kind(wanted)}"
        return TensorDifference(name, node, float("inf"), float("inf"), passed=False, reason=reason)
    if wanted.dtype.kind not in "fiub" and wanted.dtype.name != "bfloat16":
        equal = bool(np.array_equal(wanted, found))
        far = 0.0 if equal else float("inf")
        return TensorDifference(name, node, far, far, passed=equal)
    if not wanted.size:
        return TensorDifference(name, node, 0.0, 0.0, passed=True)
    others = None if dim is None else tuple(d for d in range(wanted.ndim) if d != dim)
    if wanted.dtype.kind in "iub":
        wrong = np.atleast_1d((wanted != found).any(axis=others))
        absolute = float(np.abs(wanted.astype(np.float64) - found.astype(np.float64)).max())
        return _difference(name, node, absolute, float("inf") if wrong.any() else 0.0, wrong, dim)
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.abs(_as_float(wanted) - _as_float(found))
    odd = ~np.isfinite(gaps)
    if odd.any():
        # Infinities of one sign, and two values that are no numbers, are equal.
        gaps[odd] = np.where(_same(wanted[odd], found[odd]), 0.0, np.inf)
    gap = np.atleast_1d(gaps.max(axis=others)).astype(np.float64)
    if not gap.any():
        return TensorDifference(name, node, 0.0, 0.0, passed=True)
    measure = scales(wanted, dim)
    unit = measure.allowed(tolerance) / tolerance
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(gap > 0, gap / unit, 0.0)
    wrong = ~(relative <= tolerance)
    return _difference(name, node, float(gap.max()), float(relative.max()), wrong, dim)


def _difference(
    name: str, node: str, absolute: float, relative: float, wrong: NDArray[np.bool_], dim: int | None
) -> TensorDifference:
    positions = () if dim is None else tuple(np.flatnonzero(wrong)[:_MOST_NAMED].tolist())
    return TensorDifference(name, node, absolute, relative, passed=not wrong.any(), positions=positions)


def _same(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (a == b) | (np.isnan(a) & np.isnan(b))
    return same


def _as_float(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {'×'.join(map(str, array.shape)) or 'scalar'}"
