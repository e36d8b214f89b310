"""Resize and Upsample."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from onnxprune.ir.graph import Node
from onnxprune.torch.base import Converter
from onnxprune.torch.builder import Builder
from onnxprune.torch.functions import resizing as functions

_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}


def _upsample(node: Node, build: Builder) -> fx.Node:
    scales = tuple(node.attr("scales")) if node.version < 9 else build.host(node, 1)
    return _resize_by(node, build, None, scales, None, ("asymmetric", "floor"))


def _resize_10(node: Node, build: Builder) -> fx.Node:
    return _resize_by(node, build, None, build.host(node, 1), None, ("asymmetric", "floor"))


def _resize(node: Node, build: Builder) -> fx.Node:
    scales, sizes = build.host(node, 2), build.host(node, 3)
    how = node.attr("coordinate_transformation_mode", "half_pixel"), node.attr("nearest_mode", "round_prefer_floor")
    roi = build.optional(node, 1) if how[0] == "tf_crop_and_resize" else None
    return _resize_by(node, build, roi, scales if scales != () else None, sizes, how)


def _resize_by(
    node: Node, build: Builder, roi: fx.Node | None, scales: Any, sizes: Any, how: tuple[str, str]
) -> fx.Node:
    mode = _mode(node)
    module = _module(node, build, mode, scales, how)
    if module is not None:
        return build.module(node, module, build.tensor(node, 0))
    attributes = (
        mode, *how, node.attr("cubic_coeff_a", -0.75), bool(node.attr("exclude_outside", 0)),
        bool(node.attr("antialias", 0)), node.attr("extrapolation_value", 0.0),
        node.attr("keep_aspect_ratio_policy", "stretch"),
    )  # fmt: skip
    axes = node.attr("axes")
    return build.call(
        functions.resize, build.tensor(node, 0), roi, scales, sizes, None if axes is None else tuple(axes), attributes
    )


def _mode(node: Node) -> str:
    mode: str = node.attr("mode", "nearest")
    return mode if mode in ("nearest", "cubic") else "linear"


def _module(node: Node, build: Builder, mode: str, scales: Any, how: tuple[str, str]) -> nn.Module | None:
    """``nn.Upsample`` where it means the same: whole factors of the spatial axes."""
    rank = build.rank(node)
    plain = isinstance(scales, tuple) and rank in _LINEAR and len(scales) == rank and node.attr("axes") is None
    if not plain or scales[:2] != (1.0, 1.0) or any(s != int(s) or s < 1 for s in scales):
        return None
    if node.attr("antialias", 0) or node.attr("exclude_outside", 0):
        return None
    factors = tuple(scales[2:])
    if mode == "nearest" and how == ("asymmetric", "floor"):
        return nn.Upsample(scale_factor=factors, mode="nearest")
    if mode == "linear" and how[0] in ("half_pixel", "pytorch_half_pixel"):
        return nn.Upsample(scale_factor=factors, mode=_LINEAR[rank or 0], align_corners=False)
    return None


CONVERTERS = (
    Converter("Resize", _resize_10, until=10),
    Converter("Resize", _resize, since=11),
    Converter("Upsample", _upsample),
)
