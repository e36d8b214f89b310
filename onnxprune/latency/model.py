"""Latency as a function of kept counts: one more metric for planning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis.analyzing import Analysis
from onnxprune.analysis.cost import Terms, extent_terms
from onnxprune.errors import UsageError
from onnxprune.latency.layers import MOST_ROLES, LayerCase, layer_cases
from onnxprune.latency.statistics import Spread
from onnxprune.ops.relations import IntArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Seconds of a layer over the widths of its measured roles; shape (len(w) for w in widths)."""

    widths: tuple[tuple[int, ...], ...]
    seconds: FloatArray = field(compare=False)


@dataclass(frozen=True)
class LatencyProfile:
    """What latency mode plans by: :class:`~onnxprune.analysis.analyzing.MetricSource`. Pure data once measured.

    Attributes:
        identity: the machine and the settings of the runtime.
        multiple: widths are measured at multiples of this; plans keep channels at such.
        baseline: seconds per run of the unpruned model.
        layers: seconds that its layers take within it, together.
        others: seconds of all other operators, by type as the runtime has them.
        between: seconds between operators.
        tables: times of the layers by kind.
        gain: by how much more than predicted pruning saves: 1 until a pruned model was measured.
        disturbance: how many times as long the model takes under the profiler, operator by operator, as undisturbed;
            far from 1 where much else runs, for a long operator is always interrupted. Predictions are rough then.
        choices: what a kept channel takes by multiple, relative to counts that are not rounded, if this was tried.
        nodes: seconds by the first output of each node of the graph; a fused one counts with one of its nodes.
    """

    identity: Mapping[str, str]
    multiple: int
    baseline: Spread
    layers: float
    others: Mapping[str, float]
    between: float
    tables: Mapping[str, Table]
    gain: float = 1.0
    disturbance: float = 1.0
    choices: Mapping[int, float] = field(default_factory=dict)
    nodes: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What it says about machine and model as plain data, without the tables and single nodes."""
        data = asdict(self)
        del data["tables"], data["nodes"]
        return {**data, "baseline": self.baseline.to_dict(), "choices": {str(m): t for m, t in self.choices.items()}}

    def tables_to_dict(self) -> dict[str, Any]:
        """The tables as plain data."""
        return {
            kind: {"widths": table.widths, "seconds": table.seconds.tolist()} for kind, table in self.tables.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatencyProfile:
        """The profile of plain data, tables included. Raises ValueError, KeyError or TypeError where it is none."""
        tables = {}
        for kind, table in data["tables"].items():
            widths = tuple(tuple(int(w) for w in role) for role in table["widths"])
            seconds = np.array(table["seconds"], dtype=np.float64)
            if seconds.shape != tuple(map(len, widths)) or not (np.isfinite(seconds) & (seconds >= 0)).all():
                raise ValueError(f"the table {kind} does not hold a time for each of its widths")
            tables[kind] = Table(widths, seconds)
        baseline = {f.name: float(data["baseline"][f.name]) for f in fields(Spread)}
        numbers = {name: float(data[name]) for name in ("layers", "between", "gain", "disturbance")}
        return cls(
            identity={str(k): str(v) for k, v in data["identity"].items()},
            multiple=int(data["multiple"]),
            baseline=Spread(**{**baseline, "count": int(baseline["count"])}),  # type: ignore[arg-type]
            others={str(k): float(v) for k, v in data["others"].items()},
            tables=tables,
            choices={int(m): float(t) for m, t in data["choices"].items()},
            nodes={str(k): float(v) for k, v in data["nodes"].items()},
            **numbers,
        )

    def of(self, analysis: Analysis) -> LatencyModel:
        """What it says about a model, as a function of kept counts.

        Raises:
            UsageError: it was measured for another model.
        """
        return self.on(analysis, analysis)

    def on(self, analysis: Analysis, original: Analysis) -> LatencyModel:
        """What it says about a model that came of the one that was measured: regions of it may have given way.

        Layers as they were take what was measured of them; new ones what a multiply-accumulate takes in those; other
        operators of a type what it took for so many elements, and a type that is new as much as all others together;
        what passes between operators is shared out to them evenly.

        Raises:
            UsageError: it was measured for another model than the original.
        """
        cases = layer_cases(original)
        tables = [self.tables.get(case.kind) if case is not None else None for case in cases]
        if cases and self.tables and not any(table is not None for table in tables):
            raise UsageError("this latency profile was measured for another model; measure this one")
        work = original.costs.per_layer("flops", original.costs.full)
        per_mac = _seconds_per_mac(work, tables)
        raw = _Layers(original, cases, tables, per_mac)
        alone = LatencyModel(*raw.arrays, raw.linear, _others(original, original, self), self.between, 0.0, 1.0)
        by_layers = float(alone.per_layer(original.costs.full).sum())
        # Within the model layers take a little more or less than by themselves; and the whole takes what was measured.
        inside = self.layers / by_layers if by_layers else 0.0
        predicted = self.layers + sum(self.others.values()) + self.between
        scale = self.baseline.median / predicted
        nodes = 1.0
        if analysis is not original:
            cases = layer_cases(analysis)
            tables = [self.tables.get(case.kind) if case is not None else None for case in cases]
            raw = _Layers(analysis, cases, tables, per_mac)
            others = _others(analysis, original, self)
            alone = LatencyModel(*raw.arrays, raw.linear, others, self.between, 0.0, 1.0)
            nodes = len(analysis.graph.nodes) / max(len(original.graph.nodes), 1)
        return replace(
            alone,
            seconds=alone.seconds * inside * scale,
            others=replace(alone.others, coefficient=alone.others.coefficient * scale),
            fixed=self.between * scale * nodes,
            unpruned=self.baseline.median,
            gain=self.gain,
        )


@dataclass(frozen=True)
class LatencyModel:
    """Predicted seconds at kept counts: :class:`~onnxprune.analysis.cost.MetricFunction`.

    Times of layers are interpolated in their widths, bilinearly between measured ones; the largest and the smallest
    measured one hold beyond them. Everything is scaled so that the unpruned model takes what was measured, and what
    is saved by ``gain``.

    Attributes:
        classes: (layers, 2), the classes of each layer's measured roles; the last class (always 1) stands for none.
        start: (layers, 2), where a role's part of ``position`` begins.
        position: for every count of a role, where it lies between the measured widths.
        seconds: (layers, knots, knots).
        linear: what layers are proportional to besides: further roles, and multiply-accumulates where nothing was
            measured. One row per layer; its value is a factor.
        others: seconds of everything else, without an owner.
        fixed: seconds that nothing changes.
        unpruned: predicted seconds of the unpruned model.
        gain: see :class:`LatencyProfile`.
    """

    classes: IntArray
    start: IntArray
    position: FloatArray
    seconds: FloatArray
    linear: Terms
    others: Terms
    fixed: float
    unpruned: float
    gain: float

    def per_layer(self, kept: IntArray) -> FloatArray:
        """Seconds of every layer."""
        if not len(self.classes):
            return np.zeros(0)
        counts = kept[self.classes]
        whole = np.floor(counts).astype(np.int64)
        at = self.start + whole
        here, ahead = self.position[at], self.position[at + 1]
        place = here + (counts - whole) * (ahead - here)
        low = np.minimum(place.astype(np.int64), np.array(self.seconds.shape[1:]) - 2)
        part = place - low
        rows, i, j = np.arange(len(low)), low[:, 0], low[:, 1]
        s, t = part[:, 0], part[:, 1]
        times: FloatArray = self.linear.values(kept) * (
            (1 - s) * (1 - t) * self.seconds[rows, i, j]
            + s * (1 - t) * self.seconds[rows, i + 1, j]
            + (1 - s) * t * self.seconds[rows, i, j + 1]
            + s * t * self.seconds[rows, i + 1, j + 1]
        )
        return times

    def total(self, kept: IntArray) -> float:
        """Seconds of the whole model."""
        raw = self.fixed + float(self.others.values(kept).sum()) + float(self.per_layer(kept).sum())
        return self.unpruned - self.gain * (self.unpruned - raw)


class _Layers:
    """The tables of all layers as arrays."""

    def __init__(
        self, analysis: Analysis, cases: tuple[LayerCase | None, ...], tables: list[Table | None], per_mac: float
    ) -> None:
        none = len(analysis.costs.full) - 1
        work = analysis.costs.per_layer("flops", analysis.costs.full)
        size = max([2, *(len(w) for table in tables if table is not None for w in table.widths)])
        self._classes = np.full((len(tables), MOST_ROLES), none, dtype=np.int64)
        self._start = np.zeros((len(tables), MOST_ROLES), dtype=np.int64)
        self._seconds = np.zeros((len(tables), size, size))
        # A role that is not there always has one channel, at the first measured width.
        position: list[FloatArray] = [np.zeros(3)]
        used = 3
        rows: list[tuple[float, list[int], int]] = []
        for at, (case, table) in enumerate(zip(cases, tables, strict=True)):
            if case is None or table is None:
                rows.append((1.0, [], at))
                self._seconds[at] = per_mac * float(work[at])
                continue
            for role, widths in enumerate(table.widths):
                full = case.full[role]
                self._classes[at, role], self._start[at, role] = case.classes[role], used
                position.append(np.interp(np.arange(full + 2), widths, np.arange(len(widths))))
                used += full + 2
            padding = [(0, size - n) for n in (*table.seconds.shape, *(1,) * (MOST_ROLES - table.seconds.ndim))]
            shaped = table.seconds.reshape([*table.seconds.shape, *(1,) * (MOST_ROLES - table.seconds.ndim)])
            self._seconds[at] = np.pad(shaped, padding, mode="edge")
            rows.append((1.0, [], at))
        self.arrays = (self._classes, self._start, np.concatenate(position), self._seconds)
        self.linear = _linear(analysis, cases, tables)


def _linear(analysis: Analysis, cases: tuple[LayerCase | None, ...], tables: list[Table | None]) -> Terms:
    """Per layer a factor that is 1 for the unpruned model.

    Roles beyond the measured ones count in proportion; a layer without measurements by its multiply-accumulates.
    """
    none = len(analysis.costs.full) - 1
    flops = analysis.costs.flops
    width = flops.classes.shape[1]
    coefficient = np.ones(len(tables))
    classes = np.full((len(tables), width), none, dtype=np.int64)
    for at, (case, table) in enumerate(zip(cases, tables, strict=True)):
        if case is not None and table is not None:
            further = case.classes[MOST_ROLES : MOST_ROLES + width]
        else:
            mine = np.flatnonzero(flops.owner == at)
            further = tuple(int(c) for c in flops.classes[mine[0]] if c != none) if len(mine) else ()
        classes[at, : len(further)] = further
        coefficient[at] = 1.0 / float(analysis.costs.full[classes[at]].prod())
    return Terms(coefficient, classes, np.arange(len(tables), dtype=np.int64))


def _seconds_per_mac(work: FloatArray, tables: list[Table | None]) -> float:
    """What a multiply-accumulate takes in layers that were measured."""
    known = [(float(work[at]), float(table.seconds.flat[-1])) for at, table in enumerate(tables) if table is not None]
    macs = sum(w for w, _ in known)
    return sum(t for _, t in known) / macs if macs else 1e-10


def _others(analysis: Analysis, original: Analysis, profile: LatencyProfile) -> Terms:
    """Seconds of what is no layer, in proportion to the sizes of what it computes.

    A type that the graph does not show (onnxruntime fuses, and converts layouts) follows all activations together; so
    does one that the original did not have, at the rate of all that it had.
    """
    here, there = _computed(analysis), _computed(original)
    rows: list[tuple[float, list[int], int]] = []
    owner = len(analysis.costs.layers)

    def spread(seconds: float, was: list[list[int]], now: list[list[int]]) -> None:
        size = sum(_size(original, axes) for axes in was)
        if size:
            rows.extend((seconds / size, axes, owner) for axes in now)
        else:
            rows.append((seconds, [], owner))

    for op_type, seconds in profile.others.items():
        name = op_type.removeprefix("Fused")
        if there.get(name):
            spread(seconds, there[name], here.get(name, []))
        else:
            spread(seconds, _all_of(there), _all_of(here))
    new = [axes for name, tensors in here.items() if name not in there for axes in tensors]
    if new and there:
        spread(sum(profile.others.values()), _all_of(there), new)
    return extent_terms(analysis.coupling, rows)


def _computed(analysis: Analysis) -> dict[str, list[list[int]]]:
    """The axes of what nodes that are no layers compute, by operator type."""
    graph, coupling = analysis.graph, analysis.coupling
    layers = {layer.node for layer in analysis.costs.layers}
    found: dict[str, list[list[int]]] = {}
    for node in graph.nodes:
        for name in node.outputs:
            if node.index not in layers and name in coupling.axes and name not in graph.constants:
                axes = coupling.axes.axes_of(name, len(graph.shapes.extents[name]))
                found.setdefault(node.op_type, []).append(list(axes))
    return found


def _all_of(computed: Mapping[str, list[list[int]]]) -> list[list[int]]:
    return [axes for lists in computed.values() for axes in lists]


def _size(analysis: Analysis, axes: list[int]) -> float:
    extents = analysis.coupling.axes.extents
    return float(np.prod([float(extents[axis]) for axis in axes])) if axes else 1.0
