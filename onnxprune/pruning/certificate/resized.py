"""Certificate of a region that computes on maps of other extents: the original's own nodes, given such maps by numpy.

The original runs up to the region's entry. What enters is resized here, and the region's nodes, as the original has
them, go on from that; what leaves is resized back, and the rest goes on. Every tensor that the result makes has to be
what this walk makes, and every weight the original's. Nothing of the code that puts a Resize into graphs is used.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ValueInfoProto, helper

from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.errors import VerificationError
from onnxprune.ir.comparing import TensorDifference, compare
from onnxprune.ir.model import Model
from onnxprune.ir.protos import captured_names
from onnxprune.ir.session import Arrays, Session
from onnxprune.pruning.certificate.replaced import TOLERANCE, changed_weights
from onnxprune.pruning.plan import Replacement

_MAP = 2
"""Where the extents of a map begin."""
_ROUNDING = 4
"""So many units in the last place of a pixel's place are rounding."""


def resized_differences(
    original: Model, result: Model, one: Replacement, inputs: Arrays, tolerance: float = TOLERANCE
) -> tuple[TensorDifference, ...]:
    """All tensors that both models make, compared; and nodes that the result has and should not.

    Args:
        original: the normalised model before.
        result: the same, in which just this region computes on other maps.
        one: the region and its maps.
        inputs: values for the inputs of the model.
        tolerance: largest allowed difference.

    Raises:
        VerificationError: onnxruntime does not run one of the models.
    """
    samples = Samples(inputs, None, max(len(array) for array in inputs.values()), fixed=True)
    makers = {name: index for index, node in enumerate(original.graph.node) for name in node.output if name}
    nodes = {name: node for node in result.graph.node for name in node.output if name}
    common = [name for name in makers if name in nodes]
    if one.exit not in nodes or one.exit not in makers:
        raise VerificationError(f"one of the models does not make '{one.exit}', where region {one} ends")
    small, left = _ends(original, result, one)
    found = [
        TensorDifference(name, node.name, np.inf, np.inf, passed=False, reason="is none of the original's")
        for name, node in nodes.items()
        if name not in makers and name not in (small, left)
    ]
    lost = [name for name in makers if name not in nodes]
    found += [
        TensorDifference(name, name, np.inf, np.inf, passed=False, reason="is not made any more") for name in lost
    ]
    inside = _inside(original, one)
    tried = StagedRun(result, samples, "the model on other maps", literal=True)
    tried.advance(len(result.graph.node), (*common, small, left))
    reference = StagedRun(original, samples, "the original model", literal=True)
    outside = [name for name in common if makers[name] not in inside]
    reference.advance(makers[one.exit] + 1, (*outside, one.entry, one.exit))
    entry, exit = (np.asarray(reference.values(name)[0]) for name in (one.entry, one.exit))

    def resized(x: NDArray[Any], name: str, extents: Sequence[int]) -> NDArray[Any]:
        """What a Resize gives, if it is what it should be: both go on from that."""
        value, made = interpolated(x, extents), np.asarray(tried.values(name)[0])
        if made.shape == value.shape:
            # Places between pixels are counted in single precision.
            grain = _ROUNDING * np.finfo(np.float32).eps * max(x.shape[_MAP:]) * np.ptp(x)
            value = np.where(np.abs(made - value) <= grain, made, value)
        found.append(compare(name, nodes[name].name, value, made, None, tolerance))
        return value

    wanted = _on_maps(original, inside, one, resized(entry, small, one.kernel))
    if left != one.exit:
        wanted[left] = wanted[one.exit]
        wanted[one.exit] = resized(np.asarray(tried.values(left)[0]), one.exit, exit.shape[_MAP:])
    reference.put(one.exit, [wanted[one.exit]])
    reference.advance(len(original.graph.node), common)
    for name in dict.fromkeys((*common, left)):
        value = wanted[name] if name in wanted else np.asarray(reference.values(name)[0])
        found.append(compare(name, nodes[name].name, value, np.asarray(tried.values(name)[0]), None, tolerance))
    return (*found, *changed_weights(original, result))


def _ends(original: Model, result: Model, one: Replacement) -> tuple[str, str]:
    """What a region of the result reads and makes, before it is resized back: two Resizes, and no more, may be new.

    Raises:
        VerificationError: nothing resizes the entry.
    """
    known = {name for node in original.graph.node for name in node.output}
    resizes = [node for node in result.graph.node if node.op_type == "Resize"]
    small = [node.output[0] for node in resizes if node.input[0] == one.entry and node.output[0] not in known]
    if len(small) != 1:
        raise VerificationError(f"region {one}: {len(small)} nodes resize '{one.entry}', and one has to")
    back = [node.input[0] for node in resizes if node.output[0] == one.exit and node.input[0] not in known]
    return small[0], (back or [one.exit])[0]


def _inside(model: Model, one: Replacement) -> dict[int, None]:
    """The nodes that make a region's exit of its entry, by number."""
    makers = {name: index for index, node in enumerate(model.graph.node) for name in node.output if name}
    found: dict[int, None] = {}
    open_ = [one.exit]
    while open_:
        index = makers.get(open_.pop())
        if index is not None and index not in found:
            found[index] = None
            open_ += [name for name in model.graph.node[index].input if name and name != one.entry]
    return dict.fromkeys(sorted(found))


def _on_maps(model: Model, inside: Collection[int], one: Replacement, entry: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """All that a region's nodes make of this entry."""
    nodes = [model.graph.node[index] for index in inside]
    reads = dict.fromkeys(name for node in nodes for name in (*node.input, *captured_names(node)) if name)
    kind = helper.np_dtype_to_tensor_dtype(entry.dtype)
    makes = [name for node in nodes for name in node.output if name]
    piece = model.piece(
        nodes,
        [helper.make_tensor_value_info(one.entry, kind, [None] * entry.ndim)],
        [ValueInfoProto(name=name) for name in makes],
        {name: model.weights[name] for name in reads if name in model.weights},
    )
    found = Session(piece, f"region {one}", literal=True).run({one.entry: entry})
    return {name: np.asarray(value) for name, value in found.items()}


def interpolated(x: NDArray[Any], extents: Sequence[int]) -> NDArray[Any]:
    """Maps [N, C, ...] of other extents: linear between the centres of their pixels, the border repeated.

    As the operator specification of Resize has it for ``linear`` and ``half_pixel``.
    """
    result = x.astype(np.float64)
    for axis, extent in enumerate(extents, _MAP):
        size = x.shape[axis]
        place = np.clip((np.arange(extent) + 0.5) * size / extent - 0.5, 0, size - 1)
        low = np.floor(place).astype(np.int64)
        share = (place - low).reshape([-1 if at == axis else 1 for at in range(x.ndim)])
        result = result.take(low, axis) * (1 - share) + result.take(np.minimum(low + 1, size - 1), axis) * share
    return result.astype(x.dtype)
