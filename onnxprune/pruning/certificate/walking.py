"""Running the reference stretch by stretch, so that no more tensors are in memory at once than asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from onnxprune.errors import VerificationError
from onnxprune.pruning.certificate.execution import Values, run_steps
from onnxprune.pruning.certificate.flat import FlatModel, Step

_COPIES = 4
"""A value, what the masked original and the pruned model make in its place, and room for their difference."""


class DoesNotRunError(VerificationError):
    """onnxruntime refuses the reference itself."""


class Walk:
    """One run of a model. ``values`` holds the tensors that somebody needs later on."""

    def __init__(
        self,
        flat: FlatModel,
        inputs: Mapping[str, Any],
        sizes: Mapping[str, int],
        last_use: Mapping[str, int],
        memory: int,
        what: str,
    ) -> None:
        """``sizes`` are bytes by tensor, ``last_use`` the last step for which somebody else needs a tensor."""
        self.values: Values = dict(inputs)
        self._flat = flat
        self._sizes = sizes
        self._memory = memory // _COPIES
        self._what = what
        self._asked = last_use
        self._last = dict(last_use)
        for index, step in enumerate(flat.steps):
            for name in (*step.reads, *(condition for condition, _ in step.guards)):
                self._last[name] = max(self._last.get(name, -1), index)

    def alive(self, step: Step) -> bool:
        """Whether a step runs: its conditions are known and hold."""
        return all(self._condition(name) is wanted for name, wanted in step.guards)

    def stretches(self) -> Iterator[list[str]]:
        """Run, and yield after every stretch the tensors that it made, which are in ``values`` until the next one."""
        begin = 0
        while begin < len(self._flat.steps):
            end = self._end(begin)
            steps = [i for i in range(begin, end) if self.alive(self._flat.steps[i])]
            made = [
                name
                for i in steps
                for name in self._flat.steps[i].makes
                if name in self._asked or self._last.get(name, -1) >= end
            ]
            try:
                self.values.update(run_steps(self._flat, steps, made, self.values, self._what))
            except VerificationError as error:
                raise DoesNotRunError(str(error)) from error
            yield made
            for name in [name for name in self.values if self._last.get(name, -1) < end]:
                del self.values[name]
            begin = end

    def _end(self, begin: int) -> int:
        """Where the stretch ends: before a body of its own, an unknown condition, or when memory is used up."""
        steps, size = self._flat.steps, 0
        made: set[str] = set()
        for index in range(begin, len(steps)):
            step = steps[index]
            if step.opaque and index > begin:
                return index
            if any(condition in made for condition, _ in step.guards):
                return index
            size += sum(self._sizes.get(name, 0) for name in step.makes)
            if size > self._memory and index > begin:
                return index
            made.update(step.makes)
            if step.opaque:
                return index + 1
        return len(steps)

    def _condition(self, name: str) -> bool | None:
        if name in self.values:
            return bool(np.asarray(self.values[name]).reshape(-1)[0])
        weight = self._flat.weights.get(name)
        return None if weight is None else bool(weight.array.reshape(-1)[0])
