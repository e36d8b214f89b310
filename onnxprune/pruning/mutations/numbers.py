"""Faults in numbers that say where: extents of a Reshape or Split, bounds of a Slice, indices of a Gather."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from onnx import AttributeProto, NodeProto

from onnxprune.pruning.mutations.channels import swapped
from onnxprune.pruning.mutations.specimen import MISS, Array, Draw, Kind, Mutation, Specimen, Use

_EXTENTS: Mapping[str, tuple[tuple[int, str], ...]] = {
    "Reshape": ((1, "shape"),),
    "Split": ((1, "split"),),
    "Slice": ((1, "starts"), (2, "ends")),
    "Expand": ((1, ""),),
    "Tile": ((1, ""),),
    "Resize": ((3, ""),),
    "Pad": ((1, "pads"),),
}
"""Where nodes hold extents or positions: the operand, and the attribute of older opsets."""


def shift_extent(specimen: Specimen, rng: np.random.Generator) -> Draw:
    """A number of a Reshape, Split, Slice, … off by one, in a way that can still run: numbers keep their total."""
    places = [
        (index, place, attribute)
        for index, node in enumerate(specimen.nodes)
        for place, attribute in _EXTENTS.get(node.op_type, ())
        if (place < len(node.input) and node.input[place] in specimen.model.weights) or _has(node, attribute)
    ]
    if not places:
        return None
    index, place, attribute = places[int(rng.integers(len(places)))]
    node = specimen.nodes[index]
    operand = place < len(node.input) and node.input[place] in specimen.model.weights
    tensor = node.input[place] if operand else node.output[0]
    use = Use(index, place, tensor)
    numbers = np.ravel(specimen.array(use)) if operand else _numbers(node, attribute)
    edit, what, positions = _moved(node.op_type, numbers, rng)
    if edit is None:
        return MISS
    if operand:
        return specimen.mutation(Kind.SHIFTED_EXTENT, use, what, edit, None, positions)
    text = f"{Kind.SHIFTED_EXTENT.value}: {attribute} of {specimen.node_name(use)}, {what}"
    name = specimen.node_name(use)
    return Mutation(Kind.SHIFTED_EXTENT, name, tensor, None, positions, text, attribute, index, edit)


def _moved(
    op_type: str, numbers: Array, rng: np.random.Generator
) -> tuple[Callable[[Array], Array] | None, str, tuple[int, ...]]:
    """What to do with the numbers of a node, in words, and where; None where nothing can run."""
    if op_type in ("Split", "Reshape", "Resize", "Expand"):
        if len(numbers) < 2:
            return None, "", ()
        a, b = sorted(rng.choice(len(numbers), 2, replace=False).tolist())
        if op_type == "Split":
            return partial(_transferred, source=a, target=b), f"one position of part {a} given to part {b}", (a, b)
        return partial(swapped, dim=0, a=a, b=b), "two extents exchanged", (a, b)
    if not len(numbers):
        return None, "", ()
    at, step = int(rng.integers(len(numbers))), int(rng.choice([-1, 1]))
    return partial(_stepped, at=at, step=step), f"number {at} off by {step:+d}", (at,)


def _transferred(array: Array, source: int, target: int) -> Array:
    changed: Array = array.copy()
    changed[source] -= 1
    changed[target] += 1
    return changed


def _stepped(array: Array, at: int, step: int) -> Array:
    changed: Array = array.copy()
    changed.reshape(-1)[at] += step
    return changed


def shift_index(specimen: Specimen, rng: np.random.Generator) -> Draw:
    """An index of a Gather off by one, within what is there."""
    types = ("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND")
    uses = [use for use in specimen.uses if specimen.nodes[use.node].op_type in types and use.place == 1]
    use = specimen.choose(uses, rng)
    if use is None:
        return None
    numbers = specimen.array(use).ravel()
    if not len(numbers) or numbers.dtype.kind not in "iu":
        return MISS
    at = int(rng.integers(len(numbers)))
    step = -1 if numbers[at] > 0 else 1
    return specimen.mutation(
        Kind.SHIFTED_INDEX, use, f"index {at} off by {step:+d}", partial(_stepped, at=at, step=step), None, (at,)
    )


def _has(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.type == AttributeProto.INTS for attribute in node.attribute)


def _numbers(node: NodeProto, name: str) -> Array:
    return np.array(next(a.ints for a in node.attribute if a.name == name), dtype=np.int64)
