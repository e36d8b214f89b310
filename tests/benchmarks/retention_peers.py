"""The worker of the retention study: one peer prunes one trained network to a number of multiply-accumulates.

Runs in the peer's own environment, without onnxprune. Usage: ``retention_peers.py REQUEST.json``; the request names
the method, the network, its weights (``.onnx`` or ``.npz``), calibration samples, the share of MACs to remove and the
file to write. Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

#: Of the search for the ratio of channels that gives the MACs.
_TRIALS = 8


def _closest(build: Any, macs: Any, target: float, low: float = 0.0, high: float = 0.95) -> tuple[Any, float]:
    """The largest model that ``build`` makes, by bisection of its ratio, with at most ``target`` MACs."""
    best, found = None, 0.0
    for _ in range(_TRIALS):
        ratio = (low + high) / 2
        candidate = build(ratio)
        left = macs(candidate)
        if left <= target and left > found:
            best, found = candidate, left
        if found > 0.985 * target:
            break
        if left <= target:
            high = ratio
        else:
            low = ratio
    if best is None:
        raise RuntimeError("no ratio reaches the target")
    return best, found


def onnxsim_prunes(request: dict[str, Any]) -> float:
    """apply_structured_pruning or apply_structured_wanda_pruning, with or without apply_pruning_finetune."""
    import onnx
    import onnxsim

    model = onnx.load(request["onnx"])
    name = model.graph.input[0].name
    samples = np.load(request["samples"])["x"]
    batches = [{name: samples[start : start + 64]} for start in range(0, len(samples), 64)]

    def build(ratio: float) -> Any:
        if request["method"].startswith("wanda"):
            return onnxsim.apply_structured_wanda_pruning(model, calibration_data=batches, sparsity=ratio)
        everywhere = "global" in request["method"]
        return onnxsim.apply_structured_pruning(model, sparsity=ratio, global_sparsity=everywhere)

    full = _onnx_macs(model)
    best, left = _closest(build, _onnx_macs, full * (1 - request["reduce"]))
    if request["method"].endswith("refit"):
        best = onnxsim.apply_pruning_finetune(model, best, calibration_data=batches)
    onnx.save(best, request["output"])
    return 1 - left / full


def _onnx_macs(model: Any) -> float:
    """Multiply-accumulates of Conv and Gemm at batch 1."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    shapes = {
        value.name: [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
        for values in (inferred.graph.value_info, inferred.graph.output)
        for value in values
    }
    weights = {t.name: list(t.dims) for t in model.graph.initializer}
    total = 0.0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += float(np.prod(weights[node.input[1]])) * float(np.prod(shapes[node.output[0]][2:]))
        elif node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
            total += float(np.prod(weights[node.input[1]]))
    return total


def torch_pruning_prunes(request: dict[str, Any]) -> float:
    """Group l2 norm, BatchNorm scale or Taylor, with one ratio or a global threshold."""
    import copy

    import torch
    import torch_pruning as tp

    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.benchmarks.accuracy_networks import build as build_network

    torch.set_num_threads(1)
    held = np.load(request["weights"])
    network = build_network(request["network"], 0)
    state = network.state_dict()
    state.update({key: torch.from_numpy(held[key]) for key in state if key in held})
    missing = [key for key in state if key not in held and not key.endswith("num_batches_tracked")]
    if missing:
        raise RuntimeError(f"the weights lack {missing[0]}")
    network.load_state_dict(state)
    network.eval()
    example = torch.zeros(1, 1, 28, 28)
    stored = np.load(request["samples"])
    samples, labels = torch.from_numpy(stored["x"]), torch.from_numpy(stored["y"])
    kind, _, scope = request["method"].partition(" ")
    importance = {
        "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "bn_scale": lambda: tp.importance.BNScaleImportance(),
        "taylor": lambda: tp.importance.GroupTaylorImportance(),
    }[kind]

    def build(ratio: float) -> Any:
        model = copy.deepcopy(network)
        if kind == "taylor":
            for start in range(0, len(samples), 64):
                part = slice(start, start + 64)
                torch.nn.functional.cross_entropy(model(samples[part]), labels[part]).backward()
        last = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=importance(),
            pruning_ratio=ratio,
            global_pruning=scope == "global",
            ignored_layers=[last],
            max_pruning_ratio=0.9,
        )
        pruner.step()
        return model

    def macs(model: Any) -> float:
        return float(tp.utils.count_ops_and_params(model, example)[0])

    full = macs(network)
    best, left = _closest(build, macs, full * (1 - request["reduce"]))
    best.eval().requires_grad_(False)
    axes = {"image": {0: "batch"}}
    torch.onnx.export(
        best, (example,), request["output"], input_names=["image"], dynamic_axes=axes, dynamo=False, opset_version=17
    )
    return 1 - left / full


if __name__ == "__main__":
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    run = onnxsim_prunes if asked["tool"] == "onnxsim" else torch_pruning_prunes
    try:
        print(json.dumps({"removed": run(asked)}))
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
