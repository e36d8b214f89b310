"""Shared by the tests of the PyTorch bridge: running a model in onnxruntime and as a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

import onnxprune
from onnxprune.ir.model import ModelLike, as_model
from onnxprune.ir.session import random_inputs
from onnxprune.ir.shapes import infer_shapes
from onnxprune.torch import OnnxModule

Arrays = dict[str, NDArray[Any]]


def feeds(model: ModelLike, shapes: Mapping[str, tuple[int, ...]] | None = None, seed: int = 0) -> Arrays:
    """Random inputs; symbolic dimensions take what the analysis assumes where ``shapes`` does not say."""
    normal = onnxprune.normalize(model)
    return random_inputs(normal, dict(infer_shapes(normal, shapes).binding), seed)


def run_onnx(model: ModelLike, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The outputs of onnxruntime, as written: one thread, no optimisation."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    proto = as_model(model).to_proto()
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    results: list[NDArray[Any]] = session.run(None, {k: v for k, v in inputs.items() if k in wanted})
    return results


def run_module(module: OnnxModule, inputs: Mapping[str, NDArray[Any]]) -> list[torch.Tensor]:
    """The outputs of a module, always as a list."""
    results = module(*(torch.from_numpy(np.array(inputs[name])) for name in module.onnx_inputs))
    return [results] if isinstance(results, torch.Tensor) else list(results)


def assert_same(wanted: list[NDArray[Any]], found: list[torch.Tensor], tolerance: float = 1e-4) -> None:
    """Equal shapes, types and values, floats within a tolerance relative to the largest."""
    assert len(wanted) == len(found)
    for expected, tensor in zip(wanted, found, strict=True):
        got = tensor.detach()
        assert tuple(got.shape) == expected.shape, f"shape {tuple(got.shape)}, expected {expected.shape}"
        expected_type = torch.from_numpy(np.zeros(0, expected.dtype)).dtype
        assert got.dtype == expected_type, f"type {got.dtype}, expected {expected_type}"
        a, b = expected.astype(np.float64), got.to(torch.float64).numpy()
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
        finite = np.isfinite(a)
        np.testing.assert_array_equal(np.nan_to_num(a[~finite]), np.nan_to_num(b[~finite]))
        gap = np.abs(a[finite] - b[finite]).max(initial=0.0)
        scale = max(np.abs(a[finite]).max(initial=0.0), 1e-3)
        limit = tolerance if expected.dtype.kind == "f" else 0.0
        assert gap <= limit * scale, f"differs by {gap / scale:.2e} of the largest value"


def assert_trainable(module: OnnxModule, inputs: Mapping[str, NDArray[Any]]) -> None:
    """In training mode, every parameter gets a finite gradient."""
    module.train()
    parameters = dict(module.named_parameters())
    loss = sum(y.square().mean() for y in run_module(module, inputs) if y.is_floating_point())
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    missing = [name for name, p in parameters.items() if p.grad is None]
    assert not missing, f"no gradient for {missing}"
    broken = [name for name, p in parameters.items() if p.grad is not None and not bool(p.grad.isfinite().all())]
    assert not broken, f"gradients are not finite for {broken}"
    module.eval()
    module.zero_grad()
