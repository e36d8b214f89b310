"""Running passes in sequence, and checking each."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import checker

from onnxprune.errors import PassError
from onnxprune.model import Model
from onnxprune.passes.base import Pass, PassResult
from onnxprune.weights import Array

_TOLERANCE = 1e-5
"""Largest difference that passes for rounding, as a share of the largest magnitude of the output."""
_FREE_EXTENT = 32
"""Extent given to symbolic dimensions other than the first, when the caller names none."""
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
        input_shapes: shapes of graph inputs for running; others take 1 for a symbolic first dimension and 32
            for the rest.
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
        outputs = self._examine(model, "the model given") if self.check is Check.EQUALITY else None
        for step in self.passes:
            try:
                result = step(model)
            except PassError as error:
                raise PassError(f"pass {step.name}: {error}") from error
            if not result.modified:
                continue
            modified, model = True, result.model
            new_outputs = self._examine(model, f"the result of pass {step.name}")
            if step.claims_equality and outputs is not None:
                _compare(outputs, new_outputs, step.name)
            outputs = new_outputs
        return PassResult(model, modified)

    def _examine(self, model: Model, what: str) -> dict[str, Any]:
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
                return self._run(path, model)
            except PassError:
                raise
            except Exception as error:  # onnxruntime's exceptions have no common base
                raise PassError(f"onnxruntime does not run {what}: {error}") from error

    def _run(self, path: Path, model: Model) -> dict[str, Any]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        # Optimisation reorders sums; without it, equal graphs give equal bits.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(_SEED)
        shapes = self.input_shapes or {}
        feeds = {
            value.name: _random_input(value, shapes.get(value.name), rng)
            for value in model.graph.input
            if value.name not in model.weights
        }
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))


def _random_input(value: onnx.ValueInfoProto, shape: Sequence[int] | None, rng: np.random.Generator) -> Array:
    """Seeded values for a graph input: normal floats, zeros and ones of all other types."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
        raise PassError(f"input {value.name!r} is not a tensor of numbers; check with 'structure' only")
    if shape is None:
        shape = [
            dim.dim_value if dim.dim_value > 0 else (1 if position == 0 else _FREE_EXTENT)
            for position, dim in enumerate(tensor.shape.dim)
        ]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _compare(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> None:
    """Compare outputs by name.

    Raises:
        PassError: an output is missing, or of another shape, or differs by more than rounding.
    """
    for output, expected in before.items():
        if output not in after:
            raise PassError(f"pass {name} claims equality but lost output {output!r}")
        if not isinstance(expected, np.ndarray) or expected.dtype.kind not in "fiub":
            continue
        actual = after[output]
        if actual.shape != expected.shape or actual.dtype != expected.dtype:
            raise PassError(
                f"pass {name} claims equality but made output {output!r} {actual.dtype}{actual.shape}, "
                f"which was {expected.dtype}{expected.shape}"
            )
        largest = np.max(np.abs(expected[np.isfinite(expected)].astype(np.float64)), initial=0.0)
        if not np.allclose(actual, expected, rtol=0, atol=_TOLERANCE * largest, equal_nan=True):
            difference = np.nanmax(np.abs(actual.astype(np.float64) - expected.astype(np.float64)))
            raise PassError(
                f"pass {name} claims equality but output {output!r} differs by {difference:.3g} "
                f"(its largest magnitude is {largest:.3g})"
            )
