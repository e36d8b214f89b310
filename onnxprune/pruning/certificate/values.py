"""A pruned model with the original's values where its weights have others: the removal alone can be proven of it.

Built without the code that shrinks, like all that proves: values are cut from the original's.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.model import Model
from onnxprune.pruning.certificate.kept import Kept


def with_original_values(
    analysis: Analysis, kept: Kept, result: Model, only: Collection[str] | None = None
) -> tuple[Model, tuple[str, ...]]:
    """The model with the values that its floating-point weights had after removal alone, and which had others.

    What a weight is the shrunk form of, its name tells; a weight that is new stands where the original's node reads
    another (which it is a copy of then), or nothing: a vector that is added, which is zero without what changed since.

    Args:
        analysis: of the original.
        kept: what the plan keeps of it.
        result: the pruned model.
        only: the weights that may be given other values, None for all.
    """
    original = analysis.graph.model.weights
    relative = {analysis.untied.axes.axis(axis).tensor for axis in analysis.untied.relative}
    read = _read_before(analysis, result)
    draft = result.edit()
    changed = []
    for name, weight in result.weights.items():
        if weight.dtype.kind != "f" or name in relative or (only is not None and name not in only):
            continue
        source = name if name in original else read.get(name)
        if source is None:
            continue
        wanted = np.zeros(weight.shape, weight.dtype) if not source else kept.cut(source, original[source].array)
        if wanted.size == 1:
            wanted = np.full(weight.shape, wanted.item(), wanted.dtype)
        elif [e for e in wanted.shape if e != 1] == [e for e in weight.shape if e != 1]:
            wanted = wanted.reshape(weight.shape)
        if wanted.shape == weight.shape and wanted.tobytes() != weight.array.tobytes():
            draft.weights[name] = weight.with_array(np.ascontiguousarray(wanted.astype(weight.dtype)))
            changed.append(name)
    return draft.finish(), tuple(changed)


def _read_before(analysis: Analysis, result: Model) -> dict[str, str]:
    """For weights that are new: what the original's node reads in their place, ``""`` for nothing."""
    original = analysis.graph.model
    places = {node.outputs[0]: node for node in analysis.graph.nodes if node.outputs}
    found: dict[str, str] = {}
    for node in result.graph.node:
        before = places.get(node.output[0]) if node.output else None
        if before is None:
            continue
        for index, name in enumerate(node.input):
            if name in result.weights and name not in original.weights:
                known = before.inputs[index] if index < len(before.inputs) else ""
                if not known or known in original.weights:
                    found[name] = known
    return found
