"""Attention and rotary embeddings of opset 23."""

from __future__ import annotations

from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import attention as functions


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
    every = build.call(functions.attention, *operands, settings)
    return tuple(build.item(every, index) for index in range(4))


def _rotary(node: Node, build: Builder) -> fx.Node:
    heads, width = node.attr("num_heads", 0), node.attr("rotary_embedding_dim", 0)
    operands = [build.optional(node, index) for index in range(4)]
    return build.call(functions.rotary, *operands, heads, width, bool(node.attr("interleaved", 0)))


CONVERTERS = (
    Converter("Attention", _attention, since=23, until=23),
    Converter("RotaryEmbedding", _rotary, since=23),
)
