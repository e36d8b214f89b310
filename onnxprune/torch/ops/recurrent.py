"""Recurrent layers: those of ``torch.nn`` where they mean the same, step by step elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.layouts import Gates
from onnxprune.torch.ops.reshaping import reverse_sequence

Tensor = torch.Tensor

Activation = Callable[[Tensor], Tensor]
_ACTIVATIONS: Mapping[str, Callable[[Tensor, float | None, float | None], Tensor]] = {
    "Affine": lambda x, a, b: _or(a, 1.0) * x + _or(b, 0.0),
    "Elu": lambda x, a, b: F.elu(x, _or(a, 1.0)),
    "HardSigmoid": lambda x, a, b: (_or(a, 0.2) * x + _or(b, 0.5)).clamp(0, 1),
    "LeakyRelu": lambda x, a, b: F.leaky_relu(x, _or(a, 0.01)),
    "Relu": lambda x, a, b: x.relu(),
    "ScaledTanh": lambda x, a, b: _or(a, 1.0) * torch.tanh(_or(b, 1.0) * x),
    "Sigmoid": lambda x, a, b: x.sigmoid(),
    "Softplus": lambda x, a, b: F.softplus(x),
    "Softsign": lambda x, a, b: F.softsign(x),
    "Tanh": lambda x, a, b: x.tanh(),
    "ThresholdedRelu": lambda x, a, b: F.threshold(x, _or(a, 1.0), 0.0),
}
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
    every = build.call(recurrent, node.op_type, operands, settings)
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
    return next((known for known in ACTIVATIONS if known.lower() == text.lower()), text)


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
    y = build.call(by_direction, y, directions, batch_first)
    states = [build.item(last, 0), build.item(last, 1)] if node.op_type == "LSTM" else [last]
    if batch_first:
        states = [build.call(torch.transpose, state, 0, 1) for state in states]
    return (y, *states)


def _refuse(node: Node) -> str | None:
    unknown = [name for name, _, _ in _activations(node) if name not in ACTIVATIONS]
    return f"activation {unknown[0]} is not known" if unknown else None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def by_direction(y: Tensor, directions: int, batch_first: bool) -> Tensor:
    """(time, batch, directions · hidden) as (time, directions, batch, hidden), or batch, time, directions, hidden."""
    split = y.reshape(*y.shape[:2], directions, -1)
    return split.permute(1, 0, 2, 3) if batch_first else split.permute(0, 2, 1, 3)


def recurrent(kind: str, operands: Sequence[Tensor | None], settings: dict[str, Any]) -> tuple[Tensor, ...]:
    """Y, Y_h and (LSTM) Y_c.

    ``operands`` are those of the ONNX operator; ``settings`` holds direction, hidden_size, activations (name, alpha,
    beta), clip, linear_before_reset, input_forget and batch_first.
    """
    padded: list[Any] = [*operands, *[None] * (8 - len(operands))]
    x, w, r, b, lengths, h0, c0, p = padded
    if settings["batch_first"]:
        x = x.transpose(0, 1)
        h0, c0 = (None if s is None else s.transpose(0, 1) for s in (h0, c0))
    directions, hidden = w.shape[0], settings["hidden_size"]
    ys, hs, cs = [], [], []
    for d in range(directions):
        backward = settings["direction"] == "reverse" or d == 1
        zeros = x.new_zeros(x.shape[1], hidden)
        start = (zeros if h0 is None else h0[d], zeros if c0 is None else c0[d])
        steps = _turned(x, lengths) if backward else x
        bias = w.new_zeros(w.shape[1] * 2) if b is None else b[d]
        y, h, c = _run(kind, d, steps, lengths, (w[d], r[d], bias, None if p is None else p[d]), start, settings)
        ys.append(_turned(y, lengths) if backward else y)
        hs.append(h)
        cs.append(c)
    y_all, h_all, c_all = torch.stack(ys, 1), torch.stack(hs), torch.stack(cs)
    if settings["batch_first"]:
        y_all, h_all, c_all = y_all.permute(2, 0, 1, 3), h_all.transpose(0, 1), c_all.transpose(0, 1)
    return (y_all, h_all, c_all) if kind == "LSTM" else (y_all, h_all)


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    return x.flip(0) if lengths is None else reverse_sequence(x, lengths, 1, 0)


def _run(
    kind: str,
    direction: int,
    x: Tensor,
    lengths: Tensor | None,
    weights: tuple[Tensor, Tensor, Tensor, Tensor | None],
    start: tuple[Tensor, Tensor],
    settings: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of one direction: (time, batch, hidden), last hidden and last cell state."""
    each = {"LSTM": 3, "GRU": 2, "RNN": 1}[kind]
    functions = [_activation(*a) for a in settings["activations"][direction * each : (direction + 1) * each]]
    step = {"LSTM": _lstm_step, "GRU": _gru_step, "RNN": _rnn_step}[kind]
    h, c = start
    outputs = []
    for time in range(x.shape[0]):
        new_h, new_c = step(x[time], h, c, weights, functions, settings)
        if lengths is None:
            h, c = new_h, new_c
            outputs.append(h)
        else:
            alive = (time < lengths).unsqueeze(1)
            h, c = torch.where(alive, new_h, h), torch.where(alive, new_c, c)
            outputs.append(torch.where(alive, new_h, torch.zeros_like(new_h)))
    return torch.stack(outputs), h, c


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    function = _ACTIVATIONS[name]
    return lambda x: function(x, alpha, beta)


def _clipped(x: Tensor, settings: dict[str, Any]) -> Tensor:
    limit = settings["clip"]
    return x if limit is None else x.clamp(-limit, limit)


def _lstm_step(
    x: Tensor, h: Tensor, c: Tensor, weights: Any, functions: Sequence[Activation], settings: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    w, r, b, p = weights
    gate, cell, out = functions
    bias_x, bias_h = b.chunk(2)
    i, o, f, g = (x @ w.t() + h @ r.t() + bias_x + bias_h).chunk(4, 1)
    peep_i, peep_o, peep_f = (None, None, None) if p is None else p.chunk(3)
    i = gate(_clipped(i if peep_i is None else i + peep_i * c, settings))
    f = gate(_clipped(f if peep_f is None else f + peep_f * c, settings))
    if settings["input_forget"]:
        f = 1 - i
    new_c = f * c + i * cell(_clipped(g, settings))
    o = gate(_clipped(o if peep_o is None else o + peep_o * new_c, settings))
    return o * out(new_c), new_c


def _gru_step(
    x: Tensor, h: Tensor, c: Tensor, weights: Any, functions: Sequence[Activation], settings: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    w, r, b, _ = weights
    gate, out = functions
    bias_x, bias_h = b.chunk(2)
    x_z, x_r, x_n = (x @ w.t() + bias_x).chunk(3, 1)
    r_z, r_r, r_n = r.chunk(3)
    b_z, b_r, b_n = bias_h.chunk(3)
    z = gate(_clipped(x_z + h @ r_z.t() + b_z, settings))
    reset = gate(_clipped(x_r + h @ r_r.t() + b_r, settings))
    linear_first = settings["linear_before_reset"]
    recalled = reset * (h @ r_n.t() + b_n) if linear_first else (reset * h) @ r_n.t() + b_n
    n = out(_clipped(x_n + recalled, settings))
    return (1 - z) * n + z * h, c


def _rnn_step(
    x: Tensor, h: Tensor, c: Tensor, weights: Any, functions: Sequence[Activation], settings: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    w, r, b, _ = weights
    bias_x, bias_h = b.chunk(2)
    return functions[0](_clipped(x @ w.t() + h @ r.t() + bias_x + bias_h, settings)), c


ACTIVATIONS = frozenset(_ACTIVATIONS)
"""The activations that :func:`recurrent` knows."""

CONVERTERS = tuple(Converter(op_type, _recurrent, since=7, refuse=_refuse) for op_type in _LAYERS)
