"""Types, and values that pass through."""

from __future__ import annotations

import torch
from torch import fx

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import elementwise as functions
from onnxprune.torch.functions import host
from onnxprune.torch.tensors import torch_dtype


def _target(node: Node) -> torch.dtype:
    dtype = torch_dtype(node.attr("to"))
    assert dtype is not None, "_refuse has seen to it"
    return dtype


def _refuse(node: Node) -> str | None:
    if torch_dtype(node.attr("to")) is None:
        return f"PyTorch has no type number {node.attr('to')} of ONNX"
    return None


def _cast(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.cast, build.tensor(node, 0), _target(node))


def _host_cast(node: Node, build: Builder) -> fx.Node | None:
    dtype = _target(node)
    if dtype == torch.bool:
        return build.call(host.apply, "to bool", build.host(node, 0))
    return build.call(host.apply, "to float" if dtype.is_floating_point else "to integer", build.host(node, 0))


def _cast_like(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.cast_like, *build.tensors(node))


def _identity(node: Node, build: Builder) -> fx.Node:
    return build.tensor(node, 0)


def _host_identity(node: Node, build: Builder) -> fx.Node:
    value: fx.Node = build.host(node, 0)
    return value


CONVERTERS = (
    Converter("Cast", _cast, host=_host_cast, refuse=_refuse),
    Converter("CastLike", _cast_like),
    Converter("Identity", _identity, host=_host_identity),
)
