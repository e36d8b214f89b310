"""Does a plan fit a model? What it removes has to be removable, complete, and leave every axis something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import PlanError
from onnxprune.ops.relations import IntArray
from onnxprune.pruning.plan import Plan


def removed_per_class(analysis: Analysis, plan: Plan) -> list[IntArray]:
    """The removed positions of every class, after checking the plan against the model.

    Raises PlanError where the plan names what the model does not have, removes pinned positions, leaves coupled
    positions behind, or empties an axis.
    """
    coupling, axes, extents = analysis.untied, analysis.untied.axes, analysis.graph.shapes.extents
    gone = np.zeros(len(coupling.pin_of), dtype=bool)
    listed: dict[int, tuple[int, ...]] = {}
    known: set[tuple[int, int]] = set()
    for tensor, dims in plan.removed.items():
        if tensor not in axes:
            raise PlanError(
                f"the plan names tensor '{tensor}', which the normalised model does not have; "
                "was the plan made for another model?"
            )
        shape = extents[tensor]
        for dim, positions in dims.items():
            if not 0 <= dim < len(shape):
                raise PlanError(
                    f"the plan removes positions of {tensor}[{dim}], but '{tensor}' has {len(shape)} dimensions"
                )
            axis = axes.id(tensor, dim)
            listed[axis] = positions
            owner = coupling.class_of.get(axis)
            # The axes of a class share one tuple in plans that were made here: looking at it once is enough.
            if owner is not None and (owner, id(positions)) in known:
                continue
            at = np.fromiter(positions, dtype=np.int64, count=len(positions))
            outside = at[(at < 0) | (at >= shape[dim])]
            if len(outside):
                raise PlanError(
                    f"the plan removes position {outside[0]} of {tensor}[{dim}], which has {shape[dim]} positions, "
                    "counted from 0; was the plan made for another model?"
                )
            if (np.diff(at) <= 0).any():
                raise PlanError(f"the positions of {tensor}[{dim}] are out of order; list each once, ascending")
            if owner is not None:
                gone[coupling.class_labels(owner)[at]] = True
                known.add((owner, id(positions)))
            elif axis not in coupling.relative and positions:
                raise PlanError(f"{tensor}[{dim}] cannot lose positions: no layer produces it; take it out of the plan")
    pinned = np.flatnonzero(gone & (coupling.pin_of >= 0))
    if len(pinned):
        pin = coupling.pins[int(coupling.pin_of[pinned[0]])]
        report = analysis.pin_report(pin)
        raise PlanError(
            f"the plan removes positions that must stay: {report.axis} {report.reason} ({report.node}); "
            "'onnxprune explain' tells what they are coupled with"
        )
    per_class = coupling.removed_positions(np.flatnonzero(gone))
    _check_complete(analysis, listed, per_class)
    return per_class


def _check_complete(analysis: Analysis, listed: Mapping[int, tuple[int, ...]], per_class: Sequence[IntArray]) -> None:
    """``listed`` holds the positions that the plan names, by axis."""
    coupling, axes = analysis.untied, analysis.untied.axes
    for members, positions in zip(coupling.members, per_class, strict=True):
        if not len(positions):
            continue
        if len(positions) == axes.extents[members[0]]:
            raise PlanError(f"the plan removes every position of {axes.axis(members[0])}; at least one has to stay")
        wanted = tuple(positions.tolist())
        checked: tuple[int, ...] | None = None
        for axis in members:
            found = listed.get(axis, ())
            if found is checked:
                continue
            missing = () if tuple(found) == wanted else sorted(set(wanted) - set(found))
            if missing:
                raise PlanError(
                    f"the plan is inconsistent: position {missing[0]} of {axes.axis(axis)} is coupled with positions "
                    "that it removes elsewhere, but it is not in the plan; 'onnxprune explain' shows the coupling"
                )
            checked = found
    _check_balanced(analysis, per_class)


def _check_balanced(analysis: Analysis, per_class: Sequence[IntArray]) -> None:
    """Groups of a convolution lose equally many channels, or go altogether, with both their sides."""
    coupling = analysis.untied
    dropped: dict[int, tuple[int, ...]] = {}
    for balance in coupling.balances:
        owner = coupling.class_of[balance.axis]
        counts = block_counts(per_class[owner], int(coupling.extents[owner]), balance.blocks)
        width = int(coupling.extents[owner]) // balance.blocks
        whole = tuple(np.flatnonzero(counts == width).tolist()) if set(counts.tolist()) <= {0, width} else ()
        if dropped.setdefault(balance.node, whole) != whole or (not whole and (counts != counts[0]).any()):
            raise PlanError(
                f"the plan removes {counts.min()} to {counts.max()} channels from the groups of "
                f"{analysis.graph.nodes[balance.node]} at {coupling.axes.axis(balance.axis)}; every group has to lose "
                "equally many, or to go altogether, with its input channels and its filters"
            )


def block_counts(positions: IntArray, extent: int, blocks: int) -> IntArray:
    """How many of the positions lie in each of the equal blocks of an axis."""
    return np.bincount(positions // (extent // blocks), minlength=blocks)
