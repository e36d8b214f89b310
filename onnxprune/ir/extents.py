"""The extents that graph inputs get where the model leaves them open.

What the caller gives comes first, then what the graph asks for (see :class:`Wishes`), then a usual size: 1 for the
first dimension, 224 for the height and width of inputs of rank 4, 64 for the others.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxprune.errors import ShapeError
from onnxprune.ir.protos import integer, node_title

if TYPE_CHECKING:
    from onnx import TensorShapeProto

    from onnxprune.ir.model import Model

_DEFAULT_SPATIAL = 224
_DEFAULT_LENGTH = 64
_NO_NAMES = frozenset({"none", "unk", "unknown", "dynamic"})

Extents = tuple[int, ...]
Place = tuple[str, int]
"""A graph input and one of its dimensions."""


class Origin(Enum):
    """Where an extent comes from: the caller, the graph, or this module."""

    GIVEN = "given"
    ASKED = "asked for by the graph"
    TRIED = "found by trying"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class OpenExtent:
    """An open dimension of a graph input, and what it was bound to.

    Dimensions of one ``symbol`` have one extent. ``why`` names the node that asks for it, if one does.
    """

    tensor: str
    dim: int
    symbol: str
    extent: int
    origin: Origin
    why: str = ""


@dataclass(frozen=True)
class Trial:
    """What came of running the original: how many extents were tried, and the first fault where none of them runs."""

    tried: tuple[Mapping[str, Extents], ...]
    fault: str | None = None


@dataclass(frozen=True)
class Binding:
    """A shape for every graph input, how each open extent was found, and what came of trying, if it was."""

    shapes: Mapping[str, Extents]
    open: tuple[OpenExtent, ...] = ()
    given: Mapping[str, Extents] = field(default_factory=dict)
    trial: Trial | None = None

    @property
    def assumed(self) -> tuple[str, ...]:
        """The inputs of which some dimension but the first was neither fixed, given, nor asked for by the graph."""
        free = (Origin.ASSUMED, Origin.TRIED)
        return tuple(dict.fromkeys(found.tensor for found in self.open if found.dim and found.origin in free))

    @property
    def to_repeat(self) -> Mapping[str, Extents]:
        """The shapes to give for the same binding without a search: those given, or all where some were searched."""
        return self.shapes if any(one.origin is Origin.TRIED for one in self.open) else self.given

    def to_list(self) -> list[dict[str, Any]]:
        """The open dimensions as plain data for JSON."""
        return [{**asdict(one), "origin": one.origin.value} for one in self.open]

    def in_words(self) -> Iterator[str]:
        """A sentence on the open dimensions, if any was assumed."""
        searched = dict.fromkeys(one.tensor for one in self.open if one.origin is Origin.TRIED)
        if self.trial is not None and self.trial.fault is not None:
            yield f"The model does not run: {self.trial.fault}; {self.tried_in_words()}."
        elif self.trial is not None and searched:
            yield (
                f"Open dimensions of {', '.join(searched)} were found by trying {len(self.trial.tried)} choices in "
                "onnxruntime; set others with --input-shape."
            )
        elif self.assumed:
            yield f"Open dimensions of {', '.join(self.assumed)} were assumed; set them with --input-shape."

    def tried_in_words(self, most: int = 8) -> str:
        """The inputs whose extents are open, what was tried for each, and what to do: for errors."""
        found: dict[str, dict[str, None]] = {}
        for shapes in (self.shapes, *(self.trial.tried if self.trial is not None else ())):
            for name in self.assumed or shapes:
                found.setdefault(name, {})["×".join(map(str, shapes[name])) or "scalar"] = None
        parts = []
        for name, tried in found.items():
            more = f" and {len(tried) - most} more" if len(tried) > most else ""
            parts.append(f"'{name}' {', '.join(list(tried)[:most])}{more}")
        return f"tried were for input {', for input '.join(parts)}; give the shapes that it wants (--input-shape)"

    @property
    def free(self) -> Mapping[Place, str]:
        """The open dimensions that may have other extents as well, and their symbols."""
        return {(found.tensor, found.dim): found.symbol for found in self.open if found.origin is not Origin.ASKED}


@dataclass(frozen=True)
class Wishes:
    """What a graph asks of its open dimensions: extents, and that some equal others; each with the node that does."""

    extents: Mapping[Place, tuple[int, str]] = field(default_factory=dict)
    equal: Sequence[tuple[Place, Place, str]] = ()


NO_WISHES = Wishes()


@dataclass(frozen=True)
class Openings:
    """The graph inputs of a model: fixed extents and symbols, dimension by dimension, and what the caller gave."""

    dims: Mapping[str, tuple[int | str, ...]]
    given: Mapping[str, Extents]

    @classmethod
    def of(cls, model: Model, given: Mapping[str, Extents]) -> Openings:
        """Those of a model; inputs of unknown rank appear only where they are given.

        Raises:
            ShapeError: an input that the model does not have, or a shape that contradicts it.
        """
        inputs = {i.name: i for i in model.graph.input if i.name not in model.weights}
        unknown = sorted(set(given) - set(inputs))
        if unknown:
            raise ShapeError(f"the model has no input '{unknown[0]}'; its inputs are: {', '.join(inputs) or 'none'}")
        dims: dict[str, tuple[int | str, ...]] = {}
        for name, info in inputs.items():
            tensor_type = info.type.tensor_type
            if tensor_type.HasField("shape"):
                dims[name] = tuple(_declared(name, dim, d) for dim, d in enumerate(tensor_type.shape.dim))
            elif name in given:
                dims[name] = tuple(f"{name}.{dim}" for dim in range(len(given[name])))
            if name in given:
                _check(name, given[name], dims[name])
        return cls(MappingProxyType(dims), given)

    def places(self) -> Iterator[tuple[Place, str]]:
        """The open dimensions and their symbols."""
        for name, dims in self.dims.items():
            for dim, found in enumerate(dims):
                if isinstance(found, str):
                    yield (name, dim), found

    def bind(self, wishes: Wishes = NO_WISHES) -> Binding:
        """The extents of all inputs, without running anything."""
        places = dict(self.places())
        roots, because = _joined(places.values(), ((places[a], places[b], why) for a, b, why in wishes.equal))
        settled: dict[str, tuple[int, Origin, str]] = {}
        for name, shape in self.given.items():
            for dim, extent in enumerate(shape):
                if (name, dim) in places:
                    settled.setdefault(roots[places[name, dim]], (extent, Origin.GIVEN, ""))
        for place, (extent, why) in wishes.extents.items():
            settled.setdefault(roots[places[place]], (extent, Origin.ASKED, why))
        computed = {symbol for symbol in places.values() if not symbol.isidentifier()}
        # What first dimensions are bound to goes before what others would be.
        for (name, dim), symbol in sorted(places.items(), key=lambda item: (item[1] in computed, item[0][1] > 0)):
            extents = {other: settled[root][0] for other, root in roots.items() if root in settled}
            value = _computed(symbol, extents) if symbol in computed else None
            found = (value, Origin.ASKED, "its name") if value else (self._usual(name, dim), Origin.ASSUMED, "")
            settled.setdefault(roots[symbol], found)
        found_extents = []
        for (name, dim), symbol in places.items():
            extent, origin, why = settled[roots[symbol]]
            if name in self.given:
                extent, origin, why = self.given[name][dim], Origin.GIVEN, ""
            found_extents.append(OpenExtent(name, dim, roots[symbol], extent, origin, why or because.get(symbol, "")))
        return self.with_extents(found_extents)

    def joined(self, bound: Binding, wishes: Wishes) -> Binding:
        """The binding, with open dimensions made one that have to be equal, and are."""
        extents = {(one.tensor, one.dim): one.extent for one in bound.open}
        symbols = {(one.tensor, one.dim): one.symbol for one in bound.open}
        equal = ((symbols[a], symbols[b], why) for a, b, why in wishes.equal if extents[a] == extents[b])
        roots, because = _joined(symbols.values(), equal)
        return replace(
            bound,
            open=tuple(replace(o, symbol=roots[o.symbol], why=o.why or because.get(o.symbol, "")) for o in bound.open),
        )

    def with_extents(self, found: Sequence[OpenExtent], trial: Trial | None = None) -> Binding:
        """A binding with these extents for the open dimensions."""
        extents = {(one.tensor, one.dim): one.extent for one in found}
        shapes = {
            name: tuple(d if isinstance(d, int) else extents[name, dim] for dim, d in enumerate(dims))
            for name, dims in self.dims.items()
        }
        return Binding(MappingProxyType(shapes), tuple(found), self.given, trial)

    def _usual(self, name: str, dim: int) -> int:
        if dim == 0:
            return 1
        return _DEFAULT_SPATIAL if len(self.dims[name]) == 4 else _DEFAULT_LENGTH


def usual_binding(model: Model, given: Mapping[str, Sequence[int]] | None = None) -> Binding:
    """The shapes that a model is looked at with if nothing more is known: no running, and no look at the whole graph.

    Raises:
        ShapeError: see :meth:`Openings.of`.
    """
    openings = Openings.of(model, {name: tuple(int(d) for d in shape) for name, shape in (given or {}).items()})
    return openings.bind(Wishes(_convolved_channels(model, dict(openings.places()))))


def fitted(model: Model, shapes: Mapping[str, Extents]) -> dict[str, Extents]:
    """Shapes of another model's inputs, with the extents that this one declares: state may have shrunk."""
    declared = {i.name: i.type.tensor_type.shape.dim for i in model.graph.input}
    return {
        name: tuple(dim.dim_value or extent for dim, extent in zip(declared[name], shape, strict=True))
        for name, shape in shapes.items()
        if name in declared and len(declared[name]) == len(shape)
    }


def _convolved_channels(model: Model, places: Collection[Place]) -> dict[Place, tuple[int, str]]:
    """The channels that convolutions want of the inputs they read; files may leave even these open."""
    found: dict[Place, tuple[int, str]] = {}
    for node in model.graph.node if places else ():
        if node.op_type == "Conv" and node.input[1] in model.weights and (node.input[0], 1) in places:
            group = integer(node, "group", 1)
            wanted = model.weights[node.input[1]].shape[1] * group
            found[node.input[0], 1] = wanted, f"Conv '{node_title(node)}'"
    return found


def _joined(symbols: Iterable[str], equal: Iterable[tuple[str, str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """What every symbol is called after joining those that are equal, and why where that is another name."""
    roots = {symbol: symbol for symbol in symbols}
    order = list(roots)
    because: dict[str, str] = {}
    for a, b, why in equal:
        first, second = sorted((roots[a], roots[b]), key=order.index)
        if first != second:
            for symbol in [symbol for symbol, root in roots.items() if root == second]:
                roots[symbol], because[symbol] = first, why
    return roots, because


def _declared(name: str, dim: int, declared: TensorShapeProto.Dimension) -> int | str:
    if declared.dim_value > 0:
        return declared.dim_value
    symbol = declared.dim_param
    # Exporters write "-1" and "?" into every open dimension: equal to no other.
    named = any(c.isalpha() for c in symbol) and symbol.lower() not in _NO_NAMES
    return symbol if named else f"{name}.{dim}"


def _check(name: str, shape: Extents, dims: tuple[int | str, ...]) -> None:
    if min(shape, default=1) < 1:
        raise ShapeError(f"the shape given for input '{name}' has an extent below 1: {list(shape)}")
    if len(shape) != len(dims):
        raise ShapeError(f"input '{name}' has {len(dims)} dimensions, but the shape given for it has {len(shape)}")
    for dim, (extent, declared) in enumerate(zip(shape, dims, strict=True)):
        if isinstance(declared, int) and declared != extent:
            raise ShapeError(f"input '{name}' has extent {declared} in dimension {dim}, not {extent}")


_ARITHMETIC: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def _computed(symbol: str, extents: Mapping[str, int]) -> int | None:
    """The value of a symbol that is a sum or product of others, as exporters name the extent of a mask."""
    try:
        tree = ast.parse(symbol, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = _evaluated(tree, extents)
    return found if found is not None and found > 0 else None


def _evaluated(tree: ast.expr, extents: Mapping[str, int]) -> int | None:
    if isinstance(tree, ast.Constant):
        return tree.value if type(tree.value) is int else None
    if isinstance(tree, ast.Name):
        return extents.get(tree.id)
    if not isinstance(tree, ast.BinOp) or type(tree.op) not in _ARITHMETIC:
        return None
    left, right = _evaluated(tree.left, extents), _evaluated(tree.right, extents)
    if left is None or right is None or (isinstance(tree.op, ast.FloorDiv) and right == 0):
        return None
    return _ARITHMETIC[type(tree.op)](left, right)
