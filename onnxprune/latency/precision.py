"""In which numbers the layers of a model are computed, as onnxruntime runs them."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, helper

from onnxprune.ir.engine import Engine
from onnxprune.ir.protos import bodies
from onnxprune.ir.runtimes import ONNXRUNTIME
from onnxprune.ops import default_registry

#: Weights of layers have two dimensions at least; with fewer they are biases, scales and zeros.
_MATRIX = 2


def layers_by_precision(source: str | os.PathLike[str], engine: Engine) -> dict[str, int] | None:
    """How many layers with weights run in fp32, fp16 and int8 (and others); None where the runtime does not tell.

    What counts is the graph as onnxruntime optimises it: a layer between QuantizeLinear and DequantizeLinear that it
    did not fuse with them runs in floats, and so does one whose weights are only stored in fewer bits.

    Args:
        source: the file.
        engine: the runtime and its settings.

    Raises:
        MeasurementError: the runtime does not load the model.
    """
    if engine.runtime != ONNXRUNTIME:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        engine.session(source, optimised=path)
        graph = onnx.load(path, load_external_data=False).graph
    found = Counter(_precisions(graph))
    usual = ("fp32", "fp16", "int8")
    return {name: found[name] for name in (*usual, *sorted(found.keys() - set(usual)))}


def _precisions(graph: GraphProto) -> Iterator[str]:
    weights = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) >= _MATRIX}
    for node in graph.node:
        stored = next((weights[name].data_type for name in node.input if name in weights), None)
        told = None if stored is None else _precision(node, stored)
        if told is not None:
            yield told
        for body in bodies(node):
            yield from _precisions(body)


def _precision(node: NodeProto, stored: int) -> str | None:
    # onnxruntime moves what it computes in a layout of its own to other domains, and tells its name of these.
    operator = default_registry().named(node.op_type.removeprefix("Nhwc"))
    return None if operator is None else operator.precision(node.op_type, str(helper.tensor_dtype_to_np_dtype(stored)))
