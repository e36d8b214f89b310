"""How many decisions of a model are so close that rounding may turn them over.

The certificate lets both models decide on the same values, and forgives nothing. Whoever runs the pruned file elsewhere
gets values that differ in their last places; what is this near to its threshold may then be decided otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from onnxprune.ir.graph import Graph
from onnxprune.ops import Registry
from onnxprune.pruning.certificate.kept import Kept


class Thresholds:
    """Counts comparisons of what is computed, over runs."""

    def __init__(self, graph: Graph, registry: Registry, kept: Kept, tolerance: float) -> None:
        self.decisions = 0
        """Values that were compared."""
        self.near = 0
        """Those whose operands are apart by no more than the tolerance, relative to the spread of their gap."""
        self._graph, self._kept, self._tolerance = graph, kept, tolerance
        self._operands: dict[str, tuple[str, ...]] = {}
        for node in graph.nodes:
            operator = registry.find(node)
            if operator is not None and node.op_type in operator.comparing:
                self._operands[node.outputs[0]] = node.inputs[:2]

    def observe(self, made: Iterable[str], values: Mapping[str, Any]) -> None:
        """Count the decisions among the tensors that were made, at the positions that are kept."""
        for name in made:
            operands = [self._value(operand, values) for operand in self._operands.get(name, ())]
            if not operands or any(not isinstance(o, np.ndarray) or o.dtype.kind != "f" for o in operands):
                continue
            gap = operands[0].astype(np.float64) - (operands[1] if len(operands) > 1 else 0.0)
            self.decisions += gap.size
            with np.errstate(invalid="ignore"):
                self.near += int((np.abs(gap) <= self._tolerance * np.nanstd(gap)).sum()) if gap.size else 0

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        if name in values:
            return values[name]
        weight = self._graph.model.weights.get(name)
        return None if weight is None else self._kept.cut(name, weight.array)
