"""Operators that rearrange elements: Reshape and its kin, Transpose, Expand, Tile, depth to space and back."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator, Rewriter, normalized_axis, positions
from onnxprune.ops.relations import Relations


def row_major_blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Cut two shapes of equal size into the smallest runs of dimensions with equal products, in order.

    Dimensions of extent 1 belong to no run; they carry nothing.
    """
    left = [d for d, n in enumerate(before) if n != 1]
    right = [d for d, n in enumerate(after) if n != 1]
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left) and j < len(right):
        ins, outs = [left[i]], [right[j]]
        product_in, product_out = before[left[i]], after[right[j]]
        i, j = i + 1, j + 1
        while product_in != product_out:
            if product_in < product_out:
                if i == len(left):
                    return blocks
                ins.append(left[i])
                product_in *= before[left[i]]
                i += 1
            else:
                if j == len(right):
                    return blocks
                outs.append(right[j])
                product_out *= after[right[j]]
                j += 1
        blocks.append((ins, outs))
    return blocks


class Regrouping(Operator):
    """The same elements in the same order under another shape."""

    types: ClassVar[tuple[str, ...]] = ("Flatten", "Unsqueeze")
    in_place = True

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        for ins, outs in row_major_blocks(node.in_shape(0), node.out_shape()):
            if len(ins) == len(outs) == 1:
                relations.equal(x, ins[0], y, outs[0])
            else:
                relations.regroup(x, ins, y, outs)


class Squeeze(Regrouping):
    """Dimensions of extent 1 go; without axes all of them, which must not take one that only shrank to 1."""

    types = ("Squeeze",)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        x, shape = node.inputs[0], node.in_shape(0)
        if node.attr("axes") is not None or node.has_input(1):
            return
        if not any(extent != 1 and rewriter.extent(x, dim) == 1 for dim, extent in enumerate(shape)):
            return
        axes = [dim for dim, extent in enumerate(shape) if extent == 1]
        if node.version < 13:
            rewriter.set_attribute(node, "axes", axes)
        else:
            rewriter.set_operand(node, 1, np.array(axes, dtype=np.int64))


class Reshape(Regrouping):
    """Regrouping with a target shape that has to follow every removal."""

    types = ("Reshape",)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        y = node.outputs[0]
        fresh = {
            dim: rewriter.extent(y, dim) for dim in range(len(node.out_shape())) if rewriter.kept(y, dim) is not None
        }
        if not fresh:
            return
        if node.version < 5:
            target = [int(v) for v in node.attr("shape")]
            rewriter.set_attribute(node, "shape", [fresh.get(i, v) for i, v in enumerate(target)])
        else:
            rewriter.set_elements(node, 1, fresh)


class Transpose(Operator):
    """Dimensions in another order."""

    types = ("Transpose",)

    def relate(self, node: Node, relations: Relations) -> None:
        rank = len(node.in_shape(0))
        order = node.attr("perm", list(range(rank))[::-1])
        for dim, source in enumerate(order):
            relations.equal(node.inputs[0], int(source), node.outputs[0], dim)


class Expand(Operator):
    """Broadcasting to a given shape; an axis that is repeated from extent 1 may shrink freely."""

    types = ("Expand",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        offset = len(node.out_shape()) - len(node.in_shape(0))
        for dim in range(len(node.out_shape())):
            relations.free(y, dim)
            if dim >= offset:
                relations.equal(x, dim - offset, y, dim)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        y = node.outputs[0]
        width = node.in_shape(1)[0]
        # The operand may be shorter than the result; it is aligned with its end.
        offset = len(node.out_shape()) - width
        fresh = {
            dim - offset: rewriter.extent(y, dim)
            for dim in range(len(node.out_shape()))
            if rewriter.kept(y, dim) is not None and dim >= offset
        }
        if fresh:
            rewriter.set_elements(node, 1, fresh)


class Tile(Operator):
    """The operand repeated along axes: position p of the result is position p modulo the extent."""

    types = ("Tile",)
    since = 6

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        for dim, (before, after) in enumerate(zip(node.in_shape(0), node.out_shape(), strict=True)):
            if before == after:
                relations.equal(x, dim, y, dim)
            elif before == 1:
                relations.free(y, dim)
            else:
                at = positions(after)
                relations.map(y, dim, x, dim, at, at % before)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        y = node.outputs[0]
        fresh = {
            dim: rewriter.extent(y, dim)
            for dim, (before, after) in enumerate(zip(node.in_shape(0), node.out_shape(), strict=True))
            if before == 1 != after and rewriter.kept(y, dim) is not None
        }
        if fresh:
            rewriter.set_elements(node, 1, fresh)


class DepthToSpace(Operator):
    """Channels become pixels of a finer grid; every channel of the result takes blocksize² channels."""

    types = ("DepthToSpace",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        size = int(node.attr("blocksize")) ** 2
        channels = node.out_shape()[1]
        at = positions(channels * size)
        column_major = node.attr("mode", "DCR") == "CRD"
        relations.equal(x, 0, y, 0)
        relations.map(x, 1, y, 1, at, at // size if column_major else at % channels)


class SpaceToDepth(Operator):
    """Pixels become channels: channel k · C + c of the result comes from channel c."""

    types = ("SpaceToDepth",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        channels = node.in_shape(0)[1]
        at = positions(node.out_shape()[1])
        relations.equal(x, 0, y, 0)
        relations.map(y, 1, x, 1, at, at % channels)


class ShapeReader(Operator):
    """Shape looks at extents, never at channels; the shrunk graph keeps reporting the original ones."""

    types = ("Shape",)

    def relate(self, node: Node, relations: Relations) -> None:
        for dim in range(len(node.in_shape(0))):
            relations.free(node.inputs[0], dim)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        rewriter.keep_reporting(node, node.in_shape(0))


class Reverse(Operator):
    """ReverseSequence keeps every axis but the two it works on."""

    types = ("ReverseSequence",)

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        rank = len(node.in_shape(0))
        worked = {
            normalized_axis(int(node.attr("batch_axis", 1)), rank),
            normalized_axis(int(node.attr("time_axis", 0)), rank),
        }
        for dim in range(rank):
            if dim not in worked:
                relations.equal(x, dim, y, dim)


class Filled(Operator):
    """ConstantOfShape: every place holds the same value, so the result may shrink freely."""

    types = ("ConstantOfShape",)

    def relate(self, node: Node, relations: Relations) -> None:
        for dim in range(len(node.out_shape())):
            relations.free(node.outputs[0], dim)

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        y = node.outputs[0]
        fresh = {
            dim: rewriter.extent(y, dim) for dim in range(len(node.out_shape())) if rewriter.kept(y, dim) is not None
        }
        if fresh:
            rewriter.set_elements(node, 0, fresh)


OPERATORS: tuple[Operator, ...] = (
    Regrouping(),
    Squeeze(),
    Reshape(),
    Transpose(),
    Expand(),
    Tile(),
    DepthToSpace(),
    SpaceToDepth(),
    ShapeReader(),
    Reverse(),
    Filled(),
)
