"""Normalisation: modules of ``torch.nn`` where scale and bias are weights."""

from __future__ import annotations

import torch
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import normalization as functions
from onnxprune.torch.layouts import AsIs, Layout
from onnxprune.torch.tensors import torch_dtype

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
        every = build.call(functions.batch_norm_training, *build.tensors(node), epsilon, momentum)
        return tuple(build.item(every, index) for index in range(3))
    make = _BATCH.get(build.rank(node) or 0)
    distinct = len(set(node.inputs[1:5])) == 4
    if make is not None and distinct and all(build.fits(node, index, AsIs()) for index in range(1, 5)):
        # ONNX's momentum is the share of the old statistics, PyTorch's that of the new ones.
        module = make(node.in_shape(1)[0], eps=epsilon, momentum=1 - momentum)
        names: dict[str, tuple[str, Layout]] = {
            attribute: (node.inputs[index], AsIs())
            for index, attribute in enumerate(("weight", "bias", "running_mean", "running_var"), 1)
        }
        return build.module(node, module, build.tensor(node, 0), weights=names)
    return build.call(functions.batch_norm, *build.tensors(node), epsilon)


def _instance_norm(node: Node, build: Builder) -> fx.Node:
    epsilon = node.attr("epsilon", 1e-5)
    make = _INSTANCE.get(build.rank(node) or 0)
    if make is not None and build.fits(node, 1, AsIs()) and build.fits(node, 2, AsIs()):
        module = make(node.in_shape(1)[0], eps=epsilon, affine=True)
        return build.module(node, module, build.tensor(node, 0), weights=_scale_and_bias(node))
    return build.call(functions.instance_norm, *build.tensors(node), epsilon)


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
        functions.layer_norm, build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2), axis, epsilon,
        _stash(node),
    )  # fmt: skip
    return tuple(build.item(every, index) for index in range(3))


def _stash(node: Node) -> torch.dtype | None:
    return torch_dtype(node.attr("stash_type", 1))


def _rms_norm(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    x, scale = build.tensor(node, 0), build.tensor(node, 1)
    both = build.call(functions.rms_norm, x, scale, node.attr("axis", -1), node.attr("epsilon", 1e-5), _stash(node))
    return build.item(both, 0), build.item(both, 1)


def _group_norm(per_group: bool) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        groups, epsilon = node.attr("num_groups"), node.attr("epsilon", 1e-5)
        if not per_group and build.fits(node, 1, AsIs()) and build.fits(node, 2, AsIs()):
            module = nn.GroupNorm(groups, node.in_shape(1)[0], epsilon)
            return build.module(node, module, build.tensor(node, 0), weights=_scale_and_bias(node))
        return build.call(functions.group_norm, *build.tensors(node), groups, epsilon, per_group)

    return convert


def _lp_normalize(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.lp_normalize, build.tensor(node, 0), node.attr("axis", -1), node.attr("p", 2))


def _mean_variance(node: Node, build: Builder) -> fx.Node:
    axes = tuple(node.attr("axes", (0, 2, 3)))
    return build.call(functions.mean_variance_normalize, build.tensor(node, 0), axes)


def _local_response(node: Node, build: Builder) -> fx.Node:
    size, alpha, beta, bias = (
        node.attr("size"),
        node.attr("alpha", 0.0001),
        node.attr("beta", 0.75),
        node.attr("bias", 1.0),
    )
    if size % 2:
        return build.module(node, nn.LocalResponseNorm(size, alpha, beta, bias), build.tensor(node, 0))
    return build.call(functions.local_response, build.tensor(node, 0), size, alpha, beta, bias)


CONVERTERS = (
    Converter("BatchNormalization", _batch_norm, since=7),
    Converter("GroupNormalization", _group_norm(per_group=True), since=18, until=20),
    Converter("GroupNormalization", _group_norm(per_group=False), since=21),
    Converter("InstanceNormalization", _instance_norm),
    Converter("LRN", _local_response),
    Converter("LayerNormalization", _layer_norm),
    Converter("LpNormalization", _lp_normalize),
    Converter("MeanVarianceNormalization", _mean_variance),
    Converter("RMSNormalization", _rms_norm, since=23),
    Converter("SimplifiedLayerNormalization", _rms_norm),
)
