"""What a graph asks of the open dimensions of its inputs: read off the relations that its operators state.

Axes that operators take to be *equal* have one extent. Where an open dimension is equal to that of a weight or of a
fixed input, its extent follows; where it is equal to another open dimension, the two are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from onnxprune.analysis.propagation import relate
from onnxprune.errors import ShapeError
from onnxprune.ir.control_flow import open_bodies
from onnxprune.ir.extents import Binding, Openings, Origin, Place, Wishes, usual_binding
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model
from onnxprune.ir.shapes import infer_elsewhere, infer_under
from onnxprune.ir.trying import tried
from onnxprune.ops import Registry, default_registry
from onnxprune.ops.relations import AxisTable, Relations


@dataclass
class _Equalities(Relations):
    """Takes down which axes are equal, whatever extents they have now."""

    pairs: list[tuple[int, int, int]] = field(default_factory=list)
    runs: list[tuple[int, int, int, int]] = field(default_factory=list)

    def equal(self, a: str, dim_a: int, b: str, dim_b: int) -> None:
        """Position i of one axis stands for position i of the other."""
        if a in self.axes and b in self.axes:
            self.pairs.append((self.axes.id(a, dim_a), self.axes.id(b, dim_b), self.node))

    def equal_all(self, a: str, b: str, rank: int, offset: int = 0, but: int | None = None) -> None:
        """The same for all dimensions but one."""
        for dim in range(rank):
            if dim != but:
                self.equal(a, dim, b, dim + offset)

    def balance(self, tensor: str, dim: int, blocks: int, relative: tuple[str, int] | None = None) -> None:
        """The axis is so many times as long as that of a weight."""
        super().balance(tensor, dim, blocks, relative)
        if relative is not None:
            self.runs.append((self.axes.id(tensor, dim), self.axes.id(*relative), blocks, self.node))


def find_binding(
    model: Model,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    registry: Registry | None = None,
    *,
    trials: bool = True,
) -> Binding:
    """Shapes for all graph inputs: as given, else as the graph asks, else usual ones, if need be found by trying.

    Args:
        model: a normalised model.
        input_shapes: complete shapes of some inputs.
        registry: the known operators, if not the default ones.
        trials: run the model where lengths, heights or widths had to be assumed.

    Raises:
        ShapeError: an input that the model does not have, or a shape that contradicts it; the message names what was
            tried where no extents fit the graph.
    """
    usual = usual_binding(model, input_shapes)
    assumed = {one.symbol: one.dim for one in usual.open if one.origin is Origin.ASSUMED}
    if not assumed:
        return usual
    opened = open_bodies(model)
    fault = _fault(opened, usual)
    if fault is None and list(assumed.values()) == [0]:
        return usual  # a batch
    registry = default_registry() if registry is None else registry
    openings = Openings.of(model, usual.given)
    bound = openings.bind(_wishes(opened, registry, usual))
    fault = _fault(opened, bound)
    if trials and (bound.assumed or fault is not None):
        bound = tried(model, openings, bound)
        fault = _fault(opened, bound)
    if fault is not None:
        raise ShapeError(f"{fault}; {bound.tried_in_words()}")
    if bound.shapes == usual.shapes:
        return bound
    # More can be told now, such as which dimensions have to change together.
    return openings.joined(bound, _wishes(opened, registry, bound))


def _wishes(opened: Model, registry: Registry, bound: Binding) -> Wishes:
    """What the graph asks of the dimensions that are left open."""
    graph = Graph(opened, infer_elsewhere(opened, bound))
    said = _Equalities(AxisTable(graph.shapes.extents))
    relate(graph, registry, said)
    return _Joining(graph, said, graph.shapes.bound).run()


def _fault(opened: Model, bound: Binding) -> str | None:
    """What shape inference has to say against a binding."""
    try:
        infer_under(opened, bound.shapes)
    except ShapeError as error:
        return str(error)
    return None


class _Joining:
    """Joins equal axes in the order of the nodes that say so, and notes what that tells of open dimensions."""

    def __init__(self, graph: Graph, said: _Equalities, binding: Binding) -> None:
        self._graph = graph
        self._said = said
        self._parent = list(range(len(said.axes)))
        axes = said.axes
        places = ((one.tensor, one.dim) for one in binding.open if one.tensor in axes)
        self._open: dict[int, Place] = {axes.id(*place): place for place in places}
        self._inputs = self._fixed_of(binding.shapes)
        self._weights = self._fixed_of(graph.model.weights)
        self._extents: dict[Place, tuple[int, str]] = {}
        self._equal: list[tuple[Place, Place, str]] = []

    def _fixed_of(self, tensors: Iterable[str]) -> dict[int, int]:
        axes, shapes = self._said.axes, self._graph.shapes.extents
        known = (axis for tensor in tensors if tensor in axes for axis in axes.axes_of(tensor, len(shapes[tensor])))
        return {axis: axes.extents[axis] for axis in known if axis not in self._open}

    def run(self) -> Wishes:
        """All that the pairs tell."""
        for a, b, node in self._said.pairs:
            if self._are_one(a, b):
                self._join(self._root(a), self._root(b), str(self._graph.nodes[node]))
        for axis, relative, blocks, node in self._said.runs:
            place = self._open.get(self._root(axis))
            if place is not None:
                extent = self._said.axes.extents[relative] * blocks
                self._extents.setdefault(place, (extent, str(self._graph.nodes[node])))
        return Wishes(self._extents, self._equal)

    def _are_one(self, a: int, b: int) -> bool:
        """Whether axes that are equal, or broadcast, are one: an extent of 1 mostly is there to be broadcast."""
        extents = self._said.axes.extents
        if extents[a] != 1 and extents[b] != 1:
            return True
        if a in self._weights or b in self._weights:
            return False
        if extents[a] == extents[b]:
            return True
        # Dimensions of inputs are meant to agree, such as the batch of a state and that of what comes in.
        ra, rb = self._root(a), self._root(b)
        return (ra in self._open or rb in self._open) and all(r in self._open or r in self._inputs for r in (ra, rb))

    def _join(self, ra: int, rb: int, why: str) -> None:
        if ra == rb:
            return
        first, second = self._open.get(ra), self._open.get(rb)
        extent = next((held[r] for held in (self._inputs, self._weights) for r in (ra, rb) if r in held), None)
        if first is not None and second is not None:
            self._equal.append((first, second, why))
        place = first or second
        if place is not None and extent is not None:
            self._extents.setdefault(place, (extent, why))
        self._parent[rb] = ra
        if rb in self._open:
            self._open.setdefault(ra, self._open[rb])
        for held in (self._inputs, self._weights):
            if rb in held:
                held.setdefault(ra, held[rb])

    def _root(self, axis: int) -> int:
        while self._parent[axis] != axis:
            self._parent[axis] = self._parent[self._parent[axis]]
            axis = self._parent[axis]
        return axis
