"""Why a layer can or cannot shrink: what its filters are coupled with, through which nodes, and what pins them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import networkx as nx
import numpy as np

from onnxprune._display import some
from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.cost import Layer
from onnxprune.analysis.coupling import Coupling
from onnxprune.errors import UsageError
from onnxprune.ops.relations import BORDER, Axis, IntArray, Mapped, Same


@dataclass(frozen=True)
class Step:
    """One step of a path: ``node`` relates the axis before with ``axis``; ``kind`` is same or mapped."""

    node: str
    op_type: str
    kind: str
    axis: Axis


@dataclass(frozen=True)
class CoupledAxis:
    """An axis that shrinks with the layer, and the shortest path to it from the layer's output axis."""

    axis: Axis
    path: tuple[Step, ...]


@dataclass(frozen=True)
class CoupledLayer:
    """A layer that shrinks with the explained one: it ``loses`` filters, or inputs."""

    name: str
    op_type: str
    loses: str
    path: tuple[Step, ...]


@dataclass(frozen=True)
class Pinning:
    """Why channels must stay: the node that pins them (with its reason), where, and the path to that axis."""

    node: str
    reason: str
    axis: Axis
    path: tuple[Step, ...]


@dataclass(frozen=True)
class Bundle:
    """Channels of the layer that share one fate: coupled with the same axes, in one group or pinned alike.

    ``group`` is the group's index, or None where the channels are pinned; ``mendable`` tells that the option
    ``exact_norm`` makes an approximate group exact; ``together`` how many channels of the group go at a time, one from
    each run (grouped convolutions; else 1). ``axes`` starts with the layer's own.
    """

    channels: tuple[int, ...]
    group: int | None
    approximate: str | None
    together: int
    layers: tuple[CoupledLayer, ...]
    axes: tuple[CoupledAxis, ...]
    pins: tuple[Pinning, ...]
    mendable: bool = False


_TOLD = 5
"""Bundles of channels that a REPL shows."""


@dataclass(frozen=True)
class Explanation:
    """Everything about one layer's filters. ``note`` says why there is nothing to tell, where that is so."""

    layer: str
    op_type: str
    axis: Axis
    channels: int
    prunable: int
    bundles: tuple[Bundle, ...]
    note: str | None = None

    def __repr__(self) -> str:
        """What may go, and with which layers, in a few lines."""
        lines = [f"{self.layer} ({self.op_type}): {self.prunable} of {self.channels} output channels may go"]
        lines += [f"they must stay because {self.note}"] if self.note is not None else []
        for bundle in self.bundles[:_TOLD]:
            others = some([layer.name for layer in bundle.layers])
            told = f"{len(bundle.channels)} channels" + (f", coupled with {others}" if others else "")
            lines.append(told + (f"; they stay: {bundle.pins[0].reason}" if bundle.pins else ""))
        left = len(self.bundles) - _TOLD
        return "\n  ".join([*lines, *([f"and {left} more bundles of channels"] if left > 0 else [])])

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON; axes are [tensor, dimension] pairs."""
        return asdict(self)


def explain(analysis: Analysis, layer: str) -> Explanation:
    """What the filters of a layer are coupled with, and why they may or may not go.

    Args:
        analysis: of the model.
        layer: the name of a layer, as ``analysis.layers`` has it.

    Raises:
        UsageError: there is no such layer; the message names similar ones.
    """
    found = find_layer(analysis, layer)
    coupling = analysis.coupling
    start = found.output_axis
    name, axis = analysis.layer_name(found), coupling.axes.axis(start)
    channels = coupling.axes.extents[start]
    owner = coupling.class_of.get(start)
    if owner is None:
        return Explanation(name, found.op_type, axis, channels, 0, (), why_no_candidate(analysis, found, channels))
    labels = coupling.class_labels(owner)
    bundles = tuple(_bundle(analysis, found, labels, members) for members in _bundled(coupling, labels))
    prunable = sum(len(bundle.channels) for bundle in bundles if bundle.group is not None)
    return Explanation(name, found.op_type, axis, channels, prunable, bundles)


def find_layer(analysis: Analysis, name: str) -> Layer:
    """The layer of that name. Raises UsageError if there is none."""
    by_name = {analysis.layer_name(layer): layer for layer in analysis.costs.layers}
    if name in by_name:
        return by_name[name]
    raise no_layer(name, by_name)


def no_layer(name: str, names: Iterable[str]) -> UsageError:
    """The error for a layer that is not there, with those that may have been meant."""
    known = list(names)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    close = close or [other for other in known if name.lower() in other.lower()][:3]
    hint = f"did you mean {' or '.join(close)}?" if close else "'onnxprune analyze' lists the layers"
    return UsageError(f"no layer is called '{name}'; {hint}")


def coupling_graph(analysis: Analysis, layer: str | None = None) -> nx.Graph:
    """The coupling graph in plain strings and numbers, fit for any graph format.

    A vertex per axis, called ``tensor[dimension]``, with its ``extent``, ``groups``, and ``pinned`` reasons; an
    edge per relation, with its ``kind`` and the ``nodes`` that state it.

    Args:
        analysis: of the model.
        layer: leave out what is not connected with this layer.

    Raises:
        UsageError: there is no such layer.
    """
    coupling, network = analysis.coupling, analysis.coupling.network
    if layer is not None:
        axis = coupling.axes.axis(find_layer(analysis, layer).output_axis)
        reachable = nx.node_connected_component(network, axis) if axis in network else ()
        network = network.subgraph(reachable)
    plain = nx.Graph()
    for axis in network:
        number = coupling.axes.id(*axis)
        groups = sorted({group.index for group in coupling.groups_on(number)})
        reasons = dict.fromkeys(pin.reason for pin in coupling.pins_on(number))
        plain.add_node(
            str(axis),
            extent=coupling.axes.extents[number],
            groups=" ".join(map(str, groups)),
            pinned="; ".join(reasons),
        )
    for a, b, data in network.edges(data=True):
        nodes = dict.fromkeys(
            str(analysis.graph.nodes[index]) if index != BORDER else "state" for index in data["nodes"]
        )
        plain.add_edge(str(a), str(b), kind=data["kind"], nodes=", ".join(nodes))
    return plain


def why_no_candidate(analysis: Analysis, layer: Layer, channels: int) -> str:
    """Why a layer's output axis is not even a candidate for removal."""
    if layer.node in analysis.coupling.unknown:
        return analysis.coupling.unknown[layer.node]
    if channels == 1:
        return "it has a single output channel, which must stay"
    if not layer.weights:
        return "it multiplies two activations, and no weight makes its output channels"
    return "no weight makes its output channels"


def _bundled(coupling: Coupling, labels: IntArray) -> list[IntArray]:
    """The components among ``labels``, in bundles that live on the same classes and have the same first pin."""
    unique = np.unique(labels)
    class_of_position = np.repeat(np.arange(len(coupling.offsets) - 1), np.diff(coupling.offsets))
    at = np.flatnonzero(np.isin(coupling.labels, unique))
    classes: dict[int, set[int]] = {int(label): set() for label in unique}
    for label, owner in zip(coupling.labels[at].tolist(), class_of_position[at].tolist(), strict=True):
        classes[label].add(owner)
    bundles: dict[tuple[frozenset[int], int], list[int]] = {}
    for label, owners in classes.items():
        bundles.setdefault((frozenset(owners), int(coupling.pin_of[label])), []).append(label)
    return [np.array(members, dtype=np.int64) for members in bundles.values()]


def _bundle(analysis: Analysis, layer: Layer, labels: IntArray, members: IntArray) -> Bundle:
    coupling = analysis.coupling
    channels = tuple(np.flatnonzero(np.isin(labels, members)).tolist())
    reached = _reached(analysis, layer.output_axis, int(members[0]))
    group = next(
        (g for g in coupling.groups_on(layer.output_axis) if np.isin(members[0], g.atoms)),
        None,
    )
    axes = tuple(CoupledAxis(coupling.axes.axis(axis), path) for axis, path in reached.items())
    return Bundle(
        channels=channels,
        group=None if group is None else group.index,
        approximate=None if group is None else group.approximate,
        mendable=group is not None and group.mendable,
        together=1 if group is None else group.width,
        layers=tuple(_coupled_layers(analysis, layer, reached)),
        axes=axes,
        pins=() if group is not None else tuple(_pinnings(analysis, members, reached)),
    )


def _coupled_layers(
    analysis: Analysis, layer: Layer, reached: Mapping[int, tuple[Step, ...]]
) -> Iterable[CoupledLayer]:
    """The other layers among the reached axes, nearest first; one that loses both is said to lose filters."""
    axes, shapes = analysis.coupling.axes, analysis.graph.shapes.extents
    found = []
    for other in analysis.costs.layers:
        if other.index == layer.index:
            continue
        name = analysis.layer_name(other)
        if other.output_axis in reached:
            found.append(CoupledLayer(name, other.op_type, "filters", reached[other.output_axis]))
            continue
        own = [axes.id(weight, dim) for weight in other.weights for dim in range(len(shapes[weight]))]
        paths = [reached[axis] for axis in own if axis in reached]
        if paths:
            found.append(CoupledLayer(name, other.op_type, "inputs", min(paths, key=len)))
    return sorted(found, key=lambda coupled: len(coupled.path))


def _pinnings(analysis: Analysis, members: IntArray, reached: Mapping[int, tuple[Step, ...]]) -> Iterable[Pinning]:
    """Every pin that holds one of the components, nearest first."""
    coupling = analysis.coupling
    found: dict[tuple[str, str, Axis], Pinning] = {}
    for pin in coupling.pins:
        if pin.axis not in reached:
            continue
        held = coupling.class_labels(coupling.class_of[pin.axis])
        if pin.positions is not None:
            held = held[pin.positions]
        if np.isin(held, members).any():
            report = analysis.pin_report(pin)
            axis = coupling.axes.axis(pin.axis)
            found.setdefault((report.node, pin.reason, axis), Pinning(report.node, pin.reason, axis, reached[pin.axis]))
    return sorted(found.values(), key=lambda pinning: len(pinning.path))


def _reached(analysis: Analysis, start: int, component: int) -> dict[int, tuple[Step, ...]]:
    """The axes that carry a component, nearest to ``start`` first, and the shortest path to each."""
    coupling, network = analysis.coupling, nx.Graph()
    network.add_node(start)
    for edge in coupling.edges:
        if not network.has_edge(edge.a, edge.b) and _carries(coupling, edge, component):
            network.add_edge(edge.a, edge.b, relation=edge)
    paths: dict[int, tuple[Step, ...]] = {start: ()}
    for axis, other in nx.bfs_edges(network, start):
        paths[other] = (*paths[axis], _step(analysis, network[axis][other]["relation"], other))
    return paths


def _carries(coupling: Coupling, edge: Same | Mapped, component: int) -> bool:
    """Whether the relation passes the component on: of a mapped one, some of its pairs must belong to it."""
    if isinstance(edge, Same):
        return True
    held = coupling.class_labels(coupling.class_of[edge.a])
    return bool((held[edge.at_a] == component).any())


def _step(analysis: Analysis, edge: Same | Mapped, axis: int) -> Step:
    reached = analysis.coupling.axes.axis(axis)
    if edge.node == BORDER:
        return Step("state", "State", "same", reached)
    node = analysis.graph.nodes[edge.node]
    return Step(node.name, node.op_type, "same" if isinstance(edge, Same) else "mapped", reached)
