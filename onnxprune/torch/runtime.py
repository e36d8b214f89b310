"""PyTorch as a runtime: the module, compiled by ``torch.compile`` where that works here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onnxprune.ir.runtimes import Program, Shapes
from onnxprune.torch.module import to_module


class Torch:
    """What ``torch.compile`` makes of the module of ``to_module``, on the processor.

    The number of threads is one for the whole process: that of the model compiled last.
    """

    name = "torch"
    profiles = False

    def version(self) -> str:
        """As the package tells it, without the build."""
        return torch.__version__.partition("+")[0]

    def compile(self, source: Path | bytes, shapes: Shapes, *, threads: int, profile: bool) -> Program:
        """See :class:`~onnxprune.ir.runtimes.Runtime`."""
        module = to_module(source)
        if threads:
            torch.set_num_threads(threads)
        return _Program(torch.compile(module, fullgraph=True, dynamic=False), module.onnx_inputs)


class _Program:
    def __init__(self, function: Any, names: tuple[str, ...]) -> None:
        self._function, self._names = function, names

    def run(self, inputs: Mapping[str, Any]) -> list[Any]:
        with torch.inference_mode():
            found = self._function(*(torch.from_numpy(inputs[name]) for name in self._names))
        return [item.numpy() for item in ([found] if isinstance(found, torch.Tensor) else found)]

    def nodes(self) -> list[tuple[str, str, float]]:
        return []
