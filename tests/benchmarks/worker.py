"""One tool and one model in a process of its own; run as a script, by interpreters that lack onnxprune.

    python worker.py TOOL MODEL SECONDS

It prints "ready" when the model is in memory. Then it answers every line on standard input by pruning half of
all channels once, and printing a line of JSON: the seconds ``wall`` by the clock and ``cpu`` of the processor,
and for the line "macs" also ``left``, the share of multiply-accumulates in the pruned model; or ``error``, the
type of an exception, which is TimeoutError when the process has had so many seconds of the processor.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

RATIO = 0.5
CLASSES = {1000, 21}
"""Outputs of torchvision's classifiers and segmentation networks."""
TORCH_MEMORY = 12 * 2**30
"""Bytes that Torch-Pruning may take; on some models it wants more than most machines have."""


class Tool(Protocol):
    """What is timed is ``prune`` alone."""

    def fresh(self) -> Any:
        """What ``prune`` takes; asked for before every run."""

    def prune(self, subject: Any) -> Any:
        """Analyse, plan and apply; returns what ``macs`` takes."""

    def macs(self, pruned: Any) -> float:
        """Multiply-accumulates of the pruned model, or of what ``fresh`` returned."""


class OnnxPrune:
    """Onnxprune on a ModelProto that is in memory."""

    def __init__(self, path: str) -> None:
        import onnx

        self.source: Any = onnx.load(path)

    def fresh(self) -> Any:
        return self.source

    def prune(self, subject: Any) -> Any:
        import onnxprune

        model = onnxprune.load(subject)
        plan = onnxprune.plan(onnxprune.analyze(model), channels=RATIO)
        return onnxprune.apply(model, plan)

    def macs(self, pruned: Any) -> float:
        import onnxprune

        return float(onnxprune.analyze(pruned).totals["flops"])


class OnnxPruneFile(OnnxPrune):
    """Onnxprune on a file, which the operating system holds in memory."""

    def __init__(self, path: str) -> None:
        self.source = path


class OnnxSim:
    """onnxsim on a ModelProto that is in memory."""

    def __init__(self, path: str) -> None:
        import onnx

        self.source = onnx.load(path)

    def fresh(self) -> Any:
        return self.source

    def prune(self, subject: Any) -> Any:
        import onnxsim

        return onnxsim.apply_structured_pruning(subject, RATIO)

    def macs(self, pruned: Any) -> float:
        """Of Conv and Gemm nodes, by onnx's shape inference."""
        import math

        import onnx

        inferred = onnx.shape_inference.infer_shapes(pruned)
        weights = {tensor.name: list(tensor.dims) for tensor in inferred.graph.initializer}
        infos = (*inferred.graph.value_info, *inferred.graph.output)
        shapes = {info.name: [dim.dim_value for dim in info.type.tensor_type.shape.dim] for info in infos}
        total = 0
        for node in inferred.graph.node:
            if node.op_type == "Conv":
                total += math.prod(shapes[node.output[0]]) * math.prod(weights[node.input[1]][1:])
            elif node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
                total += math.prod(shapes[node.output[0]][:-1]) * math.prod(weights[node.input[1]])
        return float(total)


class TorchPruning:
    """Torch-Pruning on the torchvision model that the file is named after."""

    def __init__(self, path: str) -> None:
        import onnx
        import torch

        resource.setrlimit(resource.RLIMIT_AS, (TORCH_MEMORY, TORCH_MEMORY))
        torch.set_num_threads(1)
        shape = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type.shape
        self.example = torch.randn([dim.dim_value or 1 for dim in shape.dim])
        self.name = Path(path).stem

    def fresh(self) -> Any:
        import inspect

        import torch
        from torchvision.models import get_model, get_model_builder

        torch.manual_seed(0)
        # By default segmentation networks fetch the weights of their backbone.
        known = inspect.signature(get_model_builder(self.name)).parameters
        nothing = {name: None for name in ("weights", "weights_backbone") if name in known}
        return get_model(self.name, **nothing).eval()

    def prune(self, subject: Any) -> Any:
        import torch_pruning as tp

        widths = [(m, {getattr(m, "out_features", 0), getattr(m, "out_channels", 0)}) for m in subject.modules()]
        pruner = tp.pruner.BasePruner(
            subject,
            self.example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=RATIO,
            ignored_layers=[module for module, width in widths if CLASSES & width],
        )
        pruner.step()
        if hasattr(subject, "hidden_dim"):  # torchvision's ViT forwards by it
            subject.hidden_dim = subject.conv_proj.out_channels
        return subject

    def macs(self, pruned: Any) -> float:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        # The counter does not know the fused kernels of attention.
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            pruned(self.example)
        return float(counter.get_total_flops() / 2)


TOOLS: dict[str, Callable[[str], Tool]] = {
    "onnxprune": OnnxPrune,
    "onnxprune file": OnnxPruneFile,
    "onnxsim": OnnxSim,
    "Torch-Pruning": TorchPruning,
}


def run(tool: Tool, with_macs: bool) -> dict[str, float]:
    """Prune once."""
    subject = tool.fresh()
    before = tool.macs(subject) if with_macs else 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    pruned = tool.prune(subject)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    found = {"wall": wall, "cpu": cpu}
    return {**found, "left": tool.macs(pruned) / before} if with_macs else found


def give_up_after(seconds: int) -> None:
    """Raise TimeoutError when the process has used so much of the processor, once."""

    def give_up(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGXCPU, give_up)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def main(tool_name: str, path: str, limit: str) -> None:
    """Serve runs until standard input ends."""
    give_up_after(int(limit))
    answers, sys.stdout = sys.stdout, sys.stderr  # what tools print must not mix with the answers
    tool = TOOLS[tool_name](path)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = run(tool, line.strip() == "macs")
        except Exception as error:  # whatever a tool fails with is its result
            answer = {"error": type(error).__name__}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
