"""The graph that onnxruntime makes of a model on this processor: fused, and in its own layouts."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto

from onnxprune.errors import ShapeError, VerificationError
from onnxprune.ir.model import Model
from onnxprune.ir.session import ELEMENT_TYPES, first_line

_WEIGHTS = "session.optimized_model_external_initializers_file_name"


@dataclass(frozen=True)
class Optimised:
    """What onnxruntime runs.

    Attributes:
        nodes: in the order in which they run.
        inputs: of the graph.
        outputs: of the graph.
        extents: of everything but weights.
        elem_types: the same.
        weights: extents of the weights.
    """

    nodes: tuple[NodeProto, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    extents: Mapping[str, tuple[int, ...]]
    elem_types: Mapping[str, int]
    weights: Mapping[str, tuple[int, ...]]


def optimised(model: Model, shapes: Mapping[str, Sequence[int]]) -> Optimised:
    """Let onnxruntime optimise a model for inputs of these shapes.

    Raises:
        VerificationError: it does not load the model.
        ShapeError: a shape depends on data; the message names the tensor.
    """
    import onnxruntime as ort

    draft = model.edit()
    del draft.graph.value_info[:]
    for info in draft.graph.input:
        if info.name in shapes:
            dims = info.type.tensor_type.shape
            dims.CopyFrom(
                onnx.TensorShapeProto(dim=[onnx.TensorShapeProto.Dimension(dim_value=n) for n in shapes[info.name]])
            )
    with tempfile.TemporaryDirectory() as folder:
        given, made, opened = (Path(folder) / name for name in ("given.onnx", "made.onnx", "opened.onnx"))
        Model(draft.skeleton, draft.weights).save(given)
        options = ort.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        options.optimized_model_filepath = str(made)
        options.add_session_config_entry(_WEIGHTS, "weights.bin")
        try:
            ort.InferenceSession(str(given), options, providers=["CPUExecutionProvider"])
            found = onnx.load(str(made), load_external_data=False)
            onnx.save(_open(found), str(opened))
            options = ort.SessionOptions()
            options.log_severity_level = 4
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
            told = ort.InferenceSession(str(opened), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise VerificationError(f"onnxruntime does not load the model: {first_line(error)}") from error
        values = [*told.get_inputs(), *told.get_outputs()]
    for value in values:
        if value.type not in ELEMENT_TYPES or not all(isinstance(extent, int) for extent in value.shape):
            raise ShapeError(f"the shape of {value.name!r} depends on data, and so is the memory that it takes")
    return Optimised(
        tuple(found.graph.node),
        tuple(value.name for value in told.get_inputs()),
        tuple(value.name for value in found.graph.output),
        {value.name: tuple(value.shape) for value in values},
        {value.name: ELEMENT_TYPES[value.type] for value in values},
        {weight.name: tuple(weight.dims) for weight in found.graph.initializer},
    )


def _open(model: ModelProto) -> ModelProto:
    """The same with everything that a node makes as an output: onnxruntime tells shapes of those alone."""
    opened = ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    for name in (name for node in model.graph.node for name in node.output if name):
        opened.graph.output.add().name = name
    return opened
