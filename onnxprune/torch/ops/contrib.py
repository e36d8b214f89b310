"""Operators of onnxruntime's own domain that its optimiser writes in place of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.ops.convolution import convolution
from onnxprune.torch.ops.elementwise import applying, swish
from onnxprune.torch.ops.matmul import gemm
from onnxprune.torch.ops.normalization import convert_rms_norm

Tensor = torch.Tensor

_ACTIVATIONS: Mapping[str, Callable[[Tensor, Sequence[float]], Tensor]] = {
    "Clip": lambda x, p: x.clamp(*p),
    "HardSigmoid": lambda x, p: (p[0] * x + p[1]).clamp(0, 1) if p else F.hardsigmoid(x),
    "HardSwish": lambda x, p: F.hardswish(x),
    "LeakyRelu": lambda x, p: F.leaky_relu(x, p[0] if p else 0.01),
    "Relu": lambda x, p: F.relu(x),
    "Sigmoid": lambda x, p: torch.sigmoid(x),
    "Tanh": lambda x, p: torch.tanh(x),
}
_DOMAIN = "com.microsoft"


def _bias_gelu(node: Node, build: Builder) -> fx.Node:
    return build.call(biased_gelu, *build.tensors(node))


def _fast_gelu(node: Node, build: Builder) -> fx.Node:
    return build.call(biased_gelu, build.tensor(node, 0), build.optional(node, 1), "tanh")


def _quick_gelu(node: Node, build: Builder) -> fx.Node:
    return build.call(swish, build.tensor(node, 0), node.attr("alpha", 1.702))


def _fused_conv(node: Node, build: Builder) -> fx.Node:
    addend = build.optional(node, 3)
    parameters = tuple(node.attr("activation_params", ()))
    return build.call(activate, convolution(node, build), node.attr("activation"), parameters, addend)


def _fused_gemm(node: Node, build: Builder) -> fx.Node:
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    parameters = tuple(v for v in map(node.attr, names) if v is not None)
    return build.call(activate, gemm(node, build), node.attr("activation"), parameters)


def _fused_matmul(node: Node, build: Builder) -> fx.Node:
    flags = {name: node.attr(name, 0) for name in ("transA", "transB", "transBatchA", "transBatchB")}
    return build.call(fused_matmul, *build.tensors(node), node.attr("alpha", 1.0), flags)


def _skip_layer_norm(simplified: bool) -> Convert:
    def convert(node: Node, build: Builder) -> tuple[fx.Node, ...]:
        bias, extra = (None, 3) if simplified else (3, 4)
        both = build.call(
            skip_layer_norm, build.tensor(node, 0), build.tensor(node, 1), build.tensor(node, 2),
            None if bias is None else build.optional(node, bias), build.optional(node, extra),
            node.attr("epsilon", 1e-5), simplified,
        )  # fmt: skip
        y, total = build.item(both, 0), build.item(both, 1)
        # Outputs 1 and 2 (mean and deviation) are for training and never filled.
        return y, y, y, total

    return convert


def _refuse_activation(node: Node) -> str | None:
    name = node.attr("activation")
    return None if name in ACTIVATIONS else f"activation {name} is not known"


def _refuse_statistics(node: Node) -> str | None:
    return "mean and deviation as outputs are not known" if node.has_output(1) or node.has_output(2) else None


def biased_gelu(x: Tensor, bias: Tensor | None, approximate: str = "none") -> Tensor:
    """Gelu of a sum."""
    return F.gelu(x if bias is None else x + bias, approximate=approximate)


def fused_matmul(a: Tensor, b: Tensor, alpha: float, flags: Mapping[str, int]) -> Tensor:
    """alpha · a · b, each transposed in the last two dimensions, or its batch dimensions moved before the last."""
    left = _arranged(a, flags["transA"], flags["transBatchA"])
    right = _arranged(b, flags["transB"], flags["transBatchB"])
    return torch.matmul(left, right) * alpha


def _arranged(x: Tensor, transposed: int, batch: int) -> Tensor:
    if x.dim() < 2:
        return x
    moved = x.movedim(0, -2) if batch else x
    return moved.transpose(-1, -2) if transposed else moved


def skip_layer_norm(
    x: Tensor, skip: Tensor, scale: Tensor, bias: Tensor | None, extra: Tensor | None, epsilon: float, simplified: bool
) -> tuple[Tensor, Tensor]:
    """Normalise the sum of a stream and what is added to it; returns that sum as well."""
    total = x + skip if extra is None else x + skip + extra
    if simplified:
        y = total * torch.rsqrt(total.square().mean(-1, keepdim=True) + epsilon) * scale
    else:
        y = F.layer_norm(total, total.shape[-1:], scale, bias, epsilon)
    return y, total


def activate(x: Tensor, name: str, parameters: Sequence[float], addend: Any = None) -> Tensor:
    """An activation by name, of ``x`` or of its sum with another tensor."""
    return _ACTIVATIONS[name](x if addend is None else x + addend, parameters)


ACTIVATIONS = frozenset(_ACTIVATIONS)
"""What :func:`activate` knows."""

CONVERTERS = (
    Converter("BiasGelu", _bias_gelu, domain=_DOMAIN),
    Converter("FastGelu", _fast_gelu, domain=_DOMAIN),
    Converter("FusedConv", _fused_conv, domain=_DOMAIN, refuse=_refuse_activation),
    Converter("FusedGemm", _fused_gemm, domain=_DOMAIN, refuse=_refuse_activation),
    Converter("FusedMatMul", _fused_matmul, domain=_DOMAIN),
    Converter("Gelu", applying(lambda _: nn.GELU()), domain=_DOMAIN),
    Converter("QuickGelu", _quick_gelu, domain=_DOMAIN),
    Converter("SimplifiedLayerNormalization", convert_rms_norm),
    Converter("SkipLayerNormalization", _skip_layer_norm(simplified=False), domain=_DOMAIN, refuse=_refuse_statistics),
    Converter(
        "SkipSimplifiedLayerNormalization",
        _skip_layer_norm(simplified=True),
        domain=_DOMAIN,
        refuse=_refuse_statistics,
    ),
    Converter("TransposeMatMul", _fused_matmul, domain=_DOMAIN),
)  # fmt: skip
