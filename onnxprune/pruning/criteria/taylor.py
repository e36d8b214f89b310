"""The Taylor criterion: how much the loss changes, to first order, when a channel is multiplied by nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import UsageError, installing
from onnxprune.ir.graph import Graph
from onnxprune.ops import Registry
from onnxprune.ops.layers import affine, linear_layer
from onnxprune.pruning.criteria.base import FloatArray, Scoring, completed, merged
from onnxprune.pruning.criteria.weights import NormCriterion

if TYPE_CHECKING:
    import torch

    from onnxprune.torch import OnnxModule


class TaylorCriterion:
    """The squared sum of gradient times value of what makes a channel, averaged over batches.

    "Importance Estimation for Neural Network Pruning", Molchanov et al., CVPR 2019. What makes a channel are its
    filter and bias, or the scale and shift of the BatchNormalization behind it; over all producers of an atom they
    add up before they are squared. The loss is the cross-entropy with the labels of the calibration data, or with
    the model's own answers where there are none (half the squared output, for models that score no classes).
    Gradients come from :mod:`onnxprune.torch`, which needs PyTorch.
    """

    name = "taylor"
    comparable = True

    def scores(self, scoring: Scoring) -> FloatArray:
        samples = scoring.data(self.name)
        try:
            import torch

            from onnxprune.torch import to_module
        except ImportError as error:
            raise UsageError(f"criterion 'taylor' needs PyTorch; {installing('torch')}") from error
        module = to_module(scoring.analysis.model)
        gates = [gate for gate in _gates(scoring) if all(name in module.onnx_names for name in gate.weights)]
        sums = np.zeros(scoring.count)
        batches = 0
        for part in samples.slices():
            inputs = [torch.from_numpy(np.ascontiguousarray(samples.inputs[n][part])) for n in module.onnx_inputs]
            targets = None if samples.targets is None else samples.targets[part]
            module.zero_grad(set_to_none=True)
            outputs = module(*inputs)
            _loss(outputs[0] if isinstance(outputs, tuple) else outputs, targets).backward()  # type: ignore[no-untyped-call]
            sums += np.square(np.nan_to_num(merged(scoring.count, _products(module, gates))))
            batches += 1
        seen = np.isfinite(merged(scoring.count, ((gate.labels, np.zeros(len(gate.labels))) for gate in gates)))
        found = np.where(seen, sums / max(batches, 1), np.nan)
        return completed(found, scoring, NormCriterion(2).scores)


@dataclass(frozen=True)
class _Gate:
    """Weights whose products with their gradients add up to a channel's, the channel dimension, and components."""

    weights: tuple[str, ...]
    dims: tuple[int, ...]
    labels: NDArray[np.int64]


def _gates(scoring: Scoring) -> Iterator[_Gate]:
    coupling = scoring.coupling
    graph, axes = coupling.graph, coupling.axes
    for producer in dict.fromkeys(coupling.relations.producers):
        owner = coupling.class_of.get(producer.axis)
        tensor, dim = axes.axis(producer.axis)
        if owner is None or tensor not in graph.model.weights:
            continue
        labels = coupling.class_labels(owner)
        vectors = _normalisation_behind(graph, producer.node, scoring.analysis.registry)
        # Of what else it may be, say of the rows of a product, it tells nothing about these channels.
        if vectors is not None and coupling.class_of.get(axes.id(vectors[0], 0)) == owner:
            yield _Gate(vectors, (0, 0), labels)
            continue
        node = graph.nodes[producer.node]
        layer = linear_layer(node, scoring.analysis.registry)
        bias = node.inputs[layer.bias] if layer is not None and layer.bias >= 0 and node.has_input(layer.bias) else ""
        weight = graph.model.weights.get(bias)
        if weight is not None and weight.shape == (len(labels),):
            yield _Gate((tensor, bias), (dim, 0), labels)
        else:
            yield _Gate((tensor,), (dim,), labels)


def _normalisation_behind(graph: Graph, index: int, registry: Registry) -> tuple[str, str] | None:
    output = graph.nodes[index].outputs[0]
    readers = graph.consumers.get(output, [])
    if len(readers) != 1 or output in graph.outputs:
        return None
    reader = graph.nodes[readers[0]]
    found = affine(reader, registry)
    if found is None or not found.held(found.scale, found.shift):
        return None
    return reader.inputs[found.scale], reader.inputs[found.shift]


def _products(module: OnnxModule, gates: list[_Gate]) -> Iterator[tuple[NDArray[np.int64], FloatArray]]:
    values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for gate in gates:
        total = np.zeros(len(gate.labels))
        for name, dim in zip(gate.weights, gate.dims, strict=True):
            held = module.onnx_names[name]
            parts = [_product(values[key]) for key in held.keys if key in values]
            if len(parts) == len(held.keys):
                array = held.layout.to_onnx(parts)
                total += array.sum(axis=tuple(d for d in range(array.ndim) if d != dim), dtype=np.float64)
        yield gate.labels, total


def _product(value: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = value.detach().numpy()
    return np.zeros_like(array) if value.grad is None else array * value.grad.numpy()


def _loss(output: torch.Tensor, targets: NDArray[Any] | None) -> torch.Tensor:
    import torch
    from torch.nn import functional

    if output.ndim < 2 or output.shape[1] < 2 or not output.is_floating_point():
        return output.float().square().sum() / 2
    known = targets is not None and targets.dtype.kind in "iu" and targets.ndim == output.ndim - 1
    wanted = torch.from_numpy(np.ascontiguousarray(targets, dtype=np.int64)) if known else output.detach().argmax(dim=1)
    sums = output.detach().sum(dim=1)
    if bool((output >= 0).all()) and bool(torch.allclose(sums, torch.ones_like(sums), atol=1e-3)):
        return functional.nll_loss(output.clamp_min(1e-12).log(), wanted)
    return functional.cross_entropy(output, wanted)
