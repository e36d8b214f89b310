"""Attention and rotary embeddings of opset 23."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder

Tensor = torch.Tensor


def _attention(node: Node, build: Builder) -> tuple[fx.Node, ...]:
    settings = {
        "q_heads": node.attr("q_num_heads", 0),
        "kv_heads": node.attr("kv_num_heads", 0),
        "scale": node.attr("scale", 0.0),
        "causal": bool(node.attr("is_causal", 0)),
        "softcap": node.attr("softcap", 0.0),
        "scores": node.attr("qk_matmul_output_mode", 0),
    }
    operands = [build.optional(node, index) for index in range(6)]
    every = build.call(attention, *operands, settings)
    return tuple(build.item(every, index) for index in range(4))


def _rotary(node: Node, build: Builder) -> fx.Node:
    heads, width = node.attr("num_heads", 0), node.attr("rotary_embedding_dim", 0)
    operands = [build.optional(node, index) for index in range(4)]
    return build.call(rotary, *operands, heads, width, bool(node.attr("interleaved", 0)))


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    settings: dict[str, Any],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The result, keys and values with what was before them, and the scores.

    ``settings`` holds q_heads and kv_heads (for operands (B, S, H · d)), scale, causal, softcap and scores, the
    stage at which the fourth output is taken.
    """
    merged = q.dim() == 3
    if merged:
        q, k, v = (_heads(x, n) for x, n in zip((q, k, v), _counts(settings), strict=True))
    keys = k if past_key is None else torch.cat([past_key, k], 2)
    values = v if past_value is None else torch.cat([past_value, v], 2)
    served = q.shape[1] // keys.shape[1]
    wide_keys, wide_values = (x.repeat_interleave(served, 1) if served > 1 else x for x in (keys, values))
    scale = settings["scale"] or 1 / math.sqrt(q.shape[-1])
    # Both factors take the root, so that half precision does not overflow.
    raw = (q * math.sqrt(scale)) @ (wide_keys * math.sqrt(scale)).transpose(-1, -2)
    before = keys.shape[2] - k.shape[2]
    cap = settings["softcap"]
    # Before the mask, whose minus infinity would become finite.
    capped = torch.tanh(raw / cap) * cap if cap else raw
    bias = _bias(raw, mask, before, settings["causal"])
    biased = capped + bias
    # Who may look at nothing gets zeros, not the undefined softmax of nothing.
    blind = torch.isneginf(bias).all(-1, keepdim=True)
    weights = torch.softmax(biased.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)
    y = weights @ wide_values
    if merged:
        y = y.transpose(1, 2).flatten(2)
    return y, keys, values, (capped, capped, biased, weights)[settings["scores"]]


def _counts(settings: dict[str, Any]) -> tuple[int, int, int]:
    return settings["q_heads"], settings["kv_heads"], settings["kv_heads"]


def _heads(x: Tensor, count: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def _bias(scores: Tensor, mask: Tensor | None, before: int, causal: bool) -> Tensor:
    """What is added to the scores: minus infinity where a position must not be looked at."""
    queries, keys = scores.shape[-2:]
    bias = scores.new_zeros(queries, keys)
    if causal:
        row = torch.arange(queries, device=scores.device).unsqueeze(1)
        column = torch.arange(keys, device=scores.device)
        bias = bias.masked_fill(column > row + before, float("-inf"))
    if mask is None:
        return bias
    if mask.shape[-1] < keys:
        fill = torch.nn.functional.pad
        mask = fill(mask, (0, keys - mask.shape[-1]), value=False if mask.dtype == torch.bool else float("-inf"))
    if mask.dtype == torch.bool:
        return bias + torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, float("-inf"))
    return bias + mask


def rotary(
    x: Tensor, cosines: Tensor, sines: Tensor, places: Tensor | None, heads: int, width: int, interleaved: bool
) -> Tensor:
    """Pairs of features turned by an angle that grows with the position: x is (B, H, S, d) or (B, S, H · d)."""
    merged = x.dim() == 3
    split = x.reshape(x.shape[0], x.shape[1], heads, -1) if merged else x.transpose(1, 2)
    width = width or split.shape[-1]
    turned, rest = split[..., :width], split[..., width:]
    cos, sin = (cosines, sines) if places is None else (cosines[places], sines[places])
    cos, sin = cos[..., : width // 2].unsqueeze(2), sin[..., : width // 2].unsqueeze(2)
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
    else:
        first, second = turned.chunk(2, -1)
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    joined = torch.stack([real, imaginary], -1).flatten(-2) if interleaved else torch.cat([real, imaginary], -1)
    y = torch.cat([joined, rest], -1)
    return y.reshape(x.shape) if merged else y.transpose(1, 2)


CONVERTERS = (
    Converter("Attention", _attention, since=23, until=23),
    Converter("RotaryEmbedding", _rotary, since=23),
)
