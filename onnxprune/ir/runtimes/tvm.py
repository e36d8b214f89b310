"""TVM by Relax, with its default schedules for the processor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from onnxprune.ir.runtimes import Program, Shapes


class Tvm:
    """What ``relax.build`` makes of the model for LLVM, untuned."""

    name = "tvm"
    profiles = False

    def version(self) -> str:
        """As the package tells it."""
        import tvm

        return str(tvm.__version__)

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        """See :class:`~onnxprune.ir.runtimes.Runtime`."""
        import tvm
        from tvm import relax
        from tvm.relax.frontend.onnx import from_onnx

        model = onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source)
        types = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
        kinds = {name: str(onnx.helper.tensor_dtype_to_np_dtype(types[name])) for name in shapes}
        module = from_onnx(model, {n: list(s) for n, s in shapes.items()}, kinds, sanitize_input_names=False)
        machine = relax.VirtualMachine(relax.build(module, target="llvm"), tvm.cpu())
        return _Program(machine, tvm.runtime.tensor, list(shapes))


class _Program:
    def __init__(self, machine: Any, tensor: Any, names: list[str]) -> None:
        self._machine, self._tensor, self._names = machine, tensor, names

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        found = self._machine["main"](*(self._tensor(inputs[name]) for name in self._names))
        return [item.numpy() for item in ([found] if hasattr(found, "numpy") else found)]

    def nodes(self) -> list[tuple[str, str, float]]:
        return []
