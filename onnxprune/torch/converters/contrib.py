"""Operators of onnxruntime's own domain that stand for several others."""

from __future__ import annotations

from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.converters import convolution, linear
from onnxprune.torch.converters.activations import applying
from onnxprune.torch.functions import contrib as functions

_DOMAIN = "com.microsoft"


def _bias_gelu(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.bias_gelu, *build.tensors(node))


def _fast_gelu(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.fast_gelu, build.tensor(node, 0), build.optional(node, 1))


def _quick_gelu(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.quick_gelu, build.tensor(node, 0), node.attr("alpha", 1.702))


def _fused_conv(node: Node, build: Builder) -> fx.Node:
    addend = build.optional(node, 3)
    parameters = tuple(node.attr("activation_params", ()))
    return build.call(
        functions.activate, convolution.convolution(node, build), node.attr("activation"), parameters, addend
    )


def _fused_gemm(node: Node, build: Builder) -> fx.Node:
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    parameters = tuple(v for v in map(node.attr, names) if v is not None)
    return build.call(functions.activate, linear.gemm(node, build), node.attr("activation"), parameters)


def _fused_matmul(node: Node, build: Builder) -> fx.Node:
    flags = {name: node.attr(name, 0) for name in ("transA", "transB", "transBatchA", "transBatchB")}
    return build.call(functions.fused_matmul, *build.tensors(node), node.attr("alpha", 1.0), flags)


def _skip_layer_norm(simplified: bool) -> Convert:
    def convert(node: Node, build: Builder) -> tuple[fx.Node, ...]:
        bias, extra = (None, 3) if simplified else (3, 4)
        both = build.call(
            functions.skip_layer_norm, build.tensor(node, 0), build.tensor(node, 1), build.tensor(node, 2),
            None if bias is None else build.optional(node, bias), build.optional(node, extra),
            node.attr("epsilon", 1e-5), simplified,
        )  # fmt: skip
        y, total = build.item(both, 0), build.item(both, 1)
        # Outputs 1 and 2 (mean and deviation) are for training and never filled.
        return y, y, y, total

    return convert


def _refuse_activation(node: Node) -> str | None:
    name = node.attr("activation")
    return None if name in functions.ACTIVATIONS else f"activation {name} is not known"


def _refuse_statistics(node: Node) -> str | None:
    return "mean and deviation as outputs are not known" if node.has_output(1) or node.has_output(2) else None


CONVERTERS = (
    Converter("BiasGelu", _bias_gelu, domain=_DOMAIN),
    Converter("FastGelu", _fast_gelu, domain=_DOMAIN),
    Converter("FusedConv", _fused_conv, domain=_DOMAIN, refuse=_refuse_activation),
    Converter("FusedGemm", _fused_gemm, domain=_DOMAIN, refuse=_refuse_activation),
    Converter("FusedMatMul", _fused_matmul, domain=_DOMAIN),
    Converter("Gelu", applying(lambda _: nn.GELU()), domain=_DOMAIN),
    Converter("QuickGelu", _quick_gelu, domain=_DOMAIN),
    Converter("SkipLayerNormalization", _skip_layer_norm(simplified=False), domain=_DOMAIN, refuse=_refuse_statistics),
    Converter(
        "SkipSimplifiedLayerNormalization", _skip_layer_norm(simplified=True), domain=_DOMAIN,
        refuse=_refuse_statistics,
    ),
    Converter("TransposeMatMul", _fused_matmul, domain=_DOMAIN),
)  # fmt: skip
