"""LSTM, GRU and RNN step by step, for what PyTorch's own layers do not have: lengths, peepholes, clipping."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.torch.functions.indexing import reverse_sequence

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
ACTIVATIONS = frozenset(_ACTIVATIONS)
"""The activations that :func:`recurrent` knows."""


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
