"""The whole analysis of a model: shapes, couplings and costs, and a readable view of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from onnxprune._display import MOST_ROWS, TOTALS, Table, long, percent
from onnxprune.analysis.atoms import Group, Grouping
from onnxprune.analysis.binding import find_binding
from onnxprune.analysis.connectivity import Connectivity, connectivity
from onnxprune.analysis.cost import METRICS, CostModel, Layer, Metric, MetricFunction, cost_model
from onnxprune.analysis.coupling import Coupling, solve
from onnxprune.analysis.propagation import Split
from onnxprune.errors import UsageError
from onnxprune.ir.collection import uncollected
from onnxprune.ir.control_flow import open_bodies
from onnxprune.ir.graph import Graph
from onnxprune.ir.model import Model, ModelLike, as_model
from onnxprune.ir.shapes import Shapes, infer_shapes
from onnxprune.ir.state import State, StatePair, proposed_pairs, state_pairs
from onnxprune.ir.validation import blaming, validate
from onnxprune.ops import Registry, default_registry
from onnxprune.ops.relations import Pin
from onnxprune.passes.normalize import normalize

if TYPE_CHECKING:
    import pandas as pd

InputShapes: TypeAlias = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class LayerReport:
    """A layer and what it costs: parameters (elements), FLOPs (multiply-accumulates), memory (bytes).

    ``shares`` are its shares of the totals; ``groups`` the indices of the groups that its filters belong to;
    ``prunable`` how many of its ``channels`` may go; ``pinned`` why the others may not.
    """

    name: str
    op_type: str
    channels: int
    prunable: int
    params: int
    flops: int
    memory: int
    shares: Mapping[str, float]
    groups: tuple[int, ...]
    pinned: tuple[str, ...]


@dataclass(frozen=True)
class GroupReport:
    """A group: how many atoms it has, the layers that produce them, and why it is approximate, if it is.

    ``mendable`` tells that the option ``exact_norm`` makes it exact.
    """

    index: int
    atoms: int
    layers: tuple[str, ...]
    approximate: str | None
    mendable: bool = False


@dataclass(frozen=True)
class PinReport:
    """Why positions must stay: the reason, and the node and axis that it comes from."""

    axis: str
    node: str
    reason: str


class MetricSource(Protocol):
    """A cost that is measured and not counted, such as latency: what it says about a model."""

    @property
    def multiple(self) -> int:
        """What kept counts had best be multiples of."""

    def of(self, analysis: Analysis) -> MetricFunction:
        """The cost of an analysed model as a function of kept counts. Raises UsageError if it is another's."""


@dataclass(frozen=True)
class Analysis:
    """What is known about a model.

    ``model`` is the normalised model that all names refer to; ``graph`` lists its nodes with those of bodies (If,
    Loop, Scan). Costs count the nodes of a body once: all branches of an If, one iteration of a Loop or Scan.
    """

    model: Model
    graph: Graph = field(repr=False)
    coupling: Coupling = field(repr=False)
    costs: CostModel = field(repr=False)
    registry: Registry = field(repr=False)
    split: Split = Split.FINEST
    state: tuple[StatePair, ...] = ()

    @property
    def shapes(self) -> Shapes:
        """Extents of all tensors."""
        return self.graph.shapes

    def under(self, grouping: Grouping) -> Analysis:
        """The same analysis with another treatment of grouped convolutions."""
        coupling = self.coupling.under(grouping)
        if coupling is self.coupling:
            return self
        return replace(self, coupling=coupling, costs=cost_model(coupling, self.registry))

    def measured(self, sources: Mapping[Metric, MetricSource]) -> Analysis:
        """The analysis with more metrics among its costs.

        Raises:
            UsageError: one was measured for another model.
        """
        costs = self.costs
        for metric, source in sources.items():
            costs = costs.with_measured(metric, source.of(self))
        return replace(self, costs=costs) if sources else self

    @cached_property
    def untied(self) -> Coupling:
        """The coupling without any treatment of grouped convolutions: what every valid plan has to respect."""
        return self.coupling.under(Grouping.FREE)

    @cached_property
    def totals(self) -> dict[str, float]:
        """Parameters, FLOPs (multiply-accumulates), memory and peak of live activations (bytes)."""
        full = self.costs.full
        totals: dict[str, float] = {metric: self.costs.total(metric, full) for metric in METRICS}
        return {**totals, "peak_activations": self.costs.peak_activations(full)}

    @cached_property
    def connectivity(self) -> Connectivity:
        """How deep the model is, how wide where it is narrowest, and how many ways lead through its channels."""
        return connectivity(self.coupling, self.costs, self.registry)

    @cached_property
    def layers(self) -> tuple[LayerReport, ...]:
        """Every Conv, ConvTranspose, Gemm and MatMul."""
        per_metric = {metric: self.costs.per_layer(metric, self.costs.full) for metric in METRICS}
        return tuple(
            self._layer(layer, {metric: float(values[layer.index]) for metric, values in per_metric.items()})
            for layer in self.costs.layers
        )

    @cached_property
    def groups(self) -> tuple[GroupReport, ...]:
        """The groups of atoms."""
        names: dict[int, list[str]] = {group.index: [] for group in self.coupling.groups}
        for layer in self.costs.layers:
            for group in self.coupling.groups_on(layer.output_axis):
                names[group.index].append(self.layer_name(layer))
        return tuple(
            GroupReport(group.index, len(group.atoms), tuple(names[group.index]), group.approximate, group.mendable)
            for group in self.coupling.groups
        )

    @cached_property
    def pins(self) -> tuple[PinReport, ...]:
        """The pins that hold at least one channel, without repetitions."""
        return tuple(dict.fromkeys(self.pin_report(pin) for pin in self.coupling.pins))

    @cached_property
    def proposed_state(self) -> tuple[StatePair, ...]:
        """Inputs and outputs that look as if they carried a state whose width could shrink, if it was asked for."""
        if self.state:
            return ()
        extents, axes = self.shapes.extents, self.coupling.axes
        return tuple(
            pair
            for pair in proposed_pairs(self.model)
            if any(
                axis in self.coupling.class_of and self.shapes.is_static(name, dim)
                for name in pair
                for dim, axis in enumerate(axes.axes_of(name, len(extents[name])) if name in axes else ())
            )
        )

    @cached_property
    def unknown(self) -> dict[str, str]:
        """Nodes that the analysis does not understand, and why; their axes are pinned."""
        return {str(self.graph.nodes[index]): reason for index, reason in self.coupling.unknown.items()}

    def layer_name(self, layer: Layer) -> str:
        """The name of a layer's node, or of its output where the node has none."""
        return self.graph.nodes[layer.node].name

    def groups_of(self, layer: Layer) -> list[Group]:
        """The groups whose removal takes filters from a layer."""
        return self.coupling.groups_on(layer.output_axis)

    def pin_report(self, pin: Pin) -> PinReport:
        """A pin in words."""
        node = str(self.graph.nodes[pin.node]) if pin.node >= 0 else "the graph's border"
        return PinReport(str(self.coupling.axes.axis(pin.axis)), node, pin.reason)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON."""
        return {
            "input_shapes": {name: list(shape) for name, shape in self.shapes.binding.items()},
            "assumed_inputs": list(self.shapes.assumed),
            "open_dimensions": self.shapes.bound.to_list(),
            "totals": self.totals,
            "connectivity": self.connectivity.to_dict(),
            "layers": [asdict(layer) for layer in self.layers],
            "groups": [asdict(group) for group in self.groups],
            "pins": [asdict(pin) for pin in self.pins],
            "unknown": self.unknown,
            "state": dict(self.state),
            "proposed_state": dict(self.proposed_state),
        }

    def to_pandas(self) -> pd.DataFrame:
        """A row per layer. Raises UsageError where pandas is not installed."""
        columns = ("name", "op_type", "channels", "prunable", *METRICS)
        rows = tuple(
            (
                *(getattr(layer, column) for column in columns),
                *(layer.shares[metric] for metric in METRICS),
                layer.groups,
                layer.pinned,
            )
            for layer in self.layers
        )
        return Table((*columns, *(f"{m}_share" for m in METRICS), "groups", "pinned"), rows).to_pandas()

    def __repr__(self) -> str:
        """One line; ``layers`` and ``groups`` tell the rest."""
        totals = ", ".join(f"{name} {value:,.0f}" for name, value in self.totals.items())
        return f"Analysis({len(self.layers)} layers, {len(self.groups)} groups, {totals})"

    def _repr_html_(self) -> str:
        """For notebooks: the layers, largest first if there are many, and the totals."""
        many = len(self.layers) > MOST_ROWS
        rows = tuple(
            (
                layer.name,
                layer.op_type,
                f"{layer.prunable} of {layer.channels}",
                long(layer.params),
                long(layer.flops),
                percent(layer.shares["flops"]),
                long(layer.memory, "B"),
                "; ".join(layer.pinned),
            )
            for layer in (sorted(self.layers, key=lambda layer: -layer.flops) if many else self.layers)[:MOST_ROWS]
        )
        known = [(self.totals[key], *words) for key, words in TOTALS.items() if key in self.totals]
        caption = ", ".join(f"{long(total, unit)} {title}" for total, title, unit in known)
        heads = ("layer", "op", "may go", "parameters", "MACs", "of all", "memory", "pinned because")
        count = len(self.layers)
        return Table(heads, rows, f"{count} layers: {caption}", (0, 1, 7), count).to_html()

    def _layer(self, layer: Layer, cost: Mapping[str, float]) -> LayerReport:
        groups = self.groups_of(layer)
        owner = self.coupling.class_of.get(layer.output_axis)
        prunable = 0
        if owner is not None and groups:
            labels = self.coupling.class_labels(owner)
            prunable = int(np.isin(labels, np.concatenate([group.atoms for group in groups])).sum())
        reasons = dict.fromkeys(pin.reason for pin in self.coupling.pins_on(layer.output_axis))
        return LayerReport(
            name=self.layer_name(layer),
            op_type=layer.op_type,
            channels=self.coupling.axes.extents[layer.output_axis],
            prunable=prunable,
            params=round(cost["params"]),
            flops=round(cost["flops"]),
            memory=round(cost["memory"]),
            shares={m: cost[m] / self.totals[m] if self.totals[m] else 0.0 for m in METRICS},
            groups=tuple(group.index for group in groups),
            pinned=tuple(reasons),
        )


@uncollected()
def analyze(
    model: ModelLike,
    input_shapes: InputShapes | None = None,
    *,
    split: str = Split.FINEST.value,
    state: State = None,
    trials: bool = True,
    registry: Registry | None = None,
) -> Analysis:
    """Find out what can be removed from a model, and what everything costs.

    Args:
        model: a Model, ModelProto or path; it is normalised first and not changed.
        input_shapes: complete shapes for graph inputs with symbolic dimensions; see ``find_binding`` for the others.
        split: which part of an axis that a Reshape splits carries a removal: ``finest`` (the width of attention
            heads, usually) or ``outer`` (whole heads, whole groups of channels).
        state: the graph outputs that are fed to graph inputs in the next run, by input (``{"h0": "hn"}``), or
            ``auto`` for what their names propose. Both then may shrink, together; without, they stay as they are.
        trials: run the model in onnxruntime to see whether it accepts the shapes that are assumed, and try others
            where it does not. Nothing is run where all shapes are fixed or given, or only batches are open.
        registry: the known operators, if not the default ones.

    Raises:
        ModelError: the model cannot be read, or onnx.checker finds fault with it.
        ShapeError: the shapes contradict the model.
        UsageError: ``split`` or ``state`` is not what it may be.
    """
    if split not in {s.value for s in Split}:
        raise UsageError(f"split '{split}' is not known; choose one of {', '.join(s.value for s in Split)}")
    source = as_model(model)
    source.derived(validate)
    with blaming(source):
        pairs = state_pairs(source, state)
        normal = normalize(source)
        shapes = tuple((name, tuple(shape)) for name, shape in (input_shapes or {}).items())
        key = _Analysis(shapes, Split(split), pairs, trials, registry or default_registry())
        found = normal.derived(key)
        repeated = tuple(found.shapes.bound.to_repeat.items())
        # A plan records shapes that were searched; with them given, this is the analysis.
        return found if repeated == shapes else normal.derived(replace(key, input_shapes=repeated, known=found))


@dataclass(frozen=True)
class _Analysis:
    """The analysis with these options: a key that the model can remember the result by."""

    input_shapes: tuple[tuple[str, tuple[int, ...]], ...]
    split: Split
    state: tuple[StatePair, ...]
    trials: bool
    registry: Registry
    known: Analysis | None = field(default=None, compare=False)

    def __call__(self, model: Model) -> Analysis:
        if self.known is not None:
            return self.known
        return _analyze(model, dict(self.input_shapes), self.split, self.state, self.trials, self.registry)


def _analyze(
    model: Model,
    input_shapes: InputShapes | None,
    split: Split,
    state: tuple[StatePair, ...],
    trials: bool,
    registry: Registry,
) -> Analysis:
    opened = open_bodies(model)
    graph = Graph(opened, infer_shapes(opened, find_binding(model, input_shapes, registry, trials=trials)))
    coupling = solve(graph, registry, split=split, state=state)
    return Analysis(model, graph, coupling, cost_model(coupling, registry), registry, split, state)


def again(analysis: Analysis, model: Model) -> Analysis:
    """Another form of an analysed model, analysed in the same way: shapes, split, state and operators."""
    shapes, state = analysis.shapes.bound.to_repeat or None, dict(analysis.state) or None
    return analyze(model, shapes, split=analysis.split.value, state=state, registry=analysis.registry)
