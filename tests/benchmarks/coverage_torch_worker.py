"""One tool and all models: a process that has loaded the tool, and a copy of it per model.

    python coverage_torch_worker.py TOOL SECONDS

It is run as a script, by interpreters that lack onnxprune. Every line on standard input names a model and a folder that
holds inputs-N.npz and outputs-N.npz, one pair or several, as a JSON list. It is answered by a line of JSON:
``difference`` (the largest, as a share of the largest value) and ``trains``, or ``error``, the type of an exception,
which is TimeoutError when the copy has had so many seconds of the processor, or "crash".
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

_SMALL = 1e-2
"""Outputs that are smaller throughout are compared with this: near zero, onnxruntime's sigmoid is off by 1.4e-7."""


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
    module = convert(tool, path)
    module.eval()
    batches, gaps = [], []
    for file in sorted(folder.glob("inputs-*.npz")):
        with np.load(file) as archive:
            batches.append([torch.from_numpy(archive[name]) for name in archive])
        with np.load(folder / file.name.replace("inputs", "outputs")) as archive:
            wanted = [archive[name] for name in archive]
        found = [y.detach().numpy() for y in run(module, batches[-1])]
        gaps += [gap(a, b) for a, b in zip(wanted, found, strict=True)]
    return {"difference": max(gaps), "trains": trains(tool, module, batches)}


def gap(wanted: Any, found: Any) -> float:
    """The largest difference of two arrays, as a share of the largest value; infinite if their shapes differ."""
    if wanted.shape != found.shape:
        return float("inf")
    a, b = wanted.astype(np.float64), found.astype(np.float64)
    return float(np.abs(a - b).max(initial=0.0) / max(np.abs(a).max(initial=0.0), _SMALL))


def trains(tool: str, module: Any, batches: list[list[torch.Tensor]]) -> bool:
    """Whether every parameter gets a finite gradient, those apart of branches that no inputs lead into."""
    try:
        module = trainable(tool, module)
        idle = {name for name, _ in module.named_modules() if name.endswith((".then_branch", ".else_branch"))}
        for name in tuple(idle):
            module.get_submodule(name).register_forward_hook(lambda *_, name=name: idle.discard(name))
        for inputs in batches:
            sum(y.square().mean() for y in run(module, inputs) if y.is_floating_point()).backward()  # type: ignore[union-attr]
    except Exception:
        return False
    parameters = [p for name, p in module.named_parameters() if not any(name.startswith(f"{n}.") for n in idle)]
    return bool(parameters) and all(p.grad is not None and bool(p.grad.isfinite().all()) for p in parameters)


def give_up_after(seconds: int) -> None:
    """Raise TimeoutError when the process has used so much of the processor, and end it a minute later."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGXCPU, give_up)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 60))


def answer(tool: str, request: str, seconds: int) -> dict[str, Any]:
    """What the tool makes of one model."""
    give_up_after(seconds)
    path, folder = json.loads(request)
    try:
        return examine(tool, path, Path(folder))
    except Exception as error:  # whatever a tool fails with is its result
        return {"error": type(error).__name__}


def main(tool: str, seconds: str) -> None:
    """Serve models until standard input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what tools print must not mix with the answers
    importlib.import_module("onnxprune.torch" if tool == "onnxprune" else tool)
    for request in sys.stdin:
        # Loading PyTorch takes longer than most models do; a copy starts with it loaded, and may crash alone.
        child = os.fork()
        if not child:
            print(json.dumps(answer(tool, request, int(seconds))), file=answers, flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            print(json.dumps({"error": "crash"}), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
