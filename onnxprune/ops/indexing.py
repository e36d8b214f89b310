"""Slice, Gather and Pad: positions of the result that are chosen by constants."""

from __future__ import annotations

import numpy as np

from onnxprune.ir.graph import Node
from onnxprune.ops.base import Operator, Rewriter, normalized_axis, positions
from onnxprune.ops.relations import IntArray, Relations, component_count


class Slice(Operator):
    """A range of positions along some axes (bounds are attributes before opset 10, inputs since)."""

    types = ("Slice",)
    selects = True

    def _ranges(self, node: Node) -> dict[int, tuple[int, int, int, int]] | None:
        """Per sliced axis: its place in the operands, start, stop and step; None if computed from data."""
        starts, ends = node.ints(1, "starts"), node.ints(2, "ends")
        if starts is None or ends is None:
            return None
        rank = len(node.in_shape(0))
        axes = node.ints(3, "axes") if node.has_input(3) or node.attr("axes") is not None else list(range(len(starts)))
        steps = node.ints(4, "steps") if node.has_input(4) else [1] * len(starts)
        if axes is None or steps is None:
            return None
        ranges = {}
        for place, (start, end, axis, step) in enumerate(zip(starts, ends, axes, steps, strict=True)):
            axis = normalized_axis(axis, rank)
            bounds = slice(start, end if end >= -(2**31) else None, step).indices(node.in_shape(0)[axis])
            ranges[axis] = (place, *bounds)
        return ranges

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        ranges = self._ranges(node)
        for dim, (before, after) in enumerate(zip(node.in_shape(0), node.out_shape(), strict=True)):
            if ranges is None:
                if before != after:
                    continue
                relations.equal(x, dim, y, dim)
            elif dim not in ranges:
                relations.equal(x, dim, y, dim)
            else:
                _, start, stop, step = ranges[dim]
                chosen = np.arange(start, stop, step, dtype=np.int64)
                if len(chosen) == after:
                    relations.map(x, dim, y, dim, chosen, positions(after))

    def reads(self, node: Node, index: int, wanted: IntArray) -> IntArray | None:
        ranges = self._ranges(node) if index == 0 else None
        return None if not ranges else np.arange(*ranges[0][1:], dtype=np.int64)[wanted]

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        x, y = node.inputs[0], node.outputs[0]
        ranges = self._ranges(node) or {}
        starts: dict[int, int] = {}
        ends: dict[int, int] = {}
        for axis, (place, start, stop, step) in ranges.items():
            kept = rewriter.kept(x, axis)
            if kept is None:
                continue
            chosen = np.arange(start, stop, step, dtype=np.int64)
            kept_out = rewriter.kept(y, axis)
            wanted = np.searchsorted(kept, chosen if kept_out is None else chosen[kept_out])
            if len(wanted) > 1 and (np.diff(wanted) != np.sign(step)).any():
                # What is left of a strided choice need not be regular any more: name the positions instead.
                rewriter.pick(node, 0, axis, wanted)
                starts[place], ends[place] = 0, len(wanted)
                rewriter.set_elements(node, 4, {place: 1})
                continue
            if not len(wanted):  # A slice of nothing stays one.
                starts[place] = ends[place] = 0
                continue
            first, last = int(wanted[0]), int(wanted[-1])
            direction = 1 if step > 0 else -1
            end = last + direction
            starts[place] = first
            ends[place] = end if end >= 0 else -(2**31)
            if abs(step) != 1:
                rewriter.set_elements(node, 4, {place: direction})
        if starts and node.version < 10:
            for name, fresh in (("starts", starts), ("ends", ends)):
                values = [int(v) for v in node.attr(name)]
                rewriter.set_attribute(node, name, [fresh.get(i, v) for i, v in enumerate(values)])
        elif starts:
            rewriter.set_elements(node, 1, starts)
            rewriter.set_elements(node, 2, ends)


class Gather(Operator):
    """Positions of one axis, by index."""

    types = ("Gather",)
    selects = True

    def _parts(self, node: Node) -> tuple[int, int]:
        """The gathered axis, and the number of dimensions that the indices put in its place."""
        return normalized_axis(int(node.attr("axis", 0)), len(node.in_shape(0))), len(node.in_shape(1))

    def _indices(self, node: Node, extent: int) -> IntArray | None:
        indices = node.value(1)
        return None if indices is None else np.where(indices < 0, indices + extent, indices).astype(np.int64)

    def relate(self, node: Node, relations: Relations) -> None:
        data, indices, y = node.inputs[0], node.inputs[1], node.outputs[0]
        axis, width = self._parts(node)
        shape = node.in_shape(0)
        for dim in range(len(shape)):
            if dim != axis:
                relations.equal(data, dim, y, dim if dim < axis else dim + width - 1)
        chosen = self._indices(node, shape[axis])
        if chosen is None:
            relations.pin(data, axis, "indices are computed at run time")
            for dim in range(width):
                relations.equal(indices, dim, y, axis + dim)
            return
        carrier = _carrier(chosen, shape[axis])
        if carrier is None:
            relations.pin(data, axis, "single positions are picked by Gather", np.unique(chosen))
        else:
            at = np.broadcast_to(
                np.expand_dims(positions(chosen.shape[carrier]), _others(chosen, carrier)), chosen.shape
            )
            relations.map(data, axis, y, axis + carrier, chosen.ravel(), at.ravel())

    def reads(self, node: Node, index: int, wanted: IntArray) -> IntArray | None:
        indices = self._indices(node, node.in_shape(0)[0]) if index == 0 else None
        return None if indices is None else indices.ravel()[wanted]

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        axis, _ = self._parts(node)
        extent = node.in_shape(0)[axis]
        kept = rewriter.kept(node.inputs[0], axis)
        if kept is None:
            return
        chosen = self._indices(node, extent)
        assert chosen is not None, "removal along an axis with unknown indices is pinned"
        carrier = _carrier(chosen, extent)
        if carrier is not None:
            kept_out = rewriter.kept(node.outputs[0], axis + carrier)
            chosen = chosen if kept_out is None else chosen.take(kept_out, axis=carrier)
        rewriter.set_operand(node, 1, np.searchsorted(kept, chosen))


def _others(indices: IntArray, carrier: int) -> tuple[int, ...]:
    return tuple(dim for dim in range(indices.ndim) if dim != carrier)


def _carrier(indices: IntArray, extent: int) -> int | None:
    """The dimension of the indices that carries a removal from the gathered axis: the one with the finest atoms.

    Of dimensions of extent 1 and of single indices there is nothing to remove; None then.
    """
    wide = [dim for dim, n in enumerate(indices.shape) if n > 1]
    if len(wide) < 2:
        return wide[0] if wide else None
    counts = []
    for dim in wide:
        at = np.broadcast_to(np.expand_dims(positions(indices.shape[dim]), _others(indices, dim)), indices.shape)
        counts.append(component_count(indices.ravel(), at.ravel(), extent, indices.shape[dim]))
    return wide[int(np.argmax(counts))]


class Pad(Operator):
    """Positions added (or, with negative amounts, cut) at both ends of axes."""

    types = ("Pad",)

    def _pads(self, node: Node) -> dict[int, tuple[int, int, int, int]] | None:
        """Per padded axis: the places of its two amounts in the operand, and the amounts."""
        pads = node.ints(1, "pads")
        if pads is None:
            pads = node.ints(1, "paddings")
        rank = len(node.in_shape(0))
        axes = node.ints(3, "axes") if node.has_input(3) else list(range(rank))
        if pads is None or axes is None:
            return None
        half = len(axes)
        return {
            normalized_axis(axis, rank): (place, place + half, pads[place], pads[place + half])
            for place, axis in enumerate(axes)
        }

    def relate(self, node: Node, relations: Relations) -> None:
        x, y = node.inputs[0], node.outputs[0]
        pads = self._pads(node)
        mode = node.attr("mode", "constant")
        for dim, (before, after) in enumerate(zip(node.in_shape(0), node.out_shape(), strict=True)):
            amounts = (0, 0) if pads is not None and dim not in pads else None if pads is None else pads[dim][2:]
            if amounts == (0, 0) or (amounts is None and before == after):
                relations.equal(x, dim, y, dim)
            elif amounts is not None and min(amounts) >= 0 and mode == "constant":
                at = positions(before)
                relations.map(x, dim, y, dim, at, at + amounts[0])

    def shrink(self, node: Node, rewriter: Rewriter) -> None:
        fresh: dict[int, int] = {}
        for dim, (before, after, low, high) in (self._pads(node) or {}).items():
            kept = rewriter.kept(node.outputs[0], dim)
            if kept is not None and (low or high):
                extent = node.in_shape(0)[dim]
                fresh[before] = int((kept < low).sum())
                fresh[after] = int((kept >= low + extent).sum())
        if not fresh:
            return
        if node.version < 11:
            name = "pads" if node.attr("pads") is not None else "paddings"
            values = [int(v) for v in node.attr(name)]
            rewriter.set_attribute(node, name, [fresh.get(i, v) for i, v in enumerate(values)])
        else:
            rewriter.set_elements(node, 1, fresh)


OPERATORS: tuple[Operator, ...] = (Slice(), Gather(), Pad())
