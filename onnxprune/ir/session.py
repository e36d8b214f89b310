"""Running models in onnxruntime: sessions, and inputs to run them with."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxprune.errors import VerificationError
from onnxprune.ir.model import Model

Arrays = dict[str, NDArray[Any]]

#: Models beyond this size are handed over as files: protobuf messages end at 2 GB.
_LARGEST_MESSAGE = 1_000_000_000

ELEMENT_TYPES = {
    f"tensor({name})": value
    for name, value in {
        "float": TensorProto.FLOAT,
        "double": TensorProto.DOUBLE,
        "float16": TensorProto.FLOAT16,
        "bfloat16": TensorProto.BFLOAT16,
        "int8": TensorProto.INT8,
        "uint8": TensorProto.UINT8,
        "int32": TensorProto.INT32,
        "int64": TensorProto.INT64,
        "bool": TensorProto.BOOL,
    }.items()
}


class Session:
    """One model loaded in onnxruntime; unless ``literal``, with its graph optimisations.

    Raises VerificationError where onnxruntime refuses the model.
    """

    def __init__(self, model: Model, what: str, *, threads: int = 0, literal: bool = False) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads
        # Threads that wait busily for the next run would take the processor from what is done between runs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if literal:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._what = what
        try:
            if model.file_size > _LARGEST_MESSAGE or any(w.source is not None for w in model.weights.values()):
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "model.onnx"
                    model.save(path)
                    self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            else:
                serialized = model.to_proto().SerializeToString()
                self._session = ort.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise VerificationError(f"onnxruntime does not load {what}: {first_line(error)}") from error

    @property
    def outputs(self) -> list[str]:
        """Names of the graph outputs."""
        return [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """All outputs for these inputs. Raises VerificationError where onnxruntime fails."""
        accepted = {i.name for i in self._session.get_inputs()}
        try:
            results = self._session.run(None, {k: v for k, v in inputs.items() if k in accepted})
        except Exception as error:
            raise VerificationError(f"onnxruntime does not run {self._what}: {first_line(error)}") from error
        return dict(zip(self.outputs, results, strict=True))


def inferred_by_runtime(skeleton: onnx.ModelProto) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Element types and static shapes of the outputs of a model without weights, as onnxruntime infers them.

    Empty where onnxruntime does not load it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(skeleton.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        # An operator that onnxruntime does not know either: the shape stays unknown, and the node is pinned.
        return {}
    found: dict[str, tuple[int, tuple[int, ...]]] = {}
    for output in session.get_outputs():
        # An empty shape stands for a scalar as well as for a shape that could not be inferred.
        if output.type in ELEMENT_TYPES and output.shape and all(isinstance(extent, int) for extent in output.shape):
            found[output.name] = (ELEMENT_TYPES[output.type], tuple(output.shape))
    return found


def random_inputs(model: Model, shapes: Mapping[str, tuple[int, ...]], seed: int) -> Arrays:
    """Inputs of these shapes: normally distributed floats, integers 0 and 1, or booleans."""
    rng = np.random.default_rng(seed)
    inputs: Arrays = {}
    for info in model.graph.input:
        if info.name in model.weights or info.name not in shapes:
            continue
        elem_type = info.type.tensor_type.elem_type
        shape = shapes[info.name]
        if elem_type == TensorProto.STRING:
            inputs[info.name] = np.full(shape, "a", dtype=object)
            continue
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        if elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16):
            inputs[info.name] = rng.standard_normal(shape).astype(dtype)
        else:
            # 0 and 1 are valid as indices, masks, lengths and pixel values alike.
            inputs[info.name] = rng.integers(0, 2, size=shape).astype(dtype)
    return inputs


def first_line(error: Exception) -> str:
    """What an error of onnxruntime says, without its stack."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
