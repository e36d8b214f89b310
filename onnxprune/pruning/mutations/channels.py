"""Faults along channels: exchanged, zeroed, dropped, taken from the wrong place or not taken along."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from onnxprune.ops.relations import IntArray
from onnxprune.pruning.mutations.subject import MISS, Array, Draw, Kind, Subject, Use


def swapped(array: Array, dim: int, a: int, b: int) -> Array:
    order = np.arange(array.shape[dim])
    order[[a, b]] = b, a
    swapped: Array = array.take(order, axis=dim)
    return swapped


def _zeroed(array: Array, dim: int, at: int) -> Array:
    changed: Array = array.copy()
    changed[(slice(None),) * dim + (at,)] = 0
    return changed


def swap(kind: Kind, *, producer: bool, subject: Subject, rng: np.random.Generator) -> Draw:
    use = subject.choose(subject.filters if producer else subject.inputs, rng)
    if use is None:
        return None
    dims = [dim for dim in subject.dims(use) if subject.makes(use.tensor, dim) is producer]
    dim = int(rng.choice(dims))
    a, b = sorted(rng.choice(subject.array(use).shape[dim], 2, replace=False).tolist())
    return subject.mutation(kind, use, "exchanged", partial(swapped, dim=dim, a=a, b=b), dim, (a, b))


def zero(subject: Subject, rng: np.random.Generator) -> Draw:
    use = subject.choose(subject.channels, rng)
    if use is None:
        return None
    dim = int(rng.choice(subject.dims(use)))
    at = int(rng.integers(subject.array(use).shape[dim]))
    return subject.mutation(Kind.ZEROED_CHANNEL, use, "set to zero", partial(_zeroed, dim=dim, at=at), dim, (at,))


_BIAS = {("Conv", 2), ("ConvTranspose", 2), ("Gemm", 2), ("QLinearConv", 8), ("BatchNormalization", 2)}
_BIAS |= {("LayerNormalization", 2), ("InstanceNormalization", 2), ("GroupNormalization", 2)}


def drop_bias(subject: Subject, rng: np.random.Generator) -> Draw:
    def is_bias(use: Use) -> bool:
        op_type, extents = subject.nodes[use.node].op_type, subject.model.weights[use.tensor].shape
        vector = sum(extent > 1 for extent in extents) == 1
        return (op_type, use.place) in _BIAS or (op_type in ("Add", "Sub") and vector and subject.holds_values(use))

    use = subject.choose([use for use in subject.uses if is_bias(use)], rng)
    if use is None:
        return None
    flat = subject.array(use).ravel()
    if rng.random() < 0.5 or len(flat) < 2:
        return subject.mutation(Kind.DROPPED_BIAS, use, "all set to zero", np.zeros_like)
    at = int(rng.integers(len(flat)))
    return subject.mutation(Kind.DROPPED_BIAS, use, "an entry set to zero", partial(_cleared, at=at), None, (at,))


def _cleared(array: Array, at: int) -> Array:
    changed: Array = array.copy()
    changed.reshape(-1)[at] = 0
    return changed


# ---------------------------------------------------------------- slices


def _taken(_: Array, original: Array, kept: Mapping[int, IntArray]) -> Array:
    """The slice of the original at these positions."""
    for dim, positions in kept.items():
        original = original.take(positions, axis=dim)
    return original


def shift_slice(subject: Subject, rng: np.random.Generator) -> Draw:
    """Kept positions moved by one, from some position on, as an index that is counted wrongly does."""
    candidates = [use for use in subject.uses if use.tensor in subject.plan.removed]
    if not candidates:
        return None
    use = candidates[int(rng.integers(len(candidates)))]
    kept = subject.kept(use.tensor)
    if kept is None:
        return MISS
    dim = int(rng.choice(list(kept)))
    extent = subject.original(use.tensor).shape[dim]
    start, step = int(rng.integers(len(kept[dim]))), int(rng.choice([-1, 1]))
    if rng.random() < 0.5:
        start = 0
    moved = kept[dim].copy()
    moved[start:] = np.clip(moved[start:] + step, 0, extent - 1)
    edit = partial(_taken, original=subject.original(use.tensor), kept={**kept, dim: moved})
    return subject.mutation(Kind.SHIFTED_SLICE, use, f"positions from {start} on taken {step:+d}", edit, dim, (start,))


def stale(kind: Kind, *, quantised: bool, subject: Subject, rng: np.random.Generator) -> Draw:
    """A vector that did not follow: the first positions of the original, or others that are not the kept ones."""

    def is_one(use: Use) -> bool:
        shape, op_type = subject.model.weights[use.tensor].shape, subject.nodes[use.node].op_type
        if sum(extent > 1 for extent in shape) != 1 or use.place == 0 or use.tensor not in subject.plan.removed:
            return False
        return subject.quantised(use) if quantised else op_type.endswith("Normalization") or op_type in ("Mul", "Add")

    candidates = [use for use in subject.uses if is_one(use)]
    if not candidates:
        return None
    use = candidates[int(rng.integers(len(candidates)))]
    kept = subject.kept(use.tensor)
    if kept is None:
        return MISS
    (dim,) = kept
    extent, count = subject.original(use.tensor).shape[dim], len(kept[dim])
    first = rng.random() < 0.5
    wrong = np.arange(count) if first else np.sort(rng.choice(extent, count, replace=False))
    what = "the original's first" if first else "the original's at other positions"
    edit = partial(_taken, original=subject.original(use.tensor), kept={dim: wrong})
    return subject.mutation(kind, use, what, edit, dim, wrong.tolist())


def wrong_group(subject: Subject, rng: np.random.Generator) -> Draw:
    """The filters of two groups of a convolution exchanged."""

    def groups(use: Use) -> int:
        return next((a.i for a in subject.nodes[use.node].attribute if a.name == "group"), 1)

    def is_one(use: Use) -> bool:
        return len(subject.model.weights[use.tensor].shape) > 2 and groups(use) > 1

    use = subject.choose([use for use in subject.uses if is_one(use)], rng)
    if use is None:
        return None
    count = groups(use)
    a, b = sorted(rng.choice(count, 2, replace=False).tolist())
    edit = partial(_swapped_blocks, count=count, a=a, b=b)
    return subject.mutation(Kind.WRONG_GROUP, use, f"groups exchanged, of {count}", edit, 0, (a, b))


def _swapped_blocks(array: Array, count: int, a: int, b: int) -> Array:
    return swapped(array.reshape(count, -1, *array.shape[1:]), 0, a, b).reshape(array.shape)
