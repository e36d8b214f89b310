"""Faults along channels: exchanged, zeroed, dropped, taken from the wrong place or not taken along."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from onnxprune.ops.relations import IntArray
from onnxprune.pruning.mutations.specimen import MISS, Array, Draw, Kind, Specimen, Use


def swapped(array: Array, dim: int, a: int, b: int) -> Array:
    order = np.arange(array.shape[dim])
    order[[a, b]] = b, a
    swapped: Array = array.take(order, axis=dim)
    return swapped


def _zeroed(array: Array, dim: int, at: int) -> Array:
    changed: Array = array.copy()
    changed[(slice(None),) * dim + (at,)] = 0
    return changed


def swap(kind: Kind, *, producer: bool, specimen: Specimen, rng: np.random.Generator) -> Draw:
    use = specimen.choose(specimen.filters if producer else specimen.inputs, rng)
    if use is None:
        return None
    dims = [dim for dim in specimen.dims(use) if specimen.makes(use.tensor, dim) is producer]
    dim = int(rng.choice(dims))
    a, b = sorted(rng.choice(specimen.array(use).shape[dim], 2, replace=False).tolist())
    return specimen.mutation(kind, use, "exchanged", partial(swapped, dim=dim, a=a, b=b), dim, (a, b))


def zero(specimen: Specimen, rng: np.random.Generator) -> Draw:
    use = specimen.choose(specimen.channels, rng)
    if use is None:
        return None
    dim = int(rng.choice(specimen.dims(use)))
    at = int(rng.integers(specimen.array(use).shape[dim]))
    return specimen.mutation(Kind.ZEROED_CHANNEL, use, "set to zero", partial(_zeroed, dim=dim, at=at), dim, (at,))


_BIAS = {("Conv", 2), ("ConvTranspose", 2), ("Gemm", 2), ("QLinearConv", 8), ("BatchNormalization", 2)}
_BIAS |= {("LayerNormalization", 2), ("InstanceNormalization", 2), ("GroupNormalization", 2)}


def drop_bias(specimen: Specimen, rng: np.random.Generator) -> Draw:
    def is_bias(use: Use) -> bool:
        op_type, extents = specimen.nodes[use.node].op_type, specimen.model.weights[use.tensor].shape
        vector = sum(extent > 1 for extent in extents) == 1
        return (op_type, use.place) in _BIAS or (op_type in ("Add", "Sub") and vector and specimen.holds_values(use))

    use = specimen.choose([use for use in specimen.uses if is_bias(use)], rng)
    if use is None:
        return None
    flat = specimen.array(use).ravel()
    if rng.random() < 0.5 or len(flat) < 2:
        return specimen.mutation(Kind.DROPPED_BIAS, use, "all set to zero", np.zeros_like)
    at = int(rng.integers(len(flat)))
    return specimen.mutation(Kind.DROPPED_BIAS, use, "an entry set to zero", partial(_cleared, at=at), None, (at,))


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


def shift_slice(specimen: Specimen, rng: np.random.Generator) -> Draw:
    """Kept positions moved by one, from some position on, as an index that is counted wrongly does."""
    candidates = [use for use in specimen.uses if use.tensor in specimen.plan.removed]
    if not candidates:
        return None
    use = candidates[int(rng.integers(len(candidates)))]
    kept = specimen.kept(use.tensor)
    if kept is None:
        return MISS
    dim = int(rng.choice(list(kept)))
    extent = specimen.original(use.tensor).shape[dim]
    start, step = int(rng.integers(len(kept[dim]))), int(rng.choice([-1, 1]))
    if rng.random() < 0.5:
        start = 0
    moved = kept[dim].copy()
    moved[start:] = np.clip(moved[start:] + step, 0, extent - 1)
    edit = partial(_taken, original=specimen.original(use.tensor), kept={**kept, dim: moved})
    return specimen.mutation(Kind.SHIFTED_SLICE, use, f"positions from {start} on taken {step:+d}", edit, dim, (start,))


def stale(kind: Kind, *, quantised: bool, specimen: Specimen, rng: np.random.Generator) -> Draw:
    """A vector that did not follow: the first positions of the original, or others that are not the kept ones."""

    def is_one(use: Use) -> bool:
        shape, op_type = specimen.model.weights[use.tensor].shape, specimen.nodes[use.node].op_type
        if sum(extent > 1 for extent in shape) != 1 or use.place == 0 or use.tensor not in specimen.plan.removed:
            return False
        return specimen.quantised(use) if quantised else op_type.endswith("Normalization") or op_type in ("Mul", "Add")

    candidates = [use for use in specimen.uses if is_one(use)]
    if not candidates:
        return None
    use = candidates[int(rng.integers(len(candidates)))]
    kept = specimen.kept(use.tensor)
    if kept is None:
        return MISS
    (dim,) = kept
    extent, count = specimen.original(use.tensor).shape[dim], len(kept[dim])
    first = rng.random() < 0.5
    wrong = np.arange(count) if first else np.sort(rng.choice(extent, count, replace=False))
    what = "the original's first" if first else "the original's at other positions"
    edit = partial(_taken, original=specimen.original(use.tensor), kept={dim: wrong})
    return specimen.mutation(kind, use, what, edit, dim, wrong.tolist())


def wrong_group(specimen: Specimen, rng: np.random.Generator) -> Draw:
    """The filters of two groups of a convolution exchanged."""

    def groups(use: Use) -> int:
        return next((a.i for a in specimen.nodes[use.node].attribute if a.name == "group"), 1)

    def is_one(use: Use) -> bool:
        return len(specimen.model.weights[use.tensor].shape) > 2 and groups(use) > 1

    use = specimen.choose([use for use in specimen.uses if is_one(use)], rng)
    if use is None:
        return None
    count = groups(use)
    a, b = sorted(rng.choice(count, 2, replace=False).tolist())
    edit = partial(_swapped_blocks, count=count, a=a, b=b)
    return specimen.mutation(Kind.WRONG_GROUP, use, f"groups exchanged, of {count}", edit, 0, (a, b))


def _swapped_blocks(array: Array, count: int, a: int, b: int) -> Array:
    return swapped(array.reshape(count, -1, *array.shape[1:]), 0, a, b).reshape(array.shape)
