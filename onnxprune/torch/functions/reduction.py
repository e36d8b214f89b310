"""Reductions over some or all dimensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

Tensor = torch.Tensor
Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]


def reduce(x: Tensor, axes: Sequence[int] | int | None, keep: bool, kind: str, none_is_all: bool) -> Tensor:
    """A reduction over the axes; over all of them, or none, where none is given."""
    chosen = () if axes is None else ((axes,) if isinstance(axes, int) else tuple(axes))
    if not chosen:
        if not none_is_all:
            # Nothing to sum over, but what is done to each value is done.
            return _KINDS[kind](x.unsqueeze(-1), (-1,), False) if kind in _CHANGING else x
        chosen = tuple(range(x.dim()))
    if x.dim() == 0:
        return _KINDS[kind](x.unsqueeze(0), (0,), False)
    whole = not x.is_floating_point() and kind in _FLOATING
    result = _KINDS[kind](x.double() if whole else x, chosen, keep)
    return result.to(x.dtype)


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.mean(axes, keepdim=keep)


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _largest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.amax(axes, keepdim=keep) if x.numel() else _of_nothing(x, axes, keep, largest=True)


def _smallest(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.amin(axes, keepdim=keep) if x.numel() else _of_nothing(x, axes, keep, largest=False)


def _of_nothing(x: Tensor, axes: tuple[int, ...], keep: bool, largest: bool) -> Tensor:
    """The extreme of no values: what no value can be beyond."""
    shape = x.sum(axes, keepdim=keep).shape
    if x.dtype == torch.bool:
        return x.new_full(shape, not largest)
    if x.is_floating_point():
        return x.new_full(shape, float("-inf") if largest else float("inf"))
    limits = torch.iinfo(x.dtype)
    return x.new_full(shape, limits.min if largest else limits.max)


def _l1(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.abs().sum(axes, keepdim=keep, dtype=x.dtype)


def _l2(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim=keep)
    return norm


def _sum_square(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.square().sum(axes, keepdim=keep, dtype=x.dtype)


def _log_sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep).log()


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.logsumexp(axes, keepdim=keep)


_KINDS: dict[str, Reduce] = {
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _largest,
    "ReduceMean": _mean,
    "ReduceMin": _smallest,
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": _sum_square,
}
KINDS = tuple(_KINDS)
"""The operators that :func:`reduce` knows."""
_CHANGING = frozenset({"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceSumSquare"})
_FLOATING = frozenset({"ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"})


def arg_extreme(x: Tensor, axis: int, keep: bool, last: bool, largest: bool) -> Tensor:
    """Where the largest or smallest value is along an axis: the first such place, or the last."""
    source = x.flip(axis) if last else x
    place = source.argmax(axis, keepdim=keep) if largest else source.argmin(axis, keepdim=keep)
    return x.shape[axis] - 1 - place if last else place
