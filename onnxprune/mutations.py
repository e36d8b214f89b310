"""Faults to put into a pruned model on purpose: what a certificate must notice.

A check is worth what it catches. :func:`mutations` draws single faults of the kinds that wrong shrinking makes (a wrong
index, a vector that did not follow, a slice that is off by one) anywhere in a pruned model, led by its graph, the
coupling of its axes and the plan. Each changes the bytes of one constant or attribute; whether that changes what the
model computes is for the caller to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, helper

from onnxprune.analysis import Analysis
from onnxprune.flow import close_bodies, open_bodies
from onnxprune.model import Model
from onnxprune.plans import Plan
from onnxprune.relations import IntArray

Array: TypeAlias = NDArray[Any]

_TOUCHED = 0.8
"""How often a fault hits what the plan has touched, where there is a choice."""

_MOST_MISSES = 300
"""After so many draws in a row that give nothing new, there is nothing left to draw."""

_NAMED = 8
"""So many positions are named in a description."""


class Kind(Enum):
    """What kind of fault it is."""

    SWAPPED_FILTERS = "swapped filters"
    SWAPPED_INPUTS = "swapped inputs"
    ZEROED_CHANNEL = "zeroed channel"
    DROPPED_BIAS = "dropped bias"
    SHIFTED_SLICE = "shifted slice"
    WRONG_GROUP = "wrong group"
    STALE_QUANTISER = "stale quantiser"
    STALE_NORMALISER = "stale normaliser"
    SHIFTED_EXTENT = "shifted extent"
    SHIFTED_INDEX = "shifted index"


@dataclass(frozen=True)
class Mutation:
    """One fault: what it does to which tensor at which positions of which dimension, and the node that reads it.

    ``attribute`` names the node's attribute where the numbers are there (of old opsets); ``tensor`` is a weight of the
    pruned model with its bodies opened else. ``dim`` is None where the fault is not along one dimension.
    """

    kind: Kind
    node: str
    tensor: str
    dim: int | None
    positions: tuple[int, ...]
    description: str
    attribute: str | None = None
    index: int = field(default=-1, compare=False, repr=False)
    edit: Callable[[Array], Array] = field(default=np.array, compare=False, repr=False)

    def apply(self, model: Model) -> Model:
        """The pruned model that the mutation was drawn for, with the fault in it."""
        draft = open_bodies(model).edit()
        if self.attribute is None:
            weight = draft.weights[self.tensor]
            draft.weights[self.tensor] = weight.with_array(self.edit(weight.array))
        else:
            _set_numbers(draft.graph.node[self.index], self.attribute, self.edit)
        return close_bodies(draft.finish())

    def __str__(self) -> str:
        return self.description


def mutations(
    pruned: Model,
    analysis: Analysis,
    plan: Plan,
    seed: int = 0,
    *,
    kinds: Collection[Kind] = tuple(Kind),
) -> Iterator[Mutation]:
    """Draw faults for a pruned model, different ones, until there are no more or nobody asks.

    Args:
        pruned: what ``apply`` made of the model.
        analysis: of the original.
        plan: what was removed.
        seed: of the draw.
        kinds: which kinds to draw.
    """
    rng = np.random.default_rng(seed)
    subject = _Subject(pruned, analysis, plan)
    drawers = [(share, draw) for kind, share, draw in _DRAWERS if kind in kinds]
    drawn: set[Mutation] = set()
    misses = 0
    while drawers and misses < _MOST_MISSES:
        shares = np.array([share for share, _ in drawers], dtype=float)
        place = int(rng.choice(len(drawers), p=shares / shares.sum()))
        found = drawers[place][1](subject, rng)
        if found is None:
            del drawers[place]  # this model has no place for that kind
        elif isinstance(found, Mutation) and found not in drawn:
            drawn.add(found)
            misses = 0
            yield found
        else:
            misses += 1


# ---------------------------------------------------------------- where faults can be


@dataclass(frozen=True)
class _Use:
    """A weight as input ``place`` of a node, the first that reads it."""

    node: int
    place: int
    tensor: str


class _Miss:
    """A draw that hit something which this kind cannot change; another may succeed."""


_MISS = _Miss()
_Draw: TypeAlias = "Mutation | _Miss | None"


class _Subject:
    """The pruned model, opened, with what is known about its weights from the original and the plan."""

    def __init__(self, pruned: Model, analysis: Analysis, plan: Plan) -> None:
        self.model = open_bodies(pruned)
        self.analysis = analysis
        self.plan = plan
        self.nodes: Sequence[NodeProto] = self.model.graph.node
        self.uses: list[_Use] = []
        seen: set[str] = set()
        for index, node in enumerate(self.nodes):
            for place, name in enumerate(node.input):
                if name in self.model.weights and name not in seen:
                    seen.add(name)
                    self.uses.append(_Use(index, place, name))
        producers = (analysis.coupling.axes.axis(p.axis) for p in analysis.coupling.relations.producers)
        self.producers = {(axis.tensor, axis.dim) for axis in producers}
        self.channels = [use for use in self.uses if self._is_float(use) and self.dims(use)]
        self.filters = [use for use in self.channels if self._sides(use, producer=True)]
        self.inputs = [use for use in self.channels if self._sides(use, producer=False)]

    def node_name(self, use: _Use) -> str:
        """What to call the node that reads the weight."""
        node = self.nodes[use.node]
        name = node.name or next((output for output in node.output if output), f"node {use.node}")
        return f"{node.op_type} '{name}'"

    def array(self, use: _Use) -> Array:
        """The values in the pruned model."""
        return self.model.weights[use.tensor].array

    def _is_float(self, use: _Use) -> bool:
        weight = self.model.weights[use.tensor]
        return helper.tensor_dtype_to_np_dtype(weight.elem_type).kind == "f" or self.quantised(use)

    def quantised(self, use: _Use) -> bool:
        """Whether a node of a quantised model reads the weight."""
        op_type = self.nodes[use.node].op_type
        return any(part in op_type for part in ("Quantize", "QLinear", "QGemm", "Integer", "QAttention"))

    def dims(self, use: _Use) -> list[int]:
        """The dimensions along which channels lie: those that can lose positions, and all of a filter's first two."""
        coupling, name = self.analysis.coupling, use.tensor
        shape = self.model.weights[name].shape
        found = set(range(min(2, len(shape)))) if len(shape) > 1 else set()
        if name in coupling.axes and len(self._original_shape(name)) == len(shape):
            found |= {dim for dim in range(len(shape)) if coupling.axes.id(name, dim) in coupling.class_of}
        return sorted(dim for dim in found if shape[dim] > 1)

    def _original_shape(self, name: str) -> tuple[int, ...]:
        return self.analysis.graph.shapes.extents.get(name, ())

    def _sides(self, use: _Use, *, producer: bool) -> list[int]:
        return [dim for dim in self.dims(use) if self.makes(use.tensor, dim) is producer]

    def makes(self, tensor: str, dim: int) -> bool:
        """Whether positions along this dimension are what the layer puts out: filters, entries of vectors."""
        return len(self.model.weights[tensor].shape) == 1 or (tensor, dim) in self.producers

    def choose(self, uses: Sequence[_Use], rng: np.random.Generator) -> _Use | None:
        """One of the uses, each node as likely as another; mostly one that the plan has touched."""
        touched = [use for use in uses if use.tensor in self.plan.removed]
        pool = touched if touched and (len(touched) == len(uses) or rng.random() < _TOUCHED) else uses
        return pool[int(rng.integers(len(pool)))] if pool else None

    def kept(self, tensor: str) -> dict[int, IntArray] | None:
        """Positions of the original that the pruned weight has, by dimension; None where slices are not all of it.

        (The filters of grouped convolutions may each have lost other inputs.)
        """
        before = self.analysis.graph.model.weights.get(tensor)
        removed = self.plan.removed.get(tensor)
        if before is None or not removed:
            return None
        found = {
            dim: np.setdiff1d(np.arange(before.shape[dim]), positions)
            for dim, positions in removed.items()
            if dim < len(before.shape) and positions
        }
        shape = tuple(len(found[dim]) if dim in found else extent for dim, extent in enumerate(before.shape))
        return found if found and shape == self.model.weights[tensor].shape else None

    def original(self, tensor: str) -> Array:
        """The values in the original."""
        return self.analysis.graph.model.weights[tensor].array

    def mutation(
        self,
        kind: Kind,
        use: _Use,
        what: str,
        edit: Callable[[Array], Array],
        dim: int | None = None,
        positions: Sequence[int] = (),
    ) -> _Draw:
        """The mutation, if it changes the weight."""
        before = self.array(use)
        after = edit(before)
        if after.shape == before.shape and after.tobytes() == before.tobytes():
            return _MISS
        at = "" if dim is None else f"[{dim}]"
        shown = ", ".join(map(str, positions[:_NAMED])) + (", …" if len(positions) > _NAMED else "")
        where = f"{kind.value}: {use.tensor}{at} of {self.node_name(use)}"
        text = f"{where}, {what}" + (f" ({shown})" if shown else "")
        return Mutation(kind, self.node_name(use), use.tensor, dim, tuple(positions), text, edit=edit)


# ---------------------------------------------------------------- channels


def _swapped(array: Array, dim: int, a: int, b: int) -> Array:
    order = np.arange(array.shape[dim])
    order[[a, b]] = b, a
    swapped: Array = array.take(order, axis=dim)
    return swapped


def _zeroed(array: Array, dim: int, at: int) -> Array:
    changed = array.copy()
    changed[(slice(None),) * dim + (at,)] = 0
    return changed


def _swap(kind: Kind, *, producer: bool, subject: _Subject, rng: np.random.Generator) -> _Draw:
    use = subject.choose(subject.filters if producer else subject.inputs, rng)
    if use is None:
        return None
    dims = [dim for dim in subject.dims(use) if subject.makes(use.tensor, dim) is producer]
    dim = int(rng.choice(dims))
    a, b = sorted(rng.choice(subject.array(use).shape[dim], 2, replace=False).tolist())
    return subject.mutation(kind, use, "exchanged", partial(_swapped, dim=dim, a=a, b=b), dim, (a, b))


def _zero(subject: _Subject, rng: np.random.Generator) -> _Draw:
    use = subject.choose(subject.channels, rng)
    if use is None:
        return None
    dim = int(rng.choice(subject.dims(use)))
    at = int(rng.integers(subject.array(use).shape[dim]))
    return subject.mutation(Kind.ZEROED_CHANNEL, use, "set to zero", partial(_zeroed, dim=dim, at=at), dim, (at,))


_BIAS = {("Conv", 2), ("ConvTranspose", 2), ("Gemm", 2), ("QLinearConv", 8), ("BatchNormalization", 2)}
_BIAS |= {("LayerNormalization", 2), ("InstanceNormalization", 2), ("GroupNormalization", 2)}


def _drop_bias(subject: _Subject, rng: np.random.Generator) -> _Draw:
    def is_bias(use: _Use) -> bool:
        op_type, extents = subject.nodes[use.node].op_type, subject.model.weights[use.tensor].shape
        vector = sum(extent > 1 for extent in extents) == 1
        return (op_type, use.place) in _BIAS or (op_type in ("Add", "Sub") and vector and subject._is_float(use))

    use = subject.choose([use for use in subject.uses if is_bias(use)], rng)
    if use is None:
        return None
    flat = subject.array(use).ravel()
    if rng.random() < 0.5 or len(flat) < 2:
        return subject.mutation(Kind.DROPPED_BIAS, use, "all set to zero", np.zeros_like)
    at = int(rng.integers(len(flat)))
    return subject.mutation(Kind.DROPPED_BIAS, use, "an entry set to zero", partial(_cleared, at=at), None, (at,))


def _cleared(array: Array, at: int) -> Array:
    changed = array.copy()
    changed.reshape(-1)[at] = 0
    return changed


# ---------------------------------------------------------------- slices


def _taken(_: Array, original: Array, kept: Mapping[int, IntArray]) -> Array:
    """The slice of the original at these positions."""
    for dim, positions in kept.items():
        original = original.take(positions, axis=dim)
    return original


def _shift_slice(subject: _Subject, rng: np.random.Generator) -> _Draw:
    """Kept positions moved by one, from some position on, as an index that is counted wrongly does."""
    candidates = [use for use in subject.uses if use.tensor in subject.plan.removed]
    if not candidates:
        return None
    use = candidates[int(rng.integers(len(candidates)))]
    kept = subject.kept(use.tensor)
    if kept is None:
        return _MISS
    dim = int(rng.choice(list(kept)))
    extent = subject.original(use.tensor).shape[dim]
    start, step = int(rng.integers(len(kept[dim]))), int(rng.choice([-1, 1]))
    if rng.random() < 0.5:
        start = 0
    moved = kept[dim].copy()
    moved[start:] = np.clip(moved[start:] + step, 0, extent - 1)
    edit = partial(_taken, original=subject.original(use.tensor), kept={**kept, dim: moved})
    return subject.mutation(Kind.SHIFTED_SLICE, use, f"positions from {start} on taken {step:+d}", edit, dim, (start,))


def _stale(kind: Kind, *, quantised: bool, subject: _Subject, rng: np.random.Generator) -> _Draw:
    """A vector that did not follow: the first positions of the original, or others that are not the kept ones."""

    def is_one(use: _Use) -> bool:
        shape, op_type = subject.model.weights[use.tensor].shape, subject.nodes[use.node].op_type
        if sum(extent > 1 for extent in shape) != 1 or use.place == 0 or use.tensor not in subject.plan.removed:
            return False
        return subject.quantised(use) if quantised else op_type.endswith("Normalization") or op_type in ("Mul", "Add")

    candidates = [use for use in subject.uses if is_one(use)]
    if not candidates:
        return None
    use = candidates[int(rng.integers(len(candidates)))]
    kept = subject.kept(use.tensor)
    if kept is None:
        return _MISS
    (dim,) = kept
    extent, count = subject.original(use.tensor).shape[dim], len(kept[dim])
    first = rng.random() < 0.5
    wrong = np.arange(count) if first else np.sort(rng.choice(extent, count, replace=False))
    what = "the original's first" if first else "the original's at other positions"
    edit = partial(_taken, original=subject.original(use.tensor), kept={dim: wrong})
    return subject.mutation(kind, use, what, edit, dim, wrong.tolist())


def _wrong_group(subject: _Subject, rng: np.random.Generator) -> _Draw:
    """The filters of two groups of a convolution exchanged."""

    def groups(use: _Use) -> int:
        return next((a.i for a in subject.nodes[use.node].attribute if a.name == "group"), 1)

    def is_one(use: _Use) -> bool:
        return len(subject.model.weights[use.tensor].shape) > 2 and groups(use) > 1

    use = subject.choose([use for use in subject.uses if is_one(use)], rng)
    if use is None:
        return None
    count = groups(use)
    a, b = sorted(rng.choice(count, 2, replace=False).tolist())
    edit = partial(_swapped_blocks, count=count, a=a, b=b)
    return subject.mutation(Kind.WRONG_GROUP, use, f"groups exchanged, of {count}", edit, 0, (a, b))


def _swapped_blocks(array: Array, count: int, a: int, b: int) -> Array:
    return _swapped(array.reshape(count, -1, *array.shape[1:]), 0, a, b).reshape(array.shape)


# ---------------------------------------------------------------- extents and indices


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


def _shift_extent(subject: _Subject, rng: np.random.Generator) -> _Draw:
    """A number of a Reshape, Split, Slice, … off by one, in a way that can still run: numbers keep their total."""
    places = [
        (index, place, attribute)
        for index, node in enumerate(subject.nodes)
        for place, attribute in _EXTENTS.get(node.op_type, ())
        if (place < len(node.input) and node.input[place] in subject.model.weights) or _has(node, attribute)
    ]
    if not places:
        return None
    index, place, attribute = places[int(rng.integers(len(places)))]
    node = subject.nodes[index]
    operand = place < len(node.input) and node.input[place] in subject.model.weights
    tensor = node.input[place] if operand else node.output[0]
    use = _Use(index, place, tensor)
    numbers = np.ravel(subject.array(use)) if operand else _numbers(node, attribute)
    edit, what, positions = _moved(node.op_type, numbers, rng)
    if edit is None:
        return _MISS
    if operand:
        return subject.mutation(Kind.SHIFTED_EXTENT, use, what, edit, None, positions)
    text = f"{Kind.SHIFTED_EXTENT.value}: {attribute} of {subject.node_name(use)}, {what}"
    name = subject.node_name(use)
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
        return partial(_swapped, dim=0, a=a, b=b), "two extents exchanged", (a, b)
    if not len(numbers):
        return None, "", ()
    at, step = int(rng.integers(len(numbers))), int(rng.choice([-1, 1]))
    return partial(_stepped, at=at, step=step), f"number {at} off by {step:+d}", (at,)


def _transferred(array: Array, source: int, target: int) -> Array:
    changed = array.copy()
    changed[source] -= 1
    changed[target] += 1
    return changed


def _stepped(array: Array, at: int, step: int) -> Array:
    changed = array.copy()
    changed.reshape(-1)[at] += step
    return changed


def _shift_index(subject: _Subject, rng: np.random.Generator) -> _Draw:
    """An index of a Gather off by one, within what is there."""
    types = ("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND")
    uses = [use for use in subject.uses if subject.nodes[use.node].op_type in types and use.place == 1]
    use = subject.choose(uses, rng)
    if use is None:
        return None
    numbers = subject.array(use).ravel()
    if not len(numbers) or numbers.dtype.kind not in "iu":
        return _MISS
    at = int(rng.integers(len(numbers)))
    step = -1 if numbers[at] > 0 else 1
    return subject.mutation(
        Kind.SHIFTED_INDEX, use, f"index {at} off by {step:+d}", partial(_stepped, at=at, step=step), None, (at,)
    )


def _has(node: NodeProto, name: str) -> bool:
    return any(attribute.name == name and attribute.type == AttributeProto.INTS for attribute in node.attribute)


def _numbers(node: NodeProto, name: str) -> Array:
    return np.array(next(a.ints for a in node.attribute if a.name == name), dtype=np.int64)


def _set_numbers(node: NodeProto, name: str, edit: Callable[[Array], Array]) -> None:
    numbers = next(attribute.ints for attribute in node.attribute if attribute.name == name)
    changed = edit(np.array(numbers, dtype=np.int64)).tolist()
    del numbers[:]
    numbers.extend(changed)


_DRAWERS: tuple[tuple[Kind, float, Callable[[_Subject, np.random.Generator], _Draw]], ...] = (
    (Kind.SWAPPED_FILTERS, 4, lambda s, rng: _swap(Kind.SWAPPED_FILTERS, producer=True, subject=s, rng=rng)),
    (Kind.SWAPPED_INPUTS, 4, lambda s, rng: _swap(Kind.SWAPPED_INPUTS, producer=False, subject=s, rng=rng)),
    (Kind.ZEROED_CHANNEL, 3, _zero),
    (Kind.DROPPED_BIAS, 2, _drop_bias),
    (Kind.SHIFTED_SLICE, 4, _shift_slice),
    (Kind.WRONG_GROUP, 2, _wrong_group),
    (Kind.STALE_QUANTISER, 2, lambda s, rng: _stale(Kind.STALE_QUANTISER, quantised=True, subject=s, rng=rng)),
    (Kind.STALE_NORMALISER, 2, lambda s, rng: _stale(Kind.STALE_NORMALISER, quantised=False, subject=s, rng=rng)),
    (Kind.SHIFTED_EXTENT, 1, _shift_extent),
    (Kind.SHIFTED_INDEX, 1, _shift_index),
)
"""Every kind, how often it is drawn in comparison, and who draws it (None: the model has no place for it)."""
