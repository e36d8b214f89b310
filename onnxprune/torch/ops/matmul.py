"""Matrix products."""

from __future__ import annotations

import torch
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.layouts import AsIs, Layout, Reshaped, Transposed

Tensor = torch.Tensor


def gemm(node: Node, build: Builder) -> fx.Node:
    """``nn.Linear`` where it is a product with a weight and a bias, else a call."""
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    trans_a, trans_b = bool(node.attr("transA", 0)), bool(node.attr("transB", 0))
    layout: Layout = AsIs() if trans_b else Transposed()
    if alpha == 1.0 and not trans_a and build.fits(node, 1, layout):
        shape = node.in_shape(1) if trans_b else node.in_shape(1)[::-1]
        bias = _bias_layout(node, build, shape[0])
        if not build.has(node, 2) or (beta == 1.0 and bias is not None):
            weights = {"weight": (node.inputs[1], layout)}
            if bias is not None:
                weights["bias"] = (node.inputs[2], bias)
            linear = nn.Linear(shape[1], shape[0], bias is not None, device="meta")
            return build.module(node, linear, build.tensor(node, 0), weights=weights)
    operands = build.tensor(node, 0), build.tensor(node, 1), build.optional(node, 2)
    return build.call(product, *operands, alpha, beta, trans_a, trans_b)


def _bias_layout(node: Node, build: Builder, features: int) -> Layout | None:
    """How a module can hold the third operand as a bias; None if it cannot, or there is none."""
    bias = build.constant(node, 2)
    if bias is None or bias.size != features or (bias.ndim == 2 and bias.shape[0] != 1) or bias.ndim > 2:
        return None
    layout: Layout = AsIs() if bias.ndim == 1 else Reshaped(bias.shape, (features,))
    return layout if build.fits(node, 2, layout) else None


def _matmul(node: Node, build: Builder) -> fx.Node:
    if build.rank(node, 1) == 2 and build.fits(node, 1, Transposed()):
        into, out = node.in_shape(1)
        linear = nn.Linear(into, out, bias=False, device="meta")
        weights: dict[str, tuple[str, Layout]] = {"weight": (node.inputs[1], Transposed())}
        return build.module(node, linear, build.tensor(node, 0), weights=weights)
    return build.call(torch.matmul, *build.tensors(node))


def product(a: Tensor, b: Tensor, c: Tensor | None, alpha: float, beta: float, trans_a: bool, trans_b: bool) -> Tensor:
    """alpha · a · b + beta · c, with a or b transposed."""
    product = (a.t() if trans_a else a) @ (b.t() if trans_b else b)
    if alpha != 1.0:
        product = _times(product, alpha)
    if c is None:
        return product
    return product + (c if beta == 1.0 else _times(c, beta))


def _times(x: Tensor, factor: float) -> Tensor:
    return x * factor if x.is_floating_point() else (x * factor).to(x.dtype)


CONVERTERS = (
    Converter("Gemm", gemm),
    Converter("MatMul", _matmul),
)
