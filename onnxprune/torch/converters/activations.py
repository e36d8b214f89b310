"""Activations: modules of ``torch.nn`` wherever it has them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import elementwise as functions
from onnxprune.torch.layouts import Reshaped

_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
_SIXTH = 1 / 6


def applying(make: Callable[[Node], nn.Module]) -> Convert:
    """Apply a module without weights to the first operand."""

    def convert(node: Node, build: Builder) -> fx.Node:
        return build.module(node, make(node), build.tensor(node, 0))

    return convert


def _axis(node: Node, default: int) -> int:
    return int(node.attr("axis", default))


def _softmax_from(log: bool) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        axis, rank = _axis(node, 1), build.rank(node)
        if rank is not None and axis in (rank - 1, -1):
            return build.module(node, nn.LogSoftmax(axis) if log else nn.Softmax(axis), build.tensor(node, 0))
        return build.call(functions.softmax_from, build.tensor(node, 0), axis, log)

    return convert


def _hardmax(default: int, from_axis: bool) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        return build.call(functions.hardmax, build.tensor(node, 0), _axis(node, default), from_axis)

    return convert


def _hard_sigmoid(node: Node, build: Builder) -> fx.Node:
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    # A float32 attribute is never exactly a sixth.
    if math.isclose(alpha, _SIXTH, rel_tol=1e-5) and beta == 0.5:
        return build.module(node, nn.Hardsigmoid(), build.tensor(node, 0))
    return build.call(functions.hard_sigmoid, build.tensor(node, 0), alpha, beta)


def _selu(node: Node, build: Builder) -> fx.Node:
    alpha, gamma = node.attr("alpha", _SELU_ALPHA), node.attr("gamma", _SELU_GAMMA)
    if np.allclose((alpha, gamma), (_SELU_ALPHA, _SELU_GAMMA), rtol=1e-6):
        return build.module(node, nn.SELU(), build.tensor(node, 0))
    return build.call(functions.selu, build.tensor(node, 0), alpha, gamma)


def _swish(node: Node, build: Builder) -> fx.Node:
    alpha = node.attr("alpha", 1.0)
    if alpha == 1.0:
        return build.module(node, nn.SiLU(), build.tensor(node, 0))
    return build.call(functions.swish, build.tensor(node, 0), alpha)


def _shrink(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.shrink, build.tensor(node, 0), node.attr("bias", 0.0), node.attr("lambd", 0.5))


def _prelu(node: Node, build: Builder) -> fx.Node:
    """``nn.PReLU`` where the slope is one number, or one per channel; a broadcast product elsewhere."""
    slope, rank = build.constant(node, 1), build.rank(node)
    if slope is not None and rank is not None and rank >= 2:
        layout = Reshaped(slope.shape, (slope.size,))
        per_channel = slope.ndim >= rank - 1 and slope.size == slope.shape[1 - rank]
        if (slope.size == 1 or per_channel) and build.fits(node, 1, layout):
            module = nn.PReLU(slope.size)
            return build.module(node, module, build.tensor(node, 0), weights={"weight": (node.inputs[1], layout)})
    return build.call(functions.prelu, *build.tensors(node))


def _dropout(ratio: Callable[[Node, Builder], float]) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node | tuple[fx.Node, ...]:
        x = build.tensor(node, 0)
        dropped = build.module(node, nn.Dropout(ratio(node, build)), x)
        if not node.has_output(1):
            return dropped
        # The mask of evaluation: everything is kept.
        return dropped, build.call(torch.ones_like, x, dtype=torch.bool)

    return convert


def _ratio_operand(node: Node, build: Builder) -> float:
    ratio = build.constant(node, 1)
    return 0.5 if ratio is None else float(ratio)


def _refuse_training(node: Node) -> str | None:
    if node.has_input(2) and node.graph.shapes.value(node.inputs[2]) is None:
        return "whether it drops is computed at run time; make training_mode a constant"
    return None


CONVERTERS = (
    Converter("Celu", applying(lambda node: nn.CELU(node.attr("alpha", 1.0)))),
    Converter("Dropout", _dropout(lambda node, _: float(node.attr("ratio", 0.5))), until=11),
    Converter("Dropout", _dropout(_ratio_operand), since=12, refuse=_refuse_training),
    Converter("Elu", applying(lambda node: nn.ELU(node.attr("alpha", 1.0)))),
    Converter("Gelu", applying(lambda node: nn.GELU(node.attr("approximate", "none")))),
    Converter("HardSigmoid", _hard_sigmoid),
    Converter("HardSwish", applying(lambda _: nn.Hardswish())),
    Converter("Hardmax", _hardmax(1, from_axis=True), until=12),
    Converter("Hardmax", _hardmax(-1, from_axis=False), since=13),
    Converter("LeakyRelu", applying(lambda node: nn.LeakyReLU(node.attr("alpha", 0.01)))),
    Converter("LogSoftmax", _softmax_from(log=True), until=12),
    Converter("LogSoftmax", applying(lambda node: nn.LogSoftmax(_axis(node, -1))), since=13),
    Converter("Mish", applying(lambda _: nn.Mish())),
    Converter("PRelu", _prelu),
    Converter("Relu", applying(lambda _: nn.ReLU())),
    Converter("Selu", _selu),
    Converter("Shrink", _shrink),
    Converter("Sigmoid", applying(lambda _: nn.Sigmoid())),
    Converter("Softmax", _softmax_from(log=False), until=12),
    Converter("Softmax", applying(lambda node: nn.Softmax(_axis(node, -1))), since=13),
    Converter("Softplus", applying(lambda _: nn.Softplus())),
    Converter("Softsign", applying(lambda _: nn.Softsign())),
    Converter("Swish", _swish),
    Converter("Tanh", applying(lambda _: nn.Tanh())),
    Converter("ThresholdedRelu", applying(lambda node: nn.Threshold(node.attr("alpha", 1.0), 0.0))),
)
