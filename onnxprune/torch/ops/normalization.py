"""Normalisation: modules of ``torch.nn`` where scale and bias are weights, functions elsewhere."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.layouts import AsIs, Layout
from onnxprune.torch.tensors import torch_dtype

Tensor = torch.Tensor

_BATCH: dict[int, type[nn.modules.batchnorm._BatchNorm]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
_INSTANCE: dict[int, type[nn.Module]] = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def _batch_norm(node: Node, build: Builder) -> fx.Node | tuple[fx.Node, ...]:
    epsilon, momentum = node.attr("epsilon", 1e-5), node.attr("momentum", 0.9)
    if node.attr("training_mode", 0):
        every = build.call(batch_norm_training, *build.tensors(node), epsilon, momentum)
        return tuple(build.item(every, index) for index in range(3))
    make = _BATCH.get(build.rank(node) or 0)
    distinct = len(set(node.inputs[1:5])) == 4
    if make is not None and distinct and all(build.fits(node, index, AsIs()) for index in range(1, 5)):
        # ONNX's momentum is the share of the old statistics, PyTorch's that of the new ones;
        # single precision holds no tenth.
        module = make(node.in_shape(1)[0], eps=epsilon, momentum=round(1 - momentum, 6))
        names: dict[str, tuple[str, Layout]] = {
            attribute: (node.inputs[index], AsIs())
            for index, attribute in enumerate(("weight", "bias", "running_mean", "running_var"), 1)
        }
        return build.module(node, module, build.tensor(node, 0), weights=names)
    return build.call(batch_norm, *build.tensors(node), epsilon)


def _instance_norm(node: Node, build: Builder) -> fx.Node:
    epsilon = node.attr("epsilon", 1e-5)
    make = _INSTANCE.get(build.rank(node) or 0)
    if make is not None and build.fits(node, 1, AsIs()) and build.fits(node, 2, AsIs()):
        module = make(node.in_shape(1)[0], eps=epsilon, affine=True)
        return build.module(node, module, build.tensor(node, 0), weights=_scale_and_bias(node))
    return build.call(instance_norm, *build.tensors(node), epsilon)


def _scale_and_bias(node: Node) -> dict[str, tuple[str, Layout]]:
    return {"weight": (node.inputs[1], AsIs()), "bias": (node.inputs[2], AsIs())}


def _layer_norm(node: Node, build: Builder) -> fx.Node | tuple[fx.Node, ...]:
    axis, epsilon = node.attr("axis", -1), node.attr("epsilon", 1e-5)
    rank, scale = build.rank(node), build.constant(node, 1)
    fits = rank is not None and scale is not None and build.fits(node, 1, AsIs())
    fits = fits and (not build.has(node, 2) or build.fits(node, 2, AsIs()))
    whole = rank is not None and scale is not None and scale.ndim == rank - axis % rank
    same = whole and (not build.has(node, 2) or node.in_shape(2) == node.in_shape(1))
    # A scale that is broadcast over some of the dimensions is no module's weight.
    full = same and scale is not None and tuple(scale.shape) == node.in_shape(0)[axis:]
    if fits and full and not node.has_output(1) and not node.has_output(2):
        module = nn.LayerNorm(node.in_shape(1), eps=epsilon, bias=build.has(node, 2))
        weights: dict[str, tuple[str, Layout]] = {"weight": (node.inputs[1], AsIs())}
        if build.has(node, 2):
            weights["bias"] = (node.inputs[2], AsIs())
        return build.module(node, module, build.tensor(node, 0), weights=weights)
    every = build.call(
        layer_norm, build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2), axis, epsilon,
        _stash(node),
    )  # fmt: skip
    return tuple(build.item(every, index) for index in range(3))


def _stash(node: Node) -> torch.dtype | None:
    return torch_dtype(node.attr("stash_type", 1))


def convert_rms_norm(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    x, scale = build.tensor(node, 0), build.tensor(node, 1)
    both = build.call(rms_norm, x, scale, node.attr("axis", -1), node.attr("epsilon", 1e-5), _stash(node))
    return build.item(both, 0), build.item(both, 1)


def _group_norm(per_group: bool) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        groups, epsilon = node.attr("num_groups"), node.attr("epsilon", 1e-5)
        if not per_group and build.fits(node, 1, AsIs()) and build.fits(node, 2, AsIs()):
            module = nn.GroupNorm(groups, node.in_shape(1)[0], epsilon)
            return build.module(node, module, build.tensor(node, 0), weights=_scale_and_bias(node))
        return build.call(group_norm, *build.tensors(node), groups, epsilon, per_group)

    return convert


def _lp_normalize(node: Node, build: Builder) -> fx.Node:
    return build.call(lp_normalize, build.tensor(node, 0), node.attr("axis", -1), node.attr("p", 2))


def _mean_variance(node: Node, build: Builder) -> fx.Node:
    axes = tuple(node.attr("axes", (0, 2, 3)))
    return build.call(mean_variance_normalize, build.tensor(node, 0), axes)


def _local_response(node: Node, build: Builder) -> fx.Node:
    size, alpha, beta, bias = (
        node.attr("size"),
        node.attr("alpha", 0.0001),
        node.attr("beta", 0.75),
        node.attr("bias", 1.0),
    )
    if size % 2:
        return build.module(node, nn.LocalResponseNorm(size, alpha, beta, bias), build.tensor(node, 0))
    return build.call(local_response, build.tensor(node, 0), size, alpha, beta, bias)


def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """Normalise channels by given statistics."""
    channels = (1, -1) + (1,) * (x.dim() - 2)
    scale, bias, mean, variance = (v.reshape(channels) for v in (scale, bias, mean, variance))
    return ((x - mean) * torch.rsqrt(variance + epsilon) * scale + bias).to(x.dtype)


def batch_norm_training(
    x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, epsilon: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise channels by the statistics of the batch; returns the running ones as well."""
    dims = [d for d in range(x.dim()) if d != 1]
    own_mean, own_variance = x.mean(dims), x.var(dims, correction=0)
    y = batch_norm(x, scale, bias, own_mean, own_variance, epsilon)
    running = mean * momentum + own_mean * (1 - momentum), variance * momentum + own_variance * (1 - momentum)
    return y, running[0].to(mean.dtype), running[1].to(variance.dtype)


def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalise every channel of every sample by itself."""
    dims = tuple(range(2, x.dim()))
    centred = x - x.mean(dims, keepdim=True)
    channels = (-1,) + (1,) * (x.dim() - 2)
    normal = centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + epsilon)
    return normal * scale.reshape(channels) + bias.reshape(channels)


def layer_norm(
    x: Tensor, scale: Tensor | None, bias: Tensor | None, axis: int, epsilon: float, stash: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise over all dimensions from ``axis`` on; returns mean and inverse deviation as well."""
    dims = tuple(range(axis % x.dim(), x.dim()))
    wide = x if stash is None else x.to(stash)
    mean = wide.mean(dims, keepdim=True)
    centred = wide - mean
    inverse = torch.rsqrt(centred.square().mean(dims, keepdim=True) + epsilon)
    y = (centred * inverse).to(x.dtype)
    y = y if scale is None else y * scale
    return (y if bias is None else y + bias), mean, inverse


def rms_norm(x: Tensor, scale: Tensor, axis: int, epsilon: float, stash: torch.dtype | None) -> tuple[Tensor, Tensor]:
    """Divide by the root of the mean square over all dimensions from ``axis`` on; returns the inverse as well."""
    dims = tuple(range(axis % x.dim(), x.dim()))
    wide = x if stash is None else x.to(stash)
    inverse = torch.rsqrt(wide.square().mean(dims, keepdim=True) + epsilon)
    return (wide * inverse).to(x.dtype) * scale, inverse


def group_norm(x: Tensor, scale: Tensor, bias: Tensor, groups: int, epsilon: float, per_group: bool) -> Tensor:
    """Normalise groups of channels; scale and bias are per channel, or per group (opset 18)."""
    normal = F.group_norm(x, groups, eps=epsilon)
    if per_group:
        each = x.shape[1] // groups
        scale, bias = scale.repeat_interleave(each), bias.repeat_interleave(each)
    channels = (-1,) + (1,) * (x.dim() - 2)
    return normal * scale.reshape(channels) + bias.reshape(channels)


def lp_normalize(x: Tensor, axis: int, p: int) -> Tensor:
    """Divide by the p-norm along an axis; what has norm zero stays zero."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))


def mean_variance_normalize(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Mean zero and variance one over the axes."""
    centred = x - x.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)


def local_response(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """Divide by a power of the sum of squares of the neighbouring channels."""
    before = (size - 1) // 2
    squares = F.pad(x.square().flatten(2).movedim(1, -1), (before, size - 1 - before))
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1).reshape(x.shape)
    return x / (bias + alpha / size * sums).pow(beta)


CONVERTERS = (
    Converter("BatchNormalization", _batch_norm, since=7),
    Converter("GroupNormalization", _group_norm(per_group=True), since=18, until=20),
    Converter("GroupNormalization", _group_norm(per_group=False), since=21),
    Converter("InstanceNormalization", _instance_norm),
    Converter("LRN", _local_response),
    Converter("LayerNormalization", _layer_norm),
    Converter("LpNormalization", _lp_normalize),
    Converter("MeanVarianceNormalization", _mean_variance),
    Converter("RMSNormalization", convert_rms_norm, since=23),
)
