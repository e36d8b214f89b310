"""Resize and Upsample: axes they do not scale stay as they are."""

from __future__ import annotations

import math

import numpy as np
from onnx import NodeProto, helper

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator, Rewriter, normalized_axis
from onnxprune.ops.relations import Relations


class Resize(Operator):
    """X, roi, scales, sizes → Y (opset 10: X, scales); Upsample: X, scales."""

    types = ("Resize", "Upsample")

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        for dim, (before, after) in enumerate(zip(node.in_shape(0), node.out_shape(), strict=True)):
            if before == after:
                relations.equal(x, dim, y, dim)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        if not node.has_input(3):
            return
        rank = len(node.in_shape(0))
        axes = [normalized_axis(int(a), rank) for a in node.attr("axes", range(rank))]
        y = node.outputs[0]
        fresh = {place: rewriter.extent(y, dim) for place, dim in enumerate(axes) if rewriter.kept(y, dim) is not None}
        if fresh:
            rewriter.set_elements(node, 3, fresh)


CENTRED_SINCE, WITHOUT_ROI_SINCE = 11, 13
"""The first operator set whose Resize looks at the centres of pixels, and the first in which it needs no ``roi``."""


def linear_resize(name: str, reads: str, makes: str, scales: str, roi: str) -> NodeProto:
    """A Resize that interpolates between the centres of pixels, by factors that a tensor holds."""
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    return helper.make_node("Resize", [reads, roi, scales], [makes], name=name, **how)


def factor(was: int, now: int) -> float:
    """The number in single precision whose product with an extent, rounded down as Resize does, is the other one.

    Engines multiply in single precision, onnx's shape inference in double.
    """
    found = np.float32(now / was)
    while math.floor(was * float(found)) < now:
        found = np.float32(np.nextafter(found, np.float32(np.inf)))
    return float(found)


OPERATORS: tuple[Operator, ...] = (Resize(),)
