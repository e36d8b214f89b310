"""Running passes in sequence, and checking each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from itertools import chain, repeat
from pathlib import Path

from onnx import checker

from onnxprune.errors import PassError, VerificationError
from onnxprune.ir.comparing import compare
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.session import Arrays, Session, random_inputs
from onnxprune.ir.shapes import infer_shapes
from onnxprune.passes.base import Pass, PassResult

_TOLERANCE = 3e-5
"""Largest difference that passes for rounding, as a share of the spread of the output."""
_SEED = 0


Watch = Callable[[Pass, Model], AbstractContextManager[Callable[[PassResult], None]]]
"""What looks on while passes run."""


def _ignored(result: PassResult) -> None:
    """Nobody is told of a result."""


class Check(Enum):
    """What is checked after every pass; each level includes those before it."""

    NONE = "none"
    STRUCTURE = "structure"
    RUNTIME = "runtime"
    EQUALITY = "equality"


@dataclass(frozen=True)
class PassManager(Pass):
    """Run passes in order; a pass itself.

    Attributes:
        steps: the passes.
        check: what to check after every pass that changed something: nothing; ``onnx.checker``; a load and
            run in onnxruntime; that outputs stay equal where the pass claims it.
        input_shapes: shapes of graph inputs for running; see ``infer_shapes`` for those not given.
        rounds: how often to run all of them at most. One pass can make work for an earlier one: they go on until
            none finds anything to do in the work of the others.
        watch: gives a context for every pass, by the pass and the model that it gets; is told the result.
    """

    name = "sequence"

    steps: Sequence[Pass]
    check: Check = Check.NONE
    input_shapes: Mapping[str, Sequence[int]] | None = None
    rounds: int = 1
    watch: Watch | None = None

    def run(self, model: ModelLike) -> PassResult:
        """Run all passes on a Model, or on anything that ``load`` takes.

        Raises:
            PassError: a condition or a check does not hold; the message names the pass.
        """
        model = as_model(model)
        modified = False
        inputs = self._inputs(model)
        outputs = self._examine(model, "the model given", inputs) if self.check is Check.EQUALITY else None
        done = 0  # so many passes, the last ones, have nothing to do in the model as it is
        for step in chain.from_iterable(repeat(self.steps, self.rounds)):
            with self.watch(step, model) if self.watch is not None else nullcontext(_ignored) as told:
                result = _run(step, model)
                told(result)
            done = 1 if result.modified else done + 1
            if result.modified:
                modified, model = True, result.model
                new_outputs = self._examine(model, f"the result of pass {step.name}", inputs)
                if step.claims_equality and outputs is not None:
                    _compare(outputs, new_outputs, step.name)
                outputs = new_outputs
            if done == len(self.steps):
                break
        return PassResult(model, modified)

    def _examine(self, model: Model, what: str, inputs: Arrays) -> Arrays:
        """Check one model as deeply as asked; returns its outputs for seeded inputs if it was run."""
        if self.check is Check.NONE:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            model.save(path)
            try:
                checker.check_model(str(path))
            except (checker.ValidationError, ValueError) as error:
                raise PassError(f"onnx.checker refuses {what}: {error}") from error
        if self.check is Check.STRUCTURE:
            return {}
        try:
            # Optimisation reorders sums; as written, equal graphs give equal bits.
            return Session(model, what, threads=1, literal=True).run(inputs)
        except VerificationError as error:
            raise PassError(str(error)) from error

    def _inputs(self, model: Model) -> Arrays:
        """Seeded values for the graph inputs, if models are to be run."""
        if self.check in (Check.NONE, Check.STRUCTURE):
            return {}
        return random_inputs(model, infer_shapes(model, self.input_shapes).binding, _SEED)


def _run(step: Pass, model: Model) -> PassResult:
    """Run one pass; its errors bear its name, as those of a sequence do already."""
    try:
        return step(model)
    except PassError as error:
        if isinstance(step, PassManager):
            raise
        raise PassError(f"pass {step.name}: {error}") from error


def _compare(before: Arrays, after: Arrays, name: str) -> None:
    """Compare outputs by name, as certificates do.

    Raises:
        PassError: an output is missing, or of another shape or type, or differs by more than rounding.
    """
    for output, expected in before.items():
        if output not in after:
            raise PassError(f"pass {name} claims equality but lost output {output!r}")
        found = compare(output, name, expected, after[output], None, _TOLERANCE)
        if not found.passed:
            how = found.reason or f"differs by {found.absolute:.3g} ({found.relative:.1e} of its spread)"
            raise PassError(f"pass {name} claims equality but output {output!r} {how}")
