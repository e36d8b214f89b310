"""The algebra of linear layers: what one convolution after another, or beside another, is as a single one.

All of it is exact but for rounding, and all values are computed in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
_ALL: tuple[slice, ...] = (slice(None),) * 3
"""All groups, filters and channels."""


@dataclass(frozen=True)
class Kernel:
    """A convolution over any number of dimensions; over none it is a matrix.

    Attributes:
        weight: [groups, filters of each, channels of each, k1, …].
        bias: [groups · filters].
        strides, dilations: one for each dimension of the window.
        pads: zeros before and behind, for each dimension.
    """

    weight: FloatArray
    bias: FloatArray
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    @property
    def groups(self) -> int:
        """How many parts of the channels are computed apart."""
        return int(self.weight.shape[0])

    @property
    def channels(self) -> int:
        """Those of the input."""
        return int(self.weight.shape[0] * self.weight.shape[2])

    @property
    def filters(self) -> int:
        """Channels of the output."""
        return int(self.weight.shape[0] * self.weight.shape[1])

    @property
    def window(self) -> tuple[int, ...]:
        """Extents of the window."""
        return self.weight.shape[3:]

    @property
    def per_position(self) -> int:
        """Products for each position of the output."""
        return self.weight.size

    def in_groups(self, groups: int) -> Kernel:
        """The same, in fewer groups, with zeros for what was not connected; ``groups`` divides those there are."""
        joined = self.groups // groups
        if joined == 1:
            return self
        filters, channels = self.weight.shape[1:3]
        split = self.weight.reshape(groups, joined, filters, channels, *self.window)
        wide = np.zeros((groups, joined, filters, joined, channels, *self.window))
        for at in range(joined):
            wide[:, at, :, at] = split[:, at]
        return replace(self, weight=wide.reshape(groups, joined * filters, joined * channels, *self.window))


def scaling(scale: FloatArray, shift: FloatArray, rank: int) -> Kernel:
    """A factor and a shift for each channel [C], as a depthwise convolution over so many dimensions."""
    ones = (1,) * rank
    return Kernel(scale.reshape(-1, 1, 1, *ones), shift, ones, ones, ((0, 0),) * rank)


def in_series(first: Kernel, second: Kernel) -> Kernel | None:
    """What computes ``second`` of ``first``; None where no single layer does.

    What ``second`` pads is zero, and has to be what ``first`` makes of zeros: so either nothing is padded, or ``first``
    looks at single positions, pads nothing and has no bias.
    """
    padded = any(map(any, second.pads))
    if padded and (math.prod(first.window) > 1 or any(map(any, first.pads)) or first.bias.any()):
        return None
    steps, spans = [], []
    for d, (k1, k2) in enumerate(zip(first.window, second.window, strict=True)):
        near, far = first.dilations[d], first.strides[d] * second.dilations[d]
        steps.append(math.gcd(near if k1 > 1 else 0, far if k2 > 1 else 0) or 1)
        spans.append(((k1 - 1) * near + (k2 - 1) * far) // steps[-1] + 1)
    groups = math.gcd(first.groups, second.groups)
    a, b = first.in_groups(groups), second.in_groups(groups)
    weight = np.zeros((groups, b.weight.shape[1], a.weight.shape[2], *spans))
    for late in np.ndindex(*b.window):
        for early in np.ndindex(*a.window):
            at = tuple(
                (i * a.dilations[d] + j * a.strides[d] * b.dilations[d]) // steps[d]
                for d, (i, j) in enumerate(zip(early, late, strict=True))
            )
            weight[_ALL + at] += b.weight[_ALL + late] @ a.weight[_ALL + early]
    inner = a.bias.reshape(groups, -1, 1)
    over = tuple(range(3, b.weight.ndim))
    bias = b.bias + (b.weight.sum(axis=over) @ inner).reshape(-1)
    strides = tuple(s * t for s, t in zip(a.strides, b.strides, strict=True))
    # floor((floor(e / s) + c) / t) is floor((e + s · c) / (s · t)): so what the second pads counts stride-fold.
    pads = tuple((p + s * q, r + s * u) for (p, r), (q, u), s in zip(a.pads, b.pads, a.strides, strict=True))
    return Kernel(weight, bias, strides, tuple(steps), pads)


def in_parallel(first: Kernel, second: Kernel) -> Kernel | None:
    """What computes the sum of both from the same input; None where no single layer does.

    They need the same strides, and as many positions whatever the input's extents; a window of one has any dilation.
    """
    if (first.channels, first.filters, first.strides) != (second.channels, second.filters, second.strides):
        return None
    extents, starts, pads, steps = [], [], [], []
    for d, windows in enumerate(zip(first.window, second.window, strict=True)):
        both = first, second
        known = {one.dilations[d] for one, k in zip(both, windows, strict=True) if k > 1}
        if len(known) > 1:
            return None
        step = known.pop() if known else 1
        ends = [step * (k - 1) - one.pads[d][0] for one, k in zip(both, windows, strict=True)]
        loose = {sum(one.pads[d]) - step * (k - 1) for one, k in zip(both, windows, strict=True)}
        before = max(one.pads[d][0] for one in both)
        if len(loose) > 1 or any((before - one.pads[d][0]) % step for one in both):
            return None
        span = max(ends) + before
        steps.append(step)
        extents.append(span // step + 1)
        starts.append([(before - one.pads[d][0]) // step for one in both])
        pads.append((before, loose.pop() + span - before))
    groups = math.gcd(first.groups, second.groups)
    weight: FloatArray | None = None
    for number, one in enumerate((first.in_groups(groups), second.in_groups(groups))):
        if weight is None:
            weight = np.zeros((*one.weight.shape[:3], *extents))
        at = tuple(slice(s[number], s[number] + k) for s, k in zip(starts, one.window, strict=True))
        weight[_ALL + at] += one.weight
    assert weight is not None
    return Kernel(weight, first.bias + second.bias, first.strides, tuple(steps), tuple(pads))


def identity(like: Kernel) -> Kernel:
    """What gives the input of another layer, as a layer of the same dimensions."""
    if like.window:
        return scaling(np.ones(like.channels), np.zeros(like.channels), len(like.window))
    return Kernel(np.eye(like.channels)[None], np.zeros(like.channels), (), (), ())


def macs(kernel: Kernel, made: Sequence[int]) -> int:
    """Products for an output of these extents, whose channels are those of the layer."""
    return math.prod(made) // kernel.filters * kernel.per_position
