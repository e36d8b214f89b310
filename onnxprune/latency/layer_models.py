"""Many layers in one model: side by side, each with its own widths, so that one trace times them all.

Between two runs of a layer all the others run, as they do in the whole model: what it finds in the processor's caches
is alike. Nothing but a maximum of each result leaves the model, so that activations are freed as soon as they are
in a whole one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnxprune.ir.tracing import NodeTime
from onnxprune.latency.layers import LayerCase, NotMeasurable, Operand, Widths

#: What surrounds a layer only because it is alone: layout conversions at its border, and the maximum behind it.
_SURROUNDINGS = frozenset({"ReorderInput", "ReorderOutput", "ReduceMax"})
_MARK = re.compile(r"<case (\d+)>")
_FLOATS: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
}


@dataclass(frozen=True)
class Point:
    """A layer at certain widths of its measured roles."""

    case: LayerCase
    widths: Widths

    @property
    def nbytes(self) -> int:
        """Bytes of its weights and inputs, roughly."""
        complete = self.case.complete(self.widths)
        return sum(4 * math.prod(o.shape(complete)) for o in self.case.operands if o is not None)


def batches(points: Iterable[Point], most_bytes: int = 200_000_000) -> Iterator[list[Point]]:
    """Points in batches that are not too large."""
    batch: list[Point] = []
    size = 0
    for point in points:
        if batch and size + point.nbytes > most_bytes:
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += point.nbytes
    if batch:
        yield batch


def side_by_side(points: Sequence[Point]) -> tuple[ModelProto, dict[str, NDArray[Any]]]:
    """One model that runs all points, and its inputs. Points that cannot be built are left out."""
    builder = _Builder()
    opsets: dict[str, int] = {}
    for at, point in enumerate(points):
        try:
            builder.add(at, point)
        except NotMeasurable:
            continue
        known = point.case.node.graph.model.skeleton.opset_import
        opsets.update({o.domain: o.version for o in known if o.domain in ("", "ai.onnx", "com.microsoft")})
    graph = helper.make_graph(builder.nodes, "layers", builder.inputs, builder.outputs, builder.weights)
    version = {"": opsets.pop("ai.onnx", 1), **opsets} if "ai.onnx" in opsets else opsets
    imports = [helper.make_opsetid(domain, v) for domain, v in version.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8), builder.feed


def times_of_points(nodes: Sequence[NodeTime], count: int) -> list[float | None]:
    """Seconds of each point from the trace of a model of ``side_by_side``; None for what did not run."""
    found: list[float | None] = [None] * count
    for node in nodes:
        mark = _MARK.search(node.name)
        if mark is not None and node.op_type not in _SURROUNDINGS:
            at = int(mark[1])
            found[at] = (found[at] or 0.0) + node.seconds
    return found


class _Builder:
    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.outputs: list[ValueInfoProto] = []
        self.weights: list[TensorProto] = []
        self.feed: dict[str, NDArray[Any]] = {}
        self._rng = np.random.default_rng(0)

    def add(self, at: int, point: Point) -> None:
        case, widths = point.case, point.case.complete(point.widths)
        prefix = f"<case {at}>"
        outputs = [f"{prefix}{name}" if name else "" for name in case.node.outputs]
        names = [self._operand(prefix, index, o, widths) for index, o in enumerate(case.operands)]
        self.nodes.append(case.proto(f"{prefix}layer", widths, names, outputs))
        result = f"result {at}"
        self.nodes.append(helper.make_node("ReduceMax", [outputs[0]], [result], name=f"maximum {at}", keepdims=0))
        elem_type = case.node.graph.shapes.elem_types.get(case.node.outputs[0], TensorProto.FLOAT)
        self.outputs.append(helper.make_tensor_value_info(result, elem_type, []))

    def _operand(self, prefix: str, index: int, operand: Operand | None, widths: Widths) -> str:
        if operand is None:
            return ""
        shape = operand.shape(widths)
        if operand.value is not None:
            name = f"{prefix}operand {index}"
            cut = operand.value[tuple(slice(0, extent) for extent in shape)]
            self.weights.append(numpy_helper.from_array(np.ascontiguousarray(cut), name))
            return name
        name = f"x {operand.elem_type} {'x'.join(map(str, shape))}"
        if name not in self.feed:
            self.inputs.append(helper.make_tensor_value_info(name, operand.elem_type, shape))
            self.feed[name] = self._values(operand.elem_type, shape)
        return name

    def _values(self, elem_type: int, shape: tuple[int, ...]) -> NDArray[Any]:
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        if elem_type in _FLOATS:
            return self._rng.standard_normal(shape).astype(dtype)
        return np.ones(shape, dtype=dtype)


def by_kind(cases: Iterable[LayerCase | None]) -> Mapping[str, LayerCase]:
    """One case of every kind."""
    return {case.kind: case for case in cases if case is not None}
