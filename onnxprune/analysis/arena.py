"""The memory that the activations of a model take in an arena: what a planner of offsets reaches, with reuse in place.

Counted are graph inputs, outputs and what nodes hand on, at the batch size of the shapes. An operator that may write
over what it reads (``Operator.in_place``) does so where nobody else reads it later; a QuantizeLinear and what is before
it are one buffer of bytes, as engines fuse them. Not counted: weights, the program, and scratch room of kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnxprune.analysis.analyzing import InputShapes
from onnxprune.analysis.binding import find_binding
from onnxprune.errors import ShapeError
from onnxprune.ir.elements import BITS
from onnxprune.ir.graph import Graph, Node
from onnxprune.ir.model import ModelLike, as_model
from onnxprune.ir.shapes import infer_shapes
from onnxprune.ops import Registry, default_registry
from onnxprune.passes.normalize import normalize


@dataclass(frozen=True)
class Arena:
    """Bytes: of the whole arena as planned (``size``), and alive at one time at least (``live``)."""

    size: int
    live: int


@dataclass
class _Buffer:
    """Bytes, and the first and last node between which they are needed."""

    size: int
    first: int
    last: int


def arena(
    model: ModelLike,
    input_shapes: InputShapes | None = None,
    *,
    without: Collection[str] = (),
    registry: Registry | None = None,
) -> Arena:
    """Plan the memory of a model's activations.

    Args:
        model: a Model, ModelProto or path.
        input_shapes: of inputs with open extents.
        without: tensors that are held elsewhere, inputs for example.
        registry: the known operators, if not the default ones.

    Raises:
        ShapeError: the shapes do not follow from those of the inputs.
    """
    source = normalize(as_model(model))
    bound = find_binding(source, input_shapes).shapes
    graph = Graph(source, infer_shapes(source, bound))
    buffers = [buffer for buffer in _buffers(graph, registry or default_registry(), without) if buffer.size]
    return Arena(min(_planned(buffers, order) for order in _ORDERS), _live(buffers, len(graph.nodes)))


#: In which order buffers are placed; what takes least is taken.
_ORDERS: tuple[Callable[[_Buffer], tuple[int, int]], ...] = (
    lambda buffer: (-buffer.size, buffer.first),
    lambda buffer: (buffer.first, -buffer.size),
    lambda buffer: (buffer.first - buffer.last, -buffer.size),
    lambda buffer: (-buffer.size * (buffer.last - buffer.first + 1), buffer.first),
)


def _buffers(graph: Graph, registry: Registry, without: Collection[str]) -> list[_Buffer]:
    """What is held of every activation; those that are written over one another are one."""
    end = max(len(graph.nodes) - 1, 0)
    last = {name: max(readers) for name, readers in graph.consumers.items()}
    last.update(dict.fromkeys(graph.outputs, end + 1))
    inputs = [name for name in graph.inputs if name not in without]
    found = {name: _Buffer(_bytes(graph, name), 0, last.get(name, 0)) for name in inputs}
    every, rounding = list(found.values()), _Rounding(graph, registry)
    for node in graph.nodes:
        for name in node.outputs:
            if not name or name in graph.constants or name in without:
                continue
            size, until = _bytes(graph, name), last.get(name, node.index)
            taken = _taken(node, graph, rounding, found, size)
            if taken is None:
                taken = _Buffer(size, node.index, until)
                every.append(taken)
            taken.size = min(taken.size, size)
            taken.last = max(taken.last, until)
            found[name] = taken
    return every


def _taken(node: Node, graph: Graph, rounding: _Rounding, found: Mapping[str, _Buffer], size: int) -> _Buffer | None:
    """The buffer of an input that also holds the node's result, of so many bytes."""
    operator, read = rounding.registry.find(node), next(iter(node.inputs), "")
    if operator is None:
        return None
    if operator.packs and read in found and found[read].size < size:
        # Integers that are read as floats: both are there as long as either is needed.
        return found[read] if rounding.in_integers(node.outputs[0]) else None
    for name in node.inputs if operator.in_place else ():
        if name not in found or name in graph.inputs or found[name].last > node.index:
            continue
        if found[name].size == size:
            return found[name]
        if operator.packs and name == read:
            same = [other for other, buffer in found.items() if buffer is found[name]]
            return found[name] if all(map(rounding.rounded, same)) else None
    return None


@dataclass(frozen=True)
class _Rounding:
    """Which floats engines need not hold, as they fuse what rounds them or reads them from integers."""

    graph: Graph
    registry: Registry

    def rounded(self, name: str) -> bool:
        """Whether all that reads a tensor rounds it, perhaps after operators that write over it."""
        readers = self._readers(name)
        if not readers or all(map(self._packs, readers)):
            return bool(readers)
        operator = self.registry.find(readers[0])
        return len(readers) == 1 and operator is not None and operator.in_place and self._fused(readers[0], name)

    def in_integers(self, name: str) -> bool:
        """Whether all that reads a tensor of rounded values rounds again, or computes with integers."""
        readers = self._readers(name)
        return bool(readers) and all(self._packs(node) or self._fused(node, name) for node in readers)

    def _readers(self, name: str) -> list[Node]:
        """Empty also where the caller reads it."""
        nodes = self.graph.nodes
        return [] if name in self.graph.outputs else [nodes[index] for index in self.graph.consumers.get(name, ())]

    def _packs(self, node: Node) -> bool:
        operator = self.registry.find(node)
        return operator is not None and operator.packs

    def _fused(self, node: Node, name: str) -> bool:
        """Whether all else that a node reads was rounded or is constant, and all that it hands on is rounded."""
        graph = self.graph
        others = [other for other in node.inputs if other not in ("", name) and other not in graph.constants]
        known = all(other in graph.producer and self._packs(graph.nodes[graph.producer[other]]) for other in others)
        return known and all(map(self.rounded, filter(None, node.outputs)))


def _bytes(graph: Graph, name: str) -> int:
    extents = graph.shapes.extents.get(name)
    if extents is None:
        raise ShapeError(f"the shape of {name!r} depends on data or is not known, and so is the memory that it takes")
    bits = BITS.get(graph.shapes.elem_types.get(name, TensorProto.FLOAT), 0)
    return -(-int(np.prod(extents, dtype=np.int64)) * bits // 8)


def held(graph: Graph, names: Iterable[str]) -> int:
    """The bytes of tensors of a graph."""
    return sum(_bytes(graph, name) for name in names)


def _planned(buffers: list[_Buffer], order: Callable[[_Buffer], tuple[int, int]]) -> int:
    """The end of the arena when buffers get the lowest gap that holds them, one after the other."""
    placed: list[tuple[int, _Buffer]] = []
    top = 0
    for buffer in sorted(buffers, key=order):
        offset = 0
        for start, other in sorted(
            ((s, b) for s, b in placed if b.first <= buffer.last and buffer.first <= b.last), key=lambda pair: pair[0]
        ):
            if start - offset >= buffer.size:
                break
            offset = max(offset, start + other.size)
        placed.append((offset, buffer))
        top = max(top, offset + buffer.size)
    return top


def _live(buffers: list[_Buffer], steps: int) -> int:
    change = np.zeros(steps + 3, dtype=np.int64)
    for buffer in buffers:
        change[buffer.first] += buffer.size
        change[buffer.last + 1] -= buffer.size
    return int(np.cumsum(change).max())
