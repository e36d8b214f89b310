"""Pooling: modules of ``torch.nn`` where padding is even."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Convert, Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.converters.convolution import Window, fixed_same, window
from onnxprune.torch.functions import pooling as functions

_MAX: dict[int, type[nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE: dict[int, type[nn.Module]] = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
_GLOBAL_AVERAGE: dict[int, type[nn.Module]] = {
    3: nn.AdaptiveAvgPool1d,
    4: nn.AdaptiveAvgPool2d,
    5: nn.AdaptiveAvgPool3d,
}
_GLOBAL_MAX: dict[int, type[nn.Module]] = {3: nn.AdaptiveMaxPool1d, 4: nn.AdaptiveMaxPool2d, 5: nn.AdaptiveMaxPool3d}


def _window(node: Node) -> Window:
    return fixed_same(window(node, tuple(node.attr("kernel_shape"))))


def _settings(found: Window, node: Node) -> dict[str, Any]:
    return {
        "kernel": found.kernel,
        "strides": found.strides,
        "dilations": found.dilations,
        "begins": found.begins,
        "ends": found.ends,
        "upper": found.upper,
        "ceil_mode": bool(node.attr("ceil_mode", 0)),
    }


def _is_plain(found: Window, node: Node, build: Builder) -> bool:
    """Whether ``torch.nn`` pools such windows; it takes padding of at most half a window."""
    dtype = build.dtype(node.inputs[0])
    half = found.begins is not None and all(2 * p <= k for p, k in zip(found.begins, found.kernel, strict=True))
    return found.symmetric and half and dtype is not None and dtype.is_floating_point


def _max_pool(node: Node, build: Builder) -> fx.Node | tuple[fx.Node, fx.Node]:
    found, x = _window(node), build.tensor(node, 0)
    settings = _settings(found, node)
    if node.has_output(1):
        both = build.call(functions.max_pool_with_positions, x, settings, bool(node.attr("storage_order", 0)))
        return build.item(both, 0), build.item(both, 1)
    if _is_plain(found, node, build):
        module = _MAX[len(found.kernel)](
            found.kernel, found.strides, found.begins, found.dilations, ceil_mode=settings["ceil_mode"]
        )
        return build.module(node, module, x)
    return build.call(functions.max_pool, x, settings)


def _average_pool(node: Node, build: Builder) -> fx.Node:
    found, x = _window(node), build.tensor(node, 0)
    settings, count_padding = _settings(found, node), bool(node.attr("count_include_pad", 0))
    if _is_plain(found, node, build) and all(d == 1 for d in found.dilations):
        module = _AVERAGE[len(found.kernel)](
            found.kernel, found.strides, found.begins, settings["ceil_mode"], count_padding
        )
        return build.module(node, module, x)
    return build.call(functions.average_pool, x, settings, count_padding)


def _lp_pool(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.lp_pool, build.tensor(node, 0), _settings(_window(node), node), node.attr("p", 2))


def _global(modules: dict[int, type[nn.Module]], function: Callable[..., Any]) -> Convert:
    def convert(node: Node, build: Builder) -> fx.Node:
        make = modules.get(build.rank(node) or 0)
        if make is not None:
            return build.module(node, make(1), build.tensor(node, 0))
        return build.call(function, build.tensor(node, 0))

    return convert


def _global_lp(node: Node, build: Builder) -> fx.Node:
    return build.call(functions.global_lp, build.tensor(node, 0), float(node.attr("p", 2)))


def _max_unpool(node: Node, build: Builder) -> fx.Node:
    settings = _settings(_window(node), node)
    return build.call(functions.max_unpool, build.tensor(node, 0), build.tensor(node, 1), build.host(node, 2), settings)


def _refuse(node: Node) -> str | None:
    count = len(node.attr("kernel_shape"))
    return None if 1 <= count <= 3 else f"PyTorch pools over one to three axes, not {count}"


CONVERTERS = (
    Converter("AveragePool", _average_pool, refuse=_refuse),
    Converter("GlobalAveragePool", _global(_GLOBAL_AVERAGE, functions.global_average)),
    Converter("GlobalLpPool", _global_lp),
    Converter("GlobalMaxPool", _global(_GLOBAL_MAX, functions.global_max)),
    Converter("LpPool", _lp_pool, refuse=_refuse),
    Converter("MaxPool", _max_pool, refuse=_refuse),
    Converter("MaxUnpool", _max_unpool, refuse=_refuse),
)
