"""The time of every layer, as onnxruntime's profiler sees it.

onnxruntime fuses layers with what follows and changes their layout; the fused node is called after the layer or after
the tensor that the fused chain makes, with marks around it. From there the way back to the layer is short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from onnxprune.analysis.analyzing import Analysis
from onnxprune.ir.engine import Engine
from onnxprune.ir.session import random_inputs
from onnxprune.ir.tracing import NodeTime, traced

_MARKS = re.compile(r"^fused |(_nchwc|_token_\d+|/\w*Fusion\w*)+$")
_LAYER = re.compile(r"Conv|Gemm|MatMul")
_MOST_STEPS = 5
"""Nodes between a layer and the end of what is fused with it: normalisation, sum, activation (two nodes at most)."""


def layer_times(
    analysis: Analysis, source: Path | bytes, engine: Engine | None = None, *, runs: int = 20
) -> Mapping[str, float]:
    """Run a model under onnxruntime's profiler: seconds per layer name, for those that it runs under a known name.

    Args:
        analysis: of the model.
        source: its file, or its serialised form.
        engine: threads and provider; one thread of the CPU if not given.
        runs: how many; the median counts.

    Raises:
        MeasurementError: onnxruntime does not load or run the model.
    """
    inputs = random_inputs(analysis.model, analysis.shapes.binding, 0)
    trace = traced(source, inputs, engine or Engine(), runs=runs)
    found: dict[str, float] = {}
    finder = _Finder(analysis)
    for node in trace.nodes:
        layer = finder.layer_of(node)
        if layer is not None:
            found[layer] = found.get(layer, 0.0) + node.seconds
    return found


class _Finder:
    """Finds the layer that a node of the optimised graph was made from."""

    def __init__(self, analysis: Analysis) -> None:
        self._graph = analysis.graph
        self._layers = {layer.node: analysis.layer_name(layer) for layer in analysis.costs.layers}
        self._by_name = {name: index for index, name in self._layers.items()}

    def layer_of(self, node: NodeTime) -> str | None:
        """The layer's name, None if the node is none or cannot be told."""
        if not _LAYER.search(node.op_type):
            return None
        for name in (node.name, _MARKS.sub("", node.name)):
            if name in self._by_name:
                return name
            if name in self._graph.producer:
                return next((self._layers[index] for index in self._back(name) if index in self._layers), None)
        return None

    def _back(self, tensor: str) -> Iterator[int]:
        """The nodes that a tensor comes from, nearest first, for a few steps."""
        seen: set[int] = set()
        level = [tensor]
        for _ in range(_MOST_STEPS):
            indices = dict.fromkeys(self._graph.producer[name] for name in level if name in self._graph.producer)
            fresh = [index for index in indices if index not in seen]
            yield from fresh
            seen.update(fresh)
            level = [name for index in fresh for name in self._graph.nodes[index].inputs]
