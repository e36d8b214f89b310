"""Values of small tensors that depend on constants and shapes only (Reshape targets, Slice bounds, indices)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxprune.ir.arithmetic import evaluate
from onnxprune.ir.control_flow import DOMAIN
from onnxprune.ir.model import Model
from onnxprune.ir.protos import STANDARD_DOMAINS, bodies

_MAX_ELEMENTS = 4096
_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


class Values:
    """Evaluates such tensors on demand, node by node, and remembers them."""

    def __init__(
        self, model: Model, extents: Mapping[str, tuple[int, ...]], most_elements: int = _MAX_ELEMENTS
    ) -> None:
        self._model = model
        self._most = most_elements
        self._extents = extents
        self._opsets = {o.domain: o.version for o in model.skeleton.opset_import}
        self._producers: dict[str, onnx.NodeProto] | None = None
        self._known: dict[str, NDArray[np.generic] | None] = {}
        self._undecided: set[str] = set()

    def value(self, tensor: str) -> NDArray[np.generic] | None:
        """The value of ``tensor``, or None if it depends on data, is large, or cannot be evaluated."""
        # An explicit stack: chains of shape arithmetic can be longer than Python's recursion limit.
        stack = [tensor]
        while stack:
            name = stack[-1]
            if name in self._known:
                stack.pop()
                continue
            missing = self._resolve(name)
            if missing:
                stack.extend(missing)
            else:
                stack.pop()
        return self._known[tensor]

    def reconsider(self) -> None:
        """Forget what was undecidable for want of a shape: more shapes are known now."""
        for name in self._undecided:
            self._known.pop(name, None)
        self._undecided.clear()

    def _producer(self, tensor: str) -> onnx.NodeProto | None:
        if self._producers is None:
            self._producers = {o: n for n in self._model.graph.node for o in n.output if o}
        return self._producers.get(tensor)

    def _resolve(self, name: str) -> list[str]:
        """Decide the value of ``name``, or return the tensors that have to be decided first."""
        weight = self._model.weights.get(name)
        if weight is not None:
            self._known[name] = weight.array if weight.size <= self._most else None
            return []
        node = self._producer(name)
        if node is None or node.op_type in _RANDOM or node.domain == DOMAIN or any(bodies(node)):
            self._known[name] = None
            return []
        if node.op_type in _EXTENTS and node.domain in STANDARD_DOMAINS:
            shape = self._extents.get(node.input[0])
            if shape is None:
                self._undecided.add(name)
            self._known[name] = None if shape is None else _EXTENTS[node.op_type](node, shape)
            return []
        extent = self._extents.get(name)
        inputs = [i for i in node.input if i]
        if (extent is not None and prod(extent) > self._most) or (not inputs and node.op_type != "Constant"):
            self._known[name] = None
            return []
        operands: list[NDArray[np.generic]] = []
        for operand in inputs:
            if operand not in self._known:
                # One operand at a time: a single unknown one settles the matter without looking at the rest.
                return [operand]
            value = self._known[operand]
            if value is None:
                self._known[name] = None
                if operand in self._undecided:
                    self._undecided.add(name)
                return []
            operands.append(value)
        self._evaluate(name, node, operands)
        return []

    def _evaluate(self, name: str, node: onnx.NodeProto, operands: list[NDArray[np.generic]]) -> None:
        """Set the values of all outputs of a node; those that cannot be found are None."""
        for output in node.output:
            self._known.setdefault(output, None)
        results: Iterable[object]
        try:
            result = evaluate(node, operands)
            if result is not None:
                results = [result]
            else:
                evaluator = ReferenceEvaluator(node, opsets=self._opsets)
                results = evaluator.run(None, dict(zip((i for i in node.input if i), operands, strict=True)))
        except Exception:
            # The reference implementation lacks an operator or an opset: the value counts as unknown, which pins,
            # unless the operator only changes the shape.
            if node.op_type in _RESHAPING:
                extent = self._extents.get(name)
                if extent is None:
                    self._undecided.add(name)
                else:
                    self._known[name] = np.asarray(operands[0]).reshape(extent)
            return
        for output, found in zip(node.output, results, strict=False):
            if isinstance(found, np.ndarray | np.generic) and np.size(found) <= self._most:
                self._known[output] = np.asarray(found)


def _shape_value(node: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[np.int64]:
    bounds = {a.name: a.i for a in node.attribute}
    return np.array(shape[bounds.get("start", 0) : bounds.get("end", len(shape))], dtype=np.int64)


def _size_value(node: onnx.NodeProto, shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.array(prod(shape), dtype=np.int64)


_EXTENTS = {"Shape": _shape_value, "Size": _size_value}
READS_EXTENTS = frozenset(_EXTENTS)
"""Operators whose results depend on the extents of their operand alone."""
