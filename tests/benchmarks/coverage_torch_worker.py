"""One tool and one model in a process of its own; run as a script, by interpreters that lack onnxprune.

    python coverage_torch_worker.py TOOL MODEL FOLDER SECONDS

The folder holds inputs.npz and outputs.npz. It prints a line of JSON: ``difference`` (the largest, as a share of the
largest value) and ``trains``, or ``error``, the type of an exception, which is TimeoutError when the process has had so
many seconds of the processor.
"""

from __future__ import annotations

import json
import resource
import signal
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


def examine(tool: str, path: str, folder: Path) -> dict[str, Any]:
    """Convert, run and train one step."""
    with np.load(folder / "inputs.npz") as archive:
        inputs = [torch.from_numpy(archive[name]) for name in archive]
    with np.load(folder / "outputs.npz") as archive:
        wanted = [archive[name] for name in archive]
    module = convert(tool, path)
    module.eval()
    found = [y.detach().numpy() for y in run(module, inputs)]
    gaps = [gap(a, b) for a, b in zip(wanted, found, strict=True)]
    return {"difference": max(gaps), "trains": trains(tool, module, inputs)}


def gap(wanted: Any, found: Any) -> float:
    """The largest difference of two arrays, as a share of the largest value; infinite if their shapes differ."""
    if wanted.shape != found.shape:
        return float("inf")
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    return float(np.abs(a - b).max(initial=0.0) / max(np.abs(a).max(initial=0.0), 1e-6))


def trains(tool: str, module: Any, inputs: list[torch.Tensor]) -> bool:
    """Whether every parameter gets a finite gradient."""
    try:
        module = trainable(tool, module)
        sum(y.square().mean() for y in run(module, inputs) if y.is_floating_point()).backward()  # type: ignore[union-attr]
    except Exception:
        return False
    parameters = list(module.parameters())
    return bool(parameters) and all(p.grad is not None and bool(p.grad.isfinite().all()) for p in parameters)


def give_up_after(seconds: int) -> None:
    """Raise TimeoutError when the process has used so much of the processor, and end it a minute later."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGXCPU, give_up)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 60))


if __name__ == "__main__":
    give_up_after(int(sys.argv[4]))
    try:
        answer = examine(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    except Exception as error:
        answer = {"error": type(error).__name__}
    print(json.dumps(answer))
