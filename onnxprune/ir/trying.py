"""Trying which extents of open dimensions run: the original in onnxruntime, one short run after the other.

The usual extents come first. Where they do not run, others are tried in the order of their distance from them; a
change stays if the run gets further. Failing runs end at the node that fails, so that most take milliseconds.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import GraphProto, TensorProto

from onnxprune.errors import VerificationError
from onnxprune.ir.extents import Binding, Extents, Openings, Origin, Trial
from onnxprune.ir.model import Model
from onnxprune.ir.protos import bodies
from onnxprune.ir.session import Session, random_inputs

_USUAL = (1, 2, 8, 16, 32, 64, 128, 224, 256, 320, 480, 512, 640)
# Multiples of strides, lengths that splits and flattened maps ask for, sizes that networks were trained with.
_FURTHER = (
    3,
    4,
    10,
    12,
    20,
    24,
    28,
    40,
    48,
    56,
    80,
    96,
    100,
    112,
    160,
    192,
    240,
    288,
    299,
    300,
    384,
    448,
    576,
    768,
    1024,
)
_SOUND = (8000, 16000, 32000)
_MOST_CONSTANTS = 64
_LONGEST_SHAPE = 8
_LONGEST_EXTENT = 4096
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
_MOST_ELEMENTS = 1 << 22
_MOST_RUNS = 400
_MOST_SECONDS = 20.0
_ROUNDS = 2
_NUMBER = re.compile("'#([0-9]+)'")


@dataclass(frozen=True, order=True)
class _Outcome:
    """How many of the runs went through, and how far those that did not came at the worst."""

    complete: bool
    ran: int
    reached: int


def tried(model: Model, openings: Openings, binding: Binding, seconds: float = _MOST_SECONDS) -> Binding:
    """The binding, if the model runs under it, else another that it runs under; see ``Binding.trial``.

    Only dimensions that were assumed are changed. Where onnxruntime does not load the model, nothing is tried.
    """
    try:
        search = _Search(model, openings, binding, seconds)
    except VerificationError:
        return binding
    return search.run()


class _Search:
    def __init__(self, model: Model, openings: Openings, binding: Binding, seconds: float) -> None:
        named, self._names = _named(model)
        self._session = Session(named, "the model", literal=True)
        self._model = model
        self._openings = openings
        self._start = binding
        self._symbols = list(dict.fromkeys(one.symbol for one in binding.open if one.origin is Origin.ASSUMED))
        self._choices = list(_choices(model))
        self._constants = _constants(model)
        self._tried: list[Mapping[str, Extents]] = []
        self._fault: str | None = None
        self._ends = time.monotonic() + seconds

    def run(self) -> Binding:
        """Change one symbol after the other until the model runs, or there is nothing left to try."""
        best = {one.symbol: one.extent for one in self._start.open}
        outcome = self._attempt(best)
        for further in range(_ROUNDS):
            for symbols in self._together():
                for extent in self._candidates(symbols, best, further):
                    if outcome.complete or self._exhausted():
                        break
                    changed = best | dict.fromkeys(symbols, extent)
                    found = self._attempt(changed)
                    if found > outcome:
                        best, outcome = changed, found
        fault = None if outcome.ran else self._fault
        usual = {one.symbol: one.extent for one in self._start.open}
        found_extents = [
            replace(one, extent=best[one.symbol], origin=Origin.TRIED)
            if outcome.ran and best[one.symbol] != usual[one.symbol]
            else one
            for one in self._start.open
        ]
        return self._openings.with_extents(found_extents, Trial(tuple(self._tried), fault))

    def _exhausted(self) -> bool:
        return len(self._tried) >= _MOST_RUNS or time.monotonic() > self._ends

    def _attempt(self, extents: Mapping[str, int]) -> _Outcome:
        """Run the model under these extents; a second time it gets no further."""
        shapes = self._shapes(extents)
        if shapes in self._tried:
            return _Outcome(False, -1, 0)
        self._tried.append(shapes)
        usual = random_inputs(self._model, shapes, 0)
        ran, reached = 0, len(self._names)
        runs = [usual, *(usual | {name: np.full_like(usual[name], value)} for name, value in self._choices)]
        for inputs in runs:
            try:
                self._session.run(inputs)
                ran += 1
            except VerificationError as error:
                at = [int(number) for number in _NUMBER.findall(str(error))]
                reached = min(reached, max(at, default=0))
                self._fault = self._fault or _NUMBER.sub(lambda n: f"'{self._names[int(n[1]) - 1]}'", str(error))
        return _Outcome(ran == len(runs), ran, reached)

    def _shapes(self, extents: Mapping[str, int]) -> Mapping[str, Extents]:
        found = [replace(one, extent=extents[one.symbol]) for one in self._start.open]
        return self._openings.with_extents(found).shapes

    def _together(self) -> Iterator[tuple[str, ...]]:
        """Symbols to change at a time: height and width first, then each alone, first dimensions last."""
        dims: dict[str, list[int]] = {}
        inputs: dict[str, list[str]] = {}
        for one in self._start.open:
            if one.symbol in self._symbols:
                dims.setdefault(one.symbol, []).append(one.dim)
                inputs.setdefault(one.tensor, []).append(one.symbol)
        for name, symbols in inputs.items():
            spatial = tuple(dict.fromkeys(symbol for symbol in symbols if min(dims[symbol]) > 1))
            if len(spatial) > 1 and len(self._openings.dims[name]) in (4, 5):
                yield spatial
        for symbol in sorted(self._symbols, key=lambda symbol: min(dims[symbol]) == 0):
            yield (symbol,)

    def _candidates(self, symbols: tuple[str, ...], current: Mapping[str, int], further: int) -> list[int]:
        """Extents to try for these symbols: those near the usual one first, as far as their number of elements goes."""
        usual = next(one.extent for one in self._start.open if one.symbol in symbols)
        if further == 0:
            extents = {*_USUAL, *(_SOUND if self._heard(symbols) else ())}
        else:
            extents = {*_FURTHER, *self._constants}
        # What counts the same things as two others, such as a mask for what is remembered and what is new.
        rest = [extent for symbol, extent in current.items() if symbol not in symbols and extent > 1]
        sums = {a + b for place, a in enumerate(rest) for b in rest[place + 1 :]}

        def distance(extent: int) -> tuple[float, int]:
            ratio = math.log(extent / usual)
            return max(-ratio, len(symbols) * ratio), -extent

        order = dict.fromkeys((*sorted(sums, key=distance), *sorted(extents - {usual}, key=distance)))
        return [extent for extent in order if self._fits(symbols, extent, current)]

    def _heard(self, symbols: tuple[str, ...]) -> bool:
        """Whether the dimensions may count samples of sound: tokens come in thousands nowhere, and cost memory."""
        inputs = {one.tensor for one in self._start.open if one.symbol in symbols}
        types = {i.type.tensor_type.elem_type for i in self._model.graph.input if i.name in inputs}
        return types <= _FLOATS

    def _fits(self, symbols: tuple[str, ...], extent: int, current: Mapping[str, int]) -> bool:
        shapes = self._shapes({**current, **dict.fromkeys(symbols, extent)})
        return all(math.prod(shape) <= _MOST_ELEMENTS for shape in shapes.values())


def _constants(model: Model) -> set[int]:
    """Numbers in what may be targets of Reshapes or bounds of Slices: an exporter may have written a length there."""
    small = (w for w in model.weights.values() if w.elem_type == TensorProto.INT64 and 0 < w.size <= _LONGEST_SHAPE)
    found = {extent for weight in small for extent in weight.array.ravel().tolist() if 1 < extent <= _LONGEST_EXTENT}
    return set(sorted(found)[:_MOST_CONSTANTS])


def _choices(model: Model) -> Iterator[tuple[str, object]]:
    """Inputs that are compared with a constant (a sampling rate, say), and the constant: the other way to run."""
    inputs = {i.name for i in model.graph.input} - model.weights.keys()
    for node in model.graph.node:
        if node.op_type == "Equal":
            for name, constant in (node.input, list(node.input)[::-1]):
                weight = model.weights.get(constant)
                if name in inputs and weight is not None and weight.size == 1:
                    yield name, weight.array.item()


def _named(model: Model) -> tuple[Model, list[str]]:
    """The model with numbers for names of nodes, as faults go by names, and the names that the nodes had."""
    draft = model.edit()
    names: list[str] = []

    def walk(graph: GraphProto) -> None:
        for node in graph.node:
            names.append(node.name or next((output for output in node.output if output), node.op_type))
            node.name = f"#{len(names)}"
            for body in bodies(node):
                walk(body)

    walk(draft.graph)
    return draft.finish(), names
