"""ncnn, converted by pnnx, on the processor."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.ir.runtimes import Program, Shapes
from onnxprune.ir.runtimes.converting import beside, command, output_shapes, own_copy

_KINDS = {"float32": "f32", "float16": "f16", "float64": "f64", "int64": "i64", "int32": "i32", "bool": "bool"}
_FILES = {
    "pnnxparam": "pnnx.param",
    "pnnxbin": "pnnx.bin",
    "pnnxpy": "pnnx.py",
    "pnnxonnx": "pnnx.onnx",
    "ncnnparam": "ncnn.param",
    "ncnnbin": "ncnn.bin",
    "ncnnpy": "ncnn.py",
}


class Ncnn:
    """What pnnx makes of the model, in single precision, for one sample at a time."""

    name = "ncnn"
    profiles = False

    def version(self) -> str:
        """As the package tells it."""
        import ncnn  # noqa: F401

        version("pnnx")
        return version("ncnn")

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        """See :class:`~onnxprune.ir.runtimes.Runtime`."""
        import ncnn

        if any(shape[:1] != (1,) for shape in shapes.values()):
            raise ValueError("it takes one sample at a time, a batch of 1")
        net = ncnn.Net()
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
        if threads:
            net.opt.num_threads = threads
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = own_copy(source, folder)
            given = ",".join(f"[{','.join(map(str, shape))}]{_kind(path, name)}" for name, shape in shapes.items())
            files = [f"{key}={folder / end}" for key, end in _FILES.items()]
            command([beside("pnnx"), str(path), f"inputshape={given}", "fp16=0", *files], folder)
            if net.load_param(str(folder / "ncnn.param")) or net.load_model(str(folder / "ncnn.bin")):
                raise RuntimeError("it does not load what pnnx wrote: an operator is not supported")
            wanted = list(output_shapes(path, shapes).values())
        return _Program(net, ncnn.Mat, list(shapes), wanted)


def _kind(path: Path, name: str) -> str:
    inputs = {info.name: info.type.tensor_type.elem_type for info in onnx.load(path).graph.input}
    return _KINDS[str(onnx.helper.tensor_dtype_to_np_dtype(inputs[name]))]


class _Program:
    def __init__(self, net: Any, mat: Any, names: list[str], shapes: Sequence[tuple[int, ...]]) -> None:
        self._net, self._mat, self._names, self._shapes = net, mat, names, shapes

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        with self._net.create_extractor() as extractor:
            for at, name in enumerate(self._names):
                extractor.input(f"in{at}", self._mat(np.ascontiguousarray(inputs[name][0])))
            return [self._output(extractor, at, shape) for at, shape in enumerate(self._shapes)]

    def _output(self, extractor: Any, at: int, shape: tuple[int, ...]) -> Any:
        status, found = extractor.extract(f"out{at}")
        if status:
            raise RuntimeError(f"it does not compute output {at}")
        array = np.array(found)
        if array.size != np.prod(shape, dtype=int):
            raise RuntimeError(f"its output {at} has the shape {array.shape}, which is not {shape}")
        return array.reshape(shape)

    def nodes(self) -> list[tuple[str, str, float]]:
        return []
