"""One tool and one model in a process of its own; run as a script, by interpreters that lack onnxprune.

    python coverage_torch_worker.py TOOL FOLDER

The folder holds model.onnx, inputs.npz and outputs.npz. It prints a line of JSON: ``difference`` (the largest, as a
share of the largest value) and ``trains``, or ``error``, the type of an exception.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch


def convert(tool: str, path: str) -> Any:
    """The module that a tool makes of a file."""
    if tool == "onnxprune":
        from onnxprune.torch import to_module

        return to_module(path)
    import onnx

    model = onnx.load(path)
    if tool == "onnx2torch":
        import onnx2torch

        return onnx2torch.convert(model)
    if tool == "onnx2pytorch":
        import onnx2pytorch

        return onnx2pytorch.ConvertModel(model, experimental=True)
    import onnx2fx

    return onnx2fx.convert(model)


def trainable(tool: str, module: Any) -> Any:
    """The module in training mode."""
    if tool == "onnx2fx":
        import onnx2fx

        # Its weights are constants unless asked otherwise.
        module = onnx2fx.make_trainable(module)
    return module.train()


def run(module: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs, as a list."""
    result = module(*inputs)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def examine(tool: str, folder: Path) -> dict[str, Any]:
    """Convert, run and train one step."""
    with np.load(folder / "inputs.npz") as archive:
        inputs = [torch.from_numpy(archive[name]) for name in archive]
    with np.load(folder / "outputs.npz") as archive:
        wanted = [archive[name] for name in archive]
    module = convert(tool, str(folder / "model.onnx"))
    module.eval()
    found = [y.detach().numpy() for y in run(module, inputs)]
    gaps = [
        float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-6)) if a.shape == b.shape else float("inf")
        for a, b in zip(wanted, found, strict=True)
    ]
    return {"difference": max(gaps), "trains": trains(tool, module, inputs)}


def trains(tool: str, module: Any, inputs: list[torch.Tensor]) -> bool:
    """Whether every parameter gets a finite gradient."""
    try:
        module = trainable(tool, module)
        sum(y.square().mean() for y in run(module, inputs)).backward()  # type: ignore[union-attr]
    except Exception:
        return False
    parameters = list(module.parameters())
    return bool(parameters) and all(p.grad is not None and bool(p.grad.isfinite().all()) for p in parameters)


if __name__ == "__main__":
    try:
        answer = examine(sys.argv[1], Path(sys.argv[2]))
    except Exception as error:
        answer = {"error": type(error).__name__}
    print(json.dumps(answer))
