"""Running passes in sequence, and checking each."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from onnx import checker

from onnxprune.errors import PassError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.outputs import difference
from onnxprune.ir.session import Arrays, Session, random_inputs
from onnxprune.ir.shapes import infer_shapes
from onnxprune.passes.base import Pass, PassResult

_TOLERANCE = 1e-5
"""Largest difference that passes for rounding, as a share of the largest magnitude of the output."""
_SEED = 0


class Check(Enum):
    """What is checked after every pass; each level includes those before it."""

    NONE = "none"
    STRUCTURE = "structure"
    RUNTIME = "runtime"
    EQUALITY = "equality"


@dataclass(frozen=True)
class PassManager:
    """Runs passes in order.

    Attributes:
        passes: the passes.
        check: what to check after every pass that changed something: nothing; ``onnx.checker``; a load and
            run in onnxruntime; that outputs stay equal where the pass claims it.
        input_shapes: shapes of graph inputs for running; see ``infer_shapes`` for those not given.
    """

    passes: Sequence[Pass]
    check: Check = Check.NONE
    input_shapes: Mapping[str, Sequence[int]] | None = None

    def run(self, model: Model) -> PassResult:
        """Run all passes.

        Raises:
            PassError: a condition or a check does not hold; the message names the pass.
        """
        modified = False
        inputs = self._inputs(model)
        outputs = self._examine(model, "the model given", inputs) if self.check is Check.EQUALITY else None
        for step in self.passes:
            try:
                result = step(model)
            except PassError as error:
                raise PassError(f"pass {step.name}: {error}") from error
            if not result.modified:
                continue
            modified, model = True, result.model
            new_outputs = self._examine(model, f"the result of pass {step.name}", inputs)
            if step.claims_equality and outputs is not None:
                _compare(outputs, new_outputs, step.name)
            outputs = new_outputs
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


def _compare(before: Arrays, after: Arrays, name: str) -> None:
    """Compare outputs by name.

    Raises:
        PassError: an output is missing, or of another shape or type, or differs by more than rounding.
    """
    for output, expected in before.items():
        if output not in after:
            raise PassError(f"pass {name} claims equality but lost output {output!r}")
        found = difference(output, [expected], [after[output]])
        if not found.relative <= _TOLERANCE:
            raise PassError(
                f"pass {name} claims equality but output {output!r} differs by {found.absolute:.3g} "
                f"(its largest magnitude is {found.magnitude:.3g})"
            )
