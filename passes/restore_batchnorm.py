"""Put a BatchNormalization after each Conv again, where the exporter has folded it away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxprune.errors import PassError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.session import Session
from onnxprune.ir.weights import Array
from onnxprune.passes.base import Pass, PassResult

_FIRST_OPSET = 7
_BEFORE_ACTIVATION = frozenset({"Add", "Sub", "Mul", "Div", "Cast"})
"""What may lie between a Conv and its BatchNormalization: a bias or scale of its own."""


class RestoreBatchnorm(Pass):
    """Put a BatchNormalization after each Conv that has none before its activation.

    The function stays the same: the scale undoes the division by the deviation, and the bias takes the mean and the
    bias of the Conv. Left alone are Convs whose result is an output of the graph, and those on a single position
    (squeeze-and-excitation), which have nothing to take statistics from.
    """

    name = "restore_batchnorm"

    def __init__(
        self, calibration: Mapping[str, Array] | None = None, epsilon: float = 1e-5, momentum: float = 0.9
    ) -> None:
        """Args:
        calibration: a batch for the graph's inputs, on which mean and variance of every channel are measured;
            without it they are 0 and 1, for training from scratch.
        epsilon: added to variances.
        momentum: the share of the old statistics when training updates them.
        """
        self._calibration = calibration
        self._epsilon = epsilon
        self._momentum = momentum

    def precondition(self, model: Model) -> None:
        """BatchNormalization exists in its present form since opset 7."""
        if model.opset() < _FIRST_OPSET:
            raise PassError(f"the model has opset {model.opset()}, and it needs {_FIRST_OPSET}; convert it first")

    def run(self, model: Model) -> PassResult:
        """Add the nodes; see the class."""
        graph = model.derived(Graph)
        indices = _bare_convolutions(model, graph)
        if not indices:
            return PassResult(model, modified=False)
        measured = self._measure(model, [graph.nodes[index].outputs[0] for index in indices])
        draft = model.edit()
        for index in reversed(indices):
            self._insert(model, draft, graph, index, measured.get(graph.nodes[index].outputs[0]))
        return PassResult(draft.finish(), modified=True)

    def _measure(self, model: Model, outputs: list[str]) -> dict[str, _Statistics]:
        """Mean and variance of each channel on the calibration batch; empty without one."""
        if self._calibration is None:
            return {}
        draft = model.edit()
        present = {value.name for value in draft.graph.output}
        draft.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in present)
        results = Session(draft.finish(), "the model on the calibration batch", threads=1).run(self._calibration)
        return {name: _statistics(results[name]) for name in outputs}

    def _insert(self, model: Model, draft: Draft, graph: Graph, index: int, measured: _Statistics | None) -> None:
        conv = draft.graph.node[index]
        weight = model.weights[conv.input[1]]
        bias = np.zeros(weight.shape[0], np.float64)
        has_bias = len(conv.input) > 2 and bool(conv.input[2])
        if has_bias:
            bias = model.weights[conv.input[2]].array.astype(np.float64)
        found = measured or _Statistics(bias, np.ones_like(bias))
        # What the Conv gives without its bias has the mean of what it gave, less the bias.
        vectors = {
            "scale": np.sqrt(found.variance + self._epsilon),
            "bias": found.mean,
            "mean": found.mean - bias,
            "var": found.variance,
        }
        base = f"{weight.name.removesuffix('.weight')}.bn"
        operands = [
            draft.add_weight(draft.unique_name(f"{base}.{name}"), values.astype(weight.dtype)).name
            for name, values in vectors.items()
        ]
        output = conv.output[0]
        conv.output[0] = draft.unique_name(f"{output}_before_bn")
        if has_bias:
            self._drop_bias(draft, graph, conv)
        norm = helper.make_node(
            "BatchNormalization", [conv.output[0], *operands], [output], name=f"{conv.name or output}_bn",
            epsilon=self._epsilon, momentum=self._momentum,
        )  # fmt: skip
        draft.graph.node.insert(index + 1, norm)

    @staticmethod
    def _drop_bias(draft: Draft, graph: Graph, conv: onnx.NodeProto) -> None:
        name = conv.input[2]
        del conv.input[2:]
        if len(graph.slots[name]) == 1 and name not in graph.fixed:
            draft.remove_weights([name])


@dataclass(frozen=True)
class _Statistics:
    """Mean and variance of each channel."""

    mean: Array
    variance: Array


def _statistics(values: Array) -> _Statistics:
    wide = values.astype(np.float64)
    axes = (0, *range(2, wide.ndim))
    return _Statistics(wide.mean(axes), wide.var(axes))


def _bare_convolutions(model: Model, graph: Graph) -> list[int]:
    """The Conv nodes to normalise, in order."""
    shapes = graph.shapes
    chosen = []
    for index in graph.kinds.get("Conv", ()):
        output = graph.nodes[index].outputs[0]
        extents = shapes.extents.get(output)
        single = extents is not None and all(
            extent == 1 and shapes.is_static(output, dim) for dim, extent in enumerate(extents) if dim > 1
        )
        constant = all(name in model.weights for name in graph.nodes[index].inputs[1:] if name)
        if constant and not single and output not in graph.outputs and not _is_normalised(model, graph, output):
            chosen.append(index)
    return chosen


def _is_normalised(model: Model, graph: Graph, tensor: str) -> bool:
    """Whether a BatchNormalization follows before anything but constants is mixed in."""
    norms = graph.kinds.get("BatchNormalization", ())
    while True:
        readers = graph.slots.get(tensor, [])
        if any(index in norms for index, _ in readers):
            return True
        if len(readers) != 1:
            return False
        node = graph.nodes[readers[0][0]]
        others = [name for name in node.inputs if name != tensor]
        if node.domain or node.op_type not in _BEFORE_ACTIVATION or any(name not in model.weights for name in others):
            return False
        tensor = node.outputs[0]
