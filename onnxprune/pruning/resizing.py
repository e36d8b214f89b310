"""Computing a region on smaller maps: what enters is resized, and what leaves has its extents again.

Half of the products of a convolutional network are saved by maps of .7 of their sides, and every channel stays: it is
the third of the extents that a network has, beside width and depth (EfficientNet, Tan and Le, 2019, arXiv 1905.11946).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import NodeProto, helper

from onnxprune.errors import OnnxPruneError, PlanError, VerificationError
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Draft, Model
from onnxprune.ir.regions import Regions
from onnxprune.ir.session import Session
from onnxprune.ops.layers import linear_layer
from onnxprune.ops.resizing import CENTRED_SINCE, WITHOUT_ROI_SINCE, factor, linear_resize
from onnxprune.ops.substitutes import RESIZED
from onnxprune.pruning.plan import Replacement

_SMALLEST = 0.5
"""The smallest side, as a share: beyond that, linear interpolation leaves pixels out."""
_FINER = 8
"""Parts of what lies between two multiples of the strides."""
_MAP = 2
"""Where the extents of a map begin: samples and channels come first."""


def resized(model: Model, one: Replacement) -> Model:
    """A normalised model in which a region computes on maps of the extents ``one.kernel``.

    Raises:
        PlanError: there is no such region, its entry is no map, or something in it holds the extents of its maps.
    """
    return model.derived(_Resized(one))


@dataclass(frozen=True)
class _Resized:
    """Making it, and seeing that it runs: a key that a model can remember it by."""

    one: Replacement

    def __call__(self, model: Model) -> Model:
        result = _resized(model, self.one)
        _check_runs(result, self.one)
        return result


def _resized(model: Model, one: Replacement) -> Model:
    graph = model.derived(Graph)
    inside = Regions(graph).between(one.entry, one.exit)
    shapes = graph.shapes
    before, after = shapes.extents.get(one.entry, ()), shapes.extents.get(one.exit, ())
    if len(before) <= _MAP or len(one.kernel) != len(before) - _MAP:
        raise PlanError(f"region {one}: '{one.entry}' is no map of {len(one.kernel)} extents, but {list(before)}")
    if model.opset() < CENTRED_SINCE:
        raise PlanError(
            f"region {one}: a Resize that looks at the centres of pixels came with operator set {CENTRED_SINCE}, and "
            f"the model has {model.opset()}; convert it (onnx.version_converter)"
        )
    left = _made(_built(model, inside, one, before, None), one)
    if left == after:
        return _built(model, inside, one, before, None)
    if left[:_MAP] != after[:_MAP] or len(left) != len(after) or len(left) <= _MAP:
        raise PlanError(
            f"region {one}: '{one.exit}' would be {list(left)} and not {list(after)}, so something in the region holds "
            "the extents of its maps; leave the resolution as it is"
        )
    if any((one.exit, dim) in shapes.dynamic for dim in range(_MAP, len(after))):
        raise PlanError(
            f"region {one}: '{one.exit}' is a map whose extents follow the input's, and it cannot be brought back to "
            "all of them; fix the extents of the input first (python -m onnxruntime.tools.make_dynamic_shape_fixed)"
        )
    return _built(model, inside, one, before, (left, after))


def resolutions(model: Model) -> Iterator[tuple[Replacement, Model]]:
    """The whole of a model on smaller and smaller maps, with the model that each makes.

    From what the first layer that reads maps reads (before it is padded), to the one output. Sides are multiples of
    what strides make of them together, as powers of two, so that no map has more rows of zeros around it than before.

    Raises:
        PlanError: no such region is there, or not even the largest of its maps would do.
    """
    graph = model.derived(Graph)
    extents, outputs = graph.shapes.extents, graph.outputs
    layers = (layer for layer in map(linear_layer, graph.nodes) if layer is not None and layer.in_dim == 1)
    entry = next((layer.input for layer in layers if len(extents.get(layer.input, ())) > _MAP), None)
    if entry is None:
        raise PlanError("no layer reads a map")
    if len(outputs) != 1:
        raise PlanError(
            f"the model has {len(outputs)} outputs, and all that is computed from an image has to end in one"
        )
    entry = _first(graph, entry)
    sides = extents[entry][_MAP:]
    maps = [shape[_MAP:] for name in graph.producer if len(shape := extents.get(name, ())) == len(sides) + _MAP]
    steps = [_stride(side, {inner[at] for inner in maps}) for at, side in enumerate(sides)]
    longest = max(range(len(sides)), key=lambda at: sides[at] / steps[at])
    count, refusal, found = sides[longest] // steps[longest], None, False
    for parts in range(count, 0, -1):
        share = parts * steps[longest] / sides[longest]
        small = tuple(max(round(share * side / step), 1) * step for side, step in zip(sides, steps, strict=True))
        if share < _SMALLEST:
            break
        if small == sides or any(now > was for now, was in zip(small, sides, strict=True)):
            continue
        one = Replacement(entry, outputs[0], RESIZED, small)
        try:
            result = resized(model, one)
        except PlanError as error:
            refusal = refusal or error
            continue
        found = True
        yield one, result
    if refusal is not None and not found:
        raise refusal


def why_not_smaller(model: Model) -> str | None:
    """Why a normalised model computes on no smaller maps, None where it may."""
    try:
        return None if next(resolutions(model), None) else "its maps are too small to be made smaller"
    except PlanError as error:
        return str(error)


def _first(graph: Graph, name: str) -> str:
    """The map that a map is made of, by nodes that pad, scale or shift it alone: borders belong to the region."""
    extents = graph.shapes.extents
    while name in graph.producer:
        node = graph.nodes[graph.producer[name]]
        reads = [read for read in node.reads if read and read not in graph.constants]
        if len(reads) != 1 or len(graph.consumers.get(name, [])) != 1 or name in graph.fixed:
            break
        before, after = extents.get(reads[0], ()), extents.get(name, ())
        if len(before) != len(after) or before[:_MAP] != after[:_MAP]:
            break
        name = reads[0]
    return name


def finer(
    model: Model, smaller: Replacement, above: Sequence[int] | None = None
) -> Iterator[tuple[Replacement, Model]]:
    """The same region on maps between those of a plan and larger ones (``above``, or its own), the largest first.

    Strides need not divide their sides: what is at an edge may count for less there.
    """
    own = model.derived(Graph).shapes.extents[smaller.entry][_MAP:]
    for part in range(_FINER - 1, 0, -1):
        pairs = zip(smaller.kernel, above or own, strict=True)
        small = tuple(low + (high - low) * part // _FINER for low, high in pairs)
        if small != smaller.kernel:
            one = replace(smaller, kernel=small, saved={})
            with contextlib.suppress(PlanError):  # not all maps divide as a region needs it
                yield one, resized(model, one)


def _check_runs(model: Model, one: Replacement) -> None:
    """See that a model runs: not all that holds extents can be known without. Raises PlanError where it does not."""
    shapes = model.derived(Graph).shapes
    feeds = {
        name: np.zeros(shape, helper.tensor_dtype_to_np_dtype(shapes.elem_types[name]))
        for name, shape in shapes.binding.items()
    }
    try:
        Session(model, "the model on smaller maps").run(feeds)
    except VerificationError as error:
        raise PlanError(f"region {one}: what is in it does not take such maps ({error})") from error


def _stride(side: int, inner: Collection[int]) -> int:
    """What strides have made of a side, down to the smallest of the inner ones, together: a power of two."""
    return 1 << max(round(math.log2(side / min((one for one in inner if one > 1), default=side))), 0)


def _made(model: Model, one: Replacement) -> tuple[int, ...]:
    """The extents of a region's exit. Raises PlanError where the model cannot be computed."""
    try:
        found = model.derived(Graph).shapes.extents.get(one.exit)
    except (OnnxPruneError, VerificationError) as error:
        raise PlanError(f"region {one}: what is in it does not take such maps ({error})") from error
    if found is None:
        raise PlanError(f"region {one}: what is in it does not take such maps: the shape of '{one.exit}' is not known")
    return found


def _built(
    model: Model,
    inside: tuple[int, ...],
    one: Replacement,
    before: tuple[int, ...],
    back: tuple[tuple[int, ...], tuple[int, ...]] | None,
) -> Model:
    """The model whose region reads a resized entry; its exit is brought ``back`` from some extents to others."""
    draft = model.edit()
    protos = list(draft.graph.node)
    small, left = draft.unique_name(f"{one.entry}_resized"), one.exit
    if back is not None:
        left = draft.unique_name(f"{one.exit}_resized")
    made = set[str]()
    for index in inside:
        node = protos[index]
        node.input[:] = [small if name == one.entry else left if name == one.exit else name for name in node.input]
        node.output[:] = [left if name == one.exit else name for name in node.output]
        made.update(node.output)
    first = _resize(draft, model.opset(), one.entry, small, before, (*before[:_MAP], *one.kernel))
    protos.insert(inside[0], first)
    if back is not None:
        protos.insert(inside[-1] + 2, _resize(draft, model.opset(), left, one.exit, *back))
    draft.set_nodes(protos)
    known = [value for value in draft.graph.value_info if value.name not in made]
    del draft.graph.value_info[:]
    draft.graph.value_info.extend(known)
    return draft.finish()


def _resize(
    draft: Draft, opset: int, reads: str, makes: str, before: tuple[int, ...], after: tuple[int, ...]
) -> NodeProto:
    """A node between maps of these extents, by factors: the number of samples may be another in another run."""
    factors = np.array([factor(was, now) for was, now in zip(before, after, strict=True)], np.float32)
    scales = draft.add_weight(draft.unique_name(f"{makes}_scales"), factors).name
    roi = ""
    if opset < WITHOUT_ROI_SINCE:
        roi = draft.add_weight(draft.unique_name(f"{makes}_roi"), np.zeros(0, np.float32)).name
    return linear_resize(draft.unique_name(f"{makes}_Resize"), reads, makes, scales, roi)
