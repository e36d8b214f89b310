"""LSTM, GRU and RNN: the layers of ``torch.nn`` where they mean the same."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import recurrent as functions
from onnxprune.torch.layouts import Gates

_ORDERS = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
"""PyTorch's gates (LSTM: input, forget, cell, output; GRU: reset, update, new) as ONNX numbers them."""
_LAYERS: dict[str, type[nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
_WITH_BETA = frozenset({"Affine", "HardSigmoid", "ScaledTanh"})
_WITH_ALPHA = _WITH_BETA | {"Elu", "LeakyRelu", "ThresholdedRelu"}


def _recurrent(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    if _is_plain(node, build):
        return _layer(node, build)
    settings = {
        "direction": node.attr("direction", "forward"),
        "hidden_size": node.attr("hidden_size") or node.in_shape(2)[2],
        "activations": _activations(node),
        "clip": node.attr("clip"),
        "linear_before_reset": bool(node.attr("linear_before_reset", 0)),
        "input_forget": bool(node.attr("input_forget", 0)),
        "batch_first": bool(node.attr("layout", 0)),
    }
    operands = [build.optional(node, index) for index in range(len(node.inputs))]
    every = build.call(functions.recurrent, node.op_type, operands, settings)
    return tuple(build.item(every, index) for index in range(3 if node.op_type == "LSTM" else 2))


def _directions(node: Node) -> int:
    return 2 if node.attr("direction", "forward") == "bidirectional" else 1


def _activations(node: Node) -> tuple[tuple[str, float | None, float | None], ...]:
    """Name, alpha and beta of each; the file lists parameters only for those that have them."""
    names = [_plain_name(n) for n in node.attr("activations") or _DEFAULTS[node.op_type] * _directions(node)]
    alphas, betas = iter(node.attr("activation_alpha", ())), iter(node.attr("activation_beta", ()))
    return tuple(
        (name, next(alphas, None) if name in _WITH_ALPHA else None, next(betas, None) if name in _WITH_BETA else None)
        for name in names
    )


def _plain_name(name: bytes | str) -> str:
    """The activation's name as the specification writes it; files differ in case."""
    text = name.decode(errors="backslashreplace") if isinstance(name, bytes) else name
    return next((known for known in functions.ACTIVATIONS if known.lower() == text.lower()), text)


def _is_plain(node: Node, build: Builder) -> bool:
    """Whether a layer of ``torch.nn`` computes it: usual activations, no clipping, lengths or peepholes."""
    names = tuple(name for name, _, _ in _activations(node))
    usual = names == _DEFAULTS[node.op_type] * _directions(node)
    if node.op_type == "RNN":
        usual = names in (("Tanh",) * len(names), ("Relu",) * len(names))
    special = node.attr("clip") is not None or node.attr("input_forget", 0) or build.has(node, 4) or build.has(node, 7)
    if not usual or special or (node.op_type == "GRU" and not node.attr("linear_before_reset", 0)):
        return False
    layouts = _layouts(node)
    present = [index for index in layouts if build.has(node, index)]
    own = len({node.inputs[index] for index in present}) == len(present)
    return own and all(build.fits(node, index, layouts[index]) for index in present)


def _layouts(node: Node) -> dict[int, Gates]:
    order, directions = _ORDERS[node.op_type], _directions(node)
    return {1: Gates(order, directions), 2: Gates(order, directions), 3: Gates(order, directions, halves=2)}


def _layer(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    directions = _directions(node)
    hidden, width = node.in_shape(2)[2], node.in_shape(1)[2]
    settings: dict[str, Any] = {"bias": build.has(node, 3), "bidirectional": directions == 2}
    if node.op_type == "RNN":
        settings["nonlinearity"] = _activations(node)[0][0].lower()
    layer = _LAYERS[node.op_type](width, hidden, device="meta", **settings)
    path = build.claim(node.inputs[1], layer)
    suffixes = ("", "_reverse")[:directions]
    layouts = _layouts(node)
    build.attach(layer, path, [f"weight_ih_l0{s}" for s in suffixes], node.inputs[1], layouts[1])
    build.attach(layer, path, [f"weight_hh_l0{s}" for s in suffixes], node.inputs[2], layouts[2])
    if build.has(node, 3):
        biases = [f"bias_{kind}_l0{s}" for s in suffixes for kind in ("ih", "hh")]
        build.attach(layer, path, biases, node.inputs[3], layouts[3])
    return _call(node, build, path, directions)


def _call(node: Node, build: Builder, path: str, directions: int) -> tuple[fx.Node, ...]:
    batch_first, backward = bool(node.attr("layout", 0)), node.attr("direction", "forward") == "reverse"
    x = build.tensor(node, 0)
    h, c = build.optional(node, 5), build.optional(node, 6) if node.op_type == "LSTM" else None
    if batch_first:
        x = build.call(torch.transpose, x, 0, 1)
        h, c = (None if s is None else build.call(torch.transpose, s, 0, 1) for s in (h, c))
    if backward:
        x = build.call(torch.flip, x, (0,))
    start: Any = h
    if node.op_type == "LSTM" and (h is not None or c is not None):
        start = (h or build.call(torch.zeros_like, c), c or build.call(torch.zeros_like, h))
    result = build.fx.call_module(path, (x,) if start is None else (x, start))
    y, last = build.item(result, 0), build.item(result, 1)
    if backward:
        y = build.call(torch.flip, y, (0,))
    y = build.call(functions.by_direction, y, directions, batch_first)
    states = [build.item(last, 0), build.item(last, 1)] if node.op_type == "LSTM" else [last]
    if batch_first:
        states = [build.call(torch.transpose, state, 0, 1) for state in states]
    return (y, *states)


def _refuse(node: Node) -> str | None:
    unknown = [name for name, _, _ in _activations(node) if name not in functions.ACTIVATIONS]
    return f"activation {unknown[0]} is not known" if unknown else None


CONVERTERS = tuple(Converter(op_type, _recurrent, since=7, refuse=_refuse) for op_type in _LAYERS)
