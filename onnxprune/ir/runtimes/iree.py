"""IREE, compiled for this processor and run on the calling thread."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from onnxprune.ir.runtimes import Program, Shapes, as_file

_OPSET = 17
"""What it knows best: the importer raises older files to that."""


class Iree:
    """What its importer and compiler make of the model; its shapes stay as the file has them."""

    name = "iree"
    profiles = False

    def version(self) -> str:
        """The compiler's."""
        import iree.compiler
        import iree.runtime  # noqa: F401

        return version("iree-base-compiler")

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        """See :class:`~onnxprune.ir.runtimes.Runtime`."""
        import iree.compiler.tools as tools
        import iree.runtime as runtime

        if threads != 1:
            raise ValueError("it is run on the calling thread only")
        with tempfile.TemporaryDirectory() as folder, as_file(source) as path:
            mlir = Path(folder) / "model.mlir"
            command = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(path), "-o", str(mlir)]
            opsets = onnx.load(path, load_external_data=False).opset_import
            if any(opset.domain in ("", "ai.onnx") and opset.version < _OPSET for opset in opsets):
                command += ["--opset-version", str(_OPSET)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError((done.stderr.strip().splitlines() or ["its importer fails"])[-1])
            flags = ["--iree-llvmcpu-target-cpu=host", "--iree-input-type=onnx"]
            binary = tools.compile_file(str(mlir), target_backends=["llvm-cpu"], extra_args=flags)
        module = runtime.load_vm_flatbuffer(binary, driver="local-sync")
        exported = [name for name in module.vm_module.function_names if not name.startswith("__") and "$" not in name]
        return _Program(getattr(module, exported[0]), list(shapes))


class _Program:
    def __init__(self, function: Any, names: list[str]) -> None:
        self._function, self._names = function, names

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        found = self._function(*(inputs[name] for name in self._names))
        return [item.to_host() for item in (found if isinstance(found, (tuple, list)) else [found])]

    def nodes(self) -> list[tuple[str, str, float]]:
        return []
