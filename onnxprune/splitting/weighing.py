"""Cuts weighed: what each costs on both sides and between, and which no other beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxprune.analysis.analyzing import Analysis
from onnxprune.errors import UsageError
from onnxprune.exploration.pareto import non_dominated
from onnxprune.latency.times import Times
from onnxprune.splitting.costs import CODINGS, FloatArray, Ledger, PartCost
from onnxprune.splitting.cuts import Cut, bits, cut_at, find_cuts
from onnxprune.splitting.links import Energy, Link


@dataclass(frozen=True)
class Setting:
    """What cuts are weighed by: the coding of the wire, the link, times of both machines, energy; what is known."""

    coding: str = "plain"
    link: Link | None = None
    edge: Times | None = None
    cloud: Times | None = None
    energy: Energy | None = None

    def __post_init__(self) -> None:
        if self.coding not in CODINGS:
            raise UsageError(f"the coding '{self.coding}' is not known; choose one of {', '.join(CODINGS)}")
        if self.link is not None and (self.edge is None or self.cloud is None):
            raise UsageError(
                "a latency needs times of both machines: --edge and --cloud (onnxprune profile records them)"
            )

    @property
    def objectives(self) -> tuple[str, ...]:
        """What is known of every cut, and less is better."""
        timed, weighed = self.link is not None, self.energy is not None
        return ("wire", "macs", "memory", *["latency"] * timed, *["energy"] * weighed)


@dataclass(frozen=True)
class CutCost:
    """A cut and what it costs.

    Attributes:
        tensors: what crosses; none where all is on one side.
        place: ``cut``, or ``edge`` or ``cloud`` where all is on one side.
        head, tail: what the sides cost.
        wire: bytes that cross, by coding; NaN where a size is not known, and so for all that follows from it.
        answer: bytes of graph outputs that the tail makes, which go back.
        head_seconds, tail_seconds: times of both sides, where they are known.
        head_bound, tail_bound: what the machines' peaks allow at best (roofline): the longer of work and traffic.
        latency: seconds from the input to the answer, where link and times are known.
        energy: joules of the head and of sending, where known.
        best: whether no other cut is as good in all and better in something.
    """

    tensors: tuple[str, ...]
    place: str
    head: PartCost
    tail: PartCost
    wire: Mapping[str, float]
    answer: float
    head_seconds: float | None = None
    tail_seconds: float | None = None
    head_bound: float | None = None
    tail_bound: float | None = None
    latency: float | None = None
    energy: float | None = None
    best: bool = False
    cut: Cut | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        times = ("head_seconds", "tail_seconds", "head_bound", "tail_bound")
        plain = ("tensors", "place", "answer", *times, "latency", "energy", "best")
        found = {name: getattr(self, name) for name in plain}
        return {**found, "wire": dict(self.wire), "head": self.head.to_dict(), "tail": self.tail.to_dict()}


@dataclass(frozen=True)
class Weighing:
    """All cuts of a model, weighed; all on one side comes last. ``note`` says why some or all cuts are missing."""

    cuts: tuple[CutCost, ...]
    setting: Setting
    note: str = ""

    @property
    def objectives(self) -> tuple[str, ...]:
        """What is known of every cut, and less is better."""
        return self.setting.objectives

    def value(self, cut: CutCost, objective: str) -> float:
        """A cut's figure for an objective; work and memory are those of the head."""
        if objective == "wire":
            return cut.wire[self.setting.coding]
        return float(getattr(cut.head if objective in ("macs", "memory") else cut, objective))

    def best(self, objective: str) -> CutCost | None:
        """The best real cut for an objective, and of equal ones that with the narrower wire; None where of none it is
        known."""
        real = [cut for cut in self.cuts if cut.cut is not None and math.isfinite(self.value(cut, objective))]

        def narrow(cut: CutCost) -> float:
            return float(np.nan_to_num(self.value(cut, "wire"), nan=math.inf))

        return min(real, key=lambda c: (self.value(c, objective), narrow(c), c.head.macs), default=None)

    def at(self, tensors: Sequence[str]) -> CutCost:
        """The cut of these tensors. Raises UsageError where it is not among those that were weighed."""
        for cut in self.cuts:
            if cut.cut is not None and set(cut.tensors) == set(tensors):
                return cut
        raise UsageError(f"{', '.join(tensors)} is not among the cuts; 'onnxprune split MODEL --every' lists them")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        best = {name: found.tensors for name in self.objectives if (found := self.best(name)) is not None}
        return {
            "coding": self.setting.coding,
            "note": self.note,
            "best": best,
            "cuts": [c.to_dict() for c in self.cuts],
        }


def weigh(
    model: Analysis | Ledger,
    setting: Setting | None = None,
    *,
    most: int = 3,
    packed: Mapping[str, float] | None = None,
    at: Sequence[str] | None = None,
) -> Weighing:
    """Find the cuts of a model and what they cost.

    Args:
        model: the analysis, or its ledger.
        setting: link, times and energy, as far as they are known.
        most: tensors that may cross.
        packed: bytes per sample of tensors as int8 that zlib has packed, where samples told them.
        at: the tensors of a cut that is to be among them, however many they are.

    Raises:
        UsageError: times of another model, a coding that is not known, or ``at`` is no cut.
    """
    ledger = model if isinstance(model, Ledger) else Ledger(model)
    setting = setting or Setting()
    if setting.coding == "packed" and packed is None:
        raise UsageError("what packing saves is seen on samples only; give --calibrate")
    found = find_cuts(ledger.flow, most)
    known = [None if t is None else ledger.seconds(t.of(ledger.analysis)) for t in (setting.edge, setting.cloud)]
    scale = _Scale(ledger, setting, (known[0], known[1]), packed or {})
    flow, cuts = ledger.flow, list(found.found)
    if at is not None and not any(set(cut.tensors) == set(at) for cut in cuts):
        cuts.append(cut_at(flow, at))
    rows = [scale.weighed(cut, "cut") for cut in cuts]
    rows += [scale.weighed(Cut((), flow.all), "edge"), scale.weighed(Cut(flow.border(0), 0), "cloud")]
    split = Weighing(tuple(rows), setting, found.note)
    figures = np.array([[split.value(row, name) for name in split.objectives] for row in rows])
    # What is not known beats nothing.
    front = non_dominated(np.nan_to_num(figures, nan=math.inf, posinf=math.inf))
    return replace(split, cuts=tuple(replace(row, best=bool(best)) for row, best in zip(rows, front, strict=True)))


class _Scale:
    """Weighs cuts of one model under one setting."""

    def __init__(
        self,
        ledger: Ledger,
        setting: Setting,
        seconds: tuple[FloatArray | None, FloatArray | None],
        packed: Mapping[str, float],
    ) -> None:
        self._ledger, self._setting, self._seconds, self._packed = ledger, setting, seconds, packed

    def weighed(self, cut: Cut, place: str) -> CutCost:
        """The row of a cut."""
        ledger, setting, flow = self._ledger, self._setting, self._ledger.flow
        tail = flow.all & ~cut.head
        wire = {coding: sum(self._size(name, coding) for name in cut.tensors) for coding in CODINGS}
        if not self._packed:
            del wire["packed"]
        made = {name for index in bits(tail) for name in ledger.graph.nodes[index].outputs}
        answer = sum(float(ledger.sizes[flow.order[name]]) for name in made.intersection(ledger.graph.outputs))
        times = [
            None if seconds is None else float(seconds[ledger.mask(nodes)].sum())
            for seconds, nodes in zip(self._seconds, (cut.head, tail), strict=True)
        ]
        head, rest = ledger.part(cut.head), ledger.part(tail)
        bounds = [
            None if machine is None else part.roofline(machine.capacity)
            for machine, part in ((setting.edge, head), (setting.cloud, rest))
        ]
        latency = None
        if setting.link is not None and times[0] is not None and times[1] is not None:
            latency = times[0]
            if tail:
                latency += setting.link.seconds(wire[setting.coding]) + times[1] + setting.link.seconds(answer)
        energy = None if setting.energy is None else setting.energy.joules(wire[setting.coding], head.macs)
        return CutCost(
            cut.tensors, place, head, rest, wire, answer, times[0], times[1], bounds[0], bounds[1], latency, energy,
            cut=cut if place == "cut" else None,
        )  # fmt: skip

    def _size(self, tensor: str, coding: str) -> float:
        size = self._ledger.bytes_of(tensor, coding)
        return self._packed.get(tensor, size) if coding == "packed" else size
