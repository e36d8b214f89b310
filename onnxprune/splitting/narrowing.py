"""Fewer channels across a cut: the ordinary plan, with the bytes that cross as its budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.cost import FloatArray, Terms, extent_terms
from onnxprune.errors import UsageError
from onnxprune.ir.model import Model
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.options import JobOptions, PlanOptions
from onnxprune.pruning.pipeline import Compression, run
from onnxprune.splitting.costs import bytes_each


@dataclass(frozen=True)
class WireSize:
    """Bytes that cross at a cut, as a function of kept counts: :class:`~onnxprune.analysis.analyzing.MetricSource`.

    Attributes:
        tensors: what crosses.
        coding: how: ``plain``, ``float16`` or ``int8``.
        multiple: what kept counts had best be multiples of.
    """

    tensors: tuple[str, ...]
    coding: str = "plain"
    multiple: int = 1

    def of(self, analysis: Analysis) -> WireFunction:
        """The bytes for an analysed model. Raises UsageError where a tensor is not there, or its shape not known."""
        coupling, shapes = analysis.coupling, analysis.shapes
        rows = []
        for name in self.tensors:
            if name not in shapes.extents or name not in coupling.axes:
                raise UsageError(f"'{name}' is no tensor of the model whose shape is known")
            axes = coupling.axes.axes_of(name, len(shapes.extents[name]))
            rows.append((bytes_each(shapes.elem_types.get(name, 0), self.coding), list(axes), 0))
        terms = extent_terms(coupling, rows)
        makers = [coupling.class_of.get(layer.output_axis, -1) for layer in analysis.costs.layers]
        return WireFunction(terms, np.isin(makers, terms.classes).astype(np.float64))


@dataclass(frozen=True)
class WireFunction:
    """Bytes at kept counts; they belong to the layers whose filters make what crosses, to all alike."""

    terms: Terms
    makers: FloatArray

    def total(self, kept: IntArray) -> float:
        """All bytes."""
        return float(self.terms.values(kept).sum())

    def per_layer(self, kept: IntArray) -> FloatArray:
        """The share of every layer."""
        share: FloatArray = self.makers * (self.total(kept) / max(int(self.makers.sum()), 1))
        return share


def narrowed(model: Model, wire: WireSize, most: float, options: PlanOptions, job: JobOptions) -> Compression:
    """Remove channels until no more than so many bytes cross, refit what is left, and prove it.

    Args:
        model: the model.
        wire: the cut.
        most: bytes that may cross.
        options: of the plan, besides its budget.
        job: how to prove and repair.

    Raises:
        BudgetError: even the fewest channels are too many bytes.
    """
    budget = {"mode": "wire", "max_wire": most, "wire": wire}
    return run(model, type(options)(**{**options.given(), **budget}), job)
