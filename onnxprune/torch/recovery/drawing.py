"""What the pupil learns from, step by step: batches of an endless shuffle, each seen more than once.

What the teacher says about a batch, and all that comes before the first step of learning, costs as much as the step. So
each batch serves three times: some batches are made one by one, and then come again, and again, in other orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from onnxprune.data.augmenting import augmented
from onnxprune.data.samples import Samples

Batch = tuple[dict[str, Tensor], list[Tensor]]

#: The share of samples that are seen as they are: it is as such that the model will be asked.
_PLAIN = 0.25
#: How often each batch is learnt from.
_TIMES = 3
#: Batches of a round at most, and the bytes that they may take; with fewer than this each is seen once.
_ROUND, _MEMORY, _FEWEST = 16, 1 << 28, 4


class Draws:
    """The batches of a recovery; ``prepare`` makes one of samples: what the module takes, and what it should give.

    The same seed gives the same batches; so does :meth:`go_on` from where another one stood.
    """

    def __init__(
        self,
        samples: Samples,
        size: int,
        augment: frozenset[str],
        seed: int,
        prepare: Callable[[Mapping[str, NDArray[Any]]], Batch],
    ) -> None:
        self._samples, self._size, self._augment, self._prepare = samples, min(size, len(samples)), augment, prepare
        self._rng = np.random.default_rng(seed)
        self._order: list[int] = []
        self._made: list[Batch] = []
        self._again: list[int] = []
        self._turn, self._round = 0, _ROUND
        self._begun: tuple[Mapping[str, Any], list[int]] = (self._rng.bit_generator.state, [])

    def next(self) -> Batch:
        """The next batch."""
        if not self._again and len(self._made) >= self._round:
            self._made, self._turn = [], 0
        if not self._made:
            self._begun = (self._rng.bit_generator.state, list(self._order))
        self._turn += 1
        if self._again:
            return self._made[self._again.pop()]
        made = self._prepare(self._drawn())
        self._made.append(made)
        if len(self._made) == 1:
            fitting = _MEMORY // max(sum(t.nbytes for t in (*made[0].values(), *made[1])), 1)
            self._round = min(fitting, _ROUND) if fitting >= _FEWEST else 1
        if len(self._made) == self._round > 1:
            self._again = np.concatenate([self._rng.permutation(self._round) for _ in range(_TIMES - 1)]).tolist()
        return made

    def stands(self) -> tuple[Mapping[str, Any], list[int], int]:
        """The generator and the order as the round began, and how many of its batches were given."""
        return *self._begun, self._turn

    def go_on(self, rng: Mapping[str, Any], order: list[int], turn: int) -> None:
        """Be where another one stood."""
        self._rng.bit_generator.state = rng
        self._order, self._made, self._again, self._turn = list(order), [], [], 0
        for _ in range(turn):
            self.next()

    def _drawn(self) -> dict[str, NDArray[Any]]:
        """The next samples of an endless shuffle, augmented."""
        if len(self._order) < self._size:
            self._order += self._rng.permutation(len(self._samples)).tolist()
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        found = {name: np.ascontiguousarray(array[chosen]) for name, array in self._samples.inputs.items()}
        if len(found) == 1:
            # Several inputs may belong together: what is done to one would have to be done to all.
            plain = self._rng.random(self._size) < _PLAIN
            for x in found.values():
                x[~plain] = augmented(x, self._augment, self._rng)[~plain]
        return found
