"""The options of a plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UsageError, unknown
from onnxprune.pruning.options.definition import (
    BUDGET,
    CHOICE,
    LIMITS,
    Given,
    defined,
    fraction,
    most,
    names,
    options_of,
    plain,
)
from onnxprune.pruning.options.levers import CHANNELS, PLANNED, levers_option, pulled

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import InputShapes, MetricSource
    from onnxprune.analysis.cost import Metric
    from onnxprune.ir.state import State
    from onnxprune.pruning.allocation import LossCurves
    from onnxprune.pruning.criteria import Criterion

MODES: Mapping[str, Metric] = {
    "params": "params",
    "pa": "params",
    "flops": "flops",
    "fa": "flops",
    "memory": "memory",
    "ma": "memory",
    "latency": "latency",
    "la": "latency",
    "wire": "wire",
}
"""What a mode counts, by both of its names."""
LIMITED: tuple[Metric, ...] = ("params", "flops", "memory", "latency", "wire")
"""What a budget can limit, by an option ``max_<metric>``."""

AUTO, MEASURED = "auto", "measured"
"""Multiples of channels: those that suit the engine, and those that measuring finds best."""


def is_rounding(value: int | str) -> bool:
    """Whether it is a multiple of channels, or says how to find one: auto, auto:16 or measured."""
    if isinstance(value, int) or value in (AUTO, MEASURED):
        return True
    word, _, number = value.partition(":")
    return word == AUTO and number.isdecimal() and int(number) > 0


def _is_floor(value: float) -> bool:
    return 0 <= value < math.inf


_FLOOR = "be a fraction below 1 or a number of channels"


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Given):
    """What decides a plan. ``fields`` tell it all.

    Raises:
        UsageError: a value outside its range, or a name that is not known.
    """

    mode: str = defined(
        "flops",
        "What --reduce counts: params, flops, memory or latency. Layers are drawn by it, too; pa, fa (MACs), ma and la "
        "(measured here) are the same.",
        panel=BUDGET,
        recorded=True,
    )
    reduce: float | None = fraction("Fraction of it to remove.")
    max_params: float | None = most("Most parameters left, like 300k.")
    max_flops: float | None = most("Most MACs left, like 1.2G.")
    max_memory: float | None = most(
        "Most bytes left of weights and outputs. Those are the activations that layers write."
    )
    max_latency: float | None = most("Longest time of a run, measured here. It is met within 5 %.", "duration", "5ms")
    channels: float | None = fraction("Instead: a fraction of every group's channels. No budget is looked at then.")
    allocation: str = defined(
        "auto",
        "How many channels go from which layer. complexity, complexity-mean, uniform, global (channels of all layers "
        "compete) or measured (global or uniform, whichever loses less on samples apart).",
        panel=CHOICE,
        recorded=True,
        text="global with --calibrate, else complexity",
    )
    criterion: str | Criterion = defined(
        "auto",
        "Which channels of a layer go first. l2, l1, fpgm, lamp, bn_scale, random; with --calibrate also activation, "
        "relief, variance, reconstruction, refit, taylor.",
        panel=CHOICE,
        recorded=True,
        text="refit with --calibrate, else l2",
    )
    seed: int = defined(0, "Of all draws.", panel=CHOICE, least=0, recorded=True, rare=True)
    levers: str = levers_option((CHANNELS,), PLANNED, panel=CHOICE, rare=True)
    floor: float = defined(
        0.1,
        "What every layer keeps. A fraction below 1, or channels.",
        example="0.1|8",
        panel=LIMITS,
        least=0,
        valid=_is_floor,
        must=_FLOOR,
        recorded=True,
    )
    floors: Mapping[str, float] | None = defined(
        None,
        "The same for layers by name or glob. Repeatable.",
        kind="floors",
        example="NAME=VALUE",
        panel=LIMITS,
        hash=False,
        valid=lambda value: all(map(_is_floor, value.values())),
        must=f"each {_FLOOR}",
        rare=True,
    )
    round_to: int | str = defined(
        AUTO,
        "Keep channel counts multiples of this. auto: of what this processor computes together, or of less where the "
        "budget would be missed by 2 % (auto:16 prefers 16 anywhere); measured: of what gives the most channels for "
        "the time; 1: any count.",
        kind="rounding",
        example="auto|8|1",
        panel=LIMITS,
        text=AUTO,
        least=1,
        valid=is_rounding,
        must=f"be a whole number, '{AUTO}', '{AUTO}:N' or '{MEASURED}'",
        recorded=True,
    )
    include: str | Sequence[str] = defined(
        (),
        "Only these layers, by name or glob, lose filters. Repeatable.",
        kind="names",
        example="NAME",
        panel=LIMITS,
        rare=True,
    )
    exclude: str | Sequence[str] = defined(
        (),
        "These layers keep all filters. Names or globs; repeatable.",
        kind="names",
        example="NAME",
        panel=LIMITS,
    )
    exact_only: bool = defined(False, "Leave approximate groups alone.", panel=LIMITS, recorded=True, rare=True)
    exact_norm: bool = defined(
        False,
        "Normalise over removed channels as if they were there and zero: exact, at the price of some nodes.",
        panel=CHOICE,
        rare=True,
    )
    grouped: str = defined(
        "auto",
        "How grouped convolutions shrink: aligned (the same channels of every group), balanced (every group its own, "
        "equally many), whole (whole groups), best (balanced or whole) or auto (whole where groups are too narrow for "
        "the engine's blocks).",
        panel=CHOICE,
        choices=("auto", "aligned", "balanced", "whole", "best"),
        recorded=True,
        rare=True,
    )
    split: str = defined(
        "finest",
        "Which part of an axis that a Reshape splits carries a removal: finest (the width of attention heads, "
        "usually) or outer (whole heads, whole groups).",
        choices=("finest", "outer"),
        recorded=True,
        rare=True,
    )
    state: State = defined(
        None,
        "The output that is fed to an input in the next run (h0=hn), or auto for what names propose: their width may "
        "shrink, together. Repeatable.",
        kind="state",
        example="IN=OUT",
        hash=False,
        rare=True,
    )
    input_shapes: InputShapes | None = defined(
        None, "Shapes for inputs with symbolic dimensions, by name.", kind="object", hash=False
    )
    latency: MetricSource | None = defined(
        None,
        "What onnxprune.profile_latency measured of this model, which predicts times; planning measures nothing.",
        kind="object",
    )
    max_wire: float | None = defined(
        None, "Most bytes that cross at a cut.", kind="object", valid=lambda value: value > 0, must="be positive"
    )
    wire: MetricSource | None = defined(
        None, "The cut, and how tensors cross it: an onnxprune.splitting.narrowing.WireSize.", kind="object"
    )
    sensitivity: LossCurves | None = defined(
        None,
        "What onnxprune.scan_sensitivity measured of this model; allocation 'global' weighs its curves, too.",
        kind="object",
    )

    def __post_init__(self) -> None:
        for name in ("include", "exclude"):
            object.__setattr__(self, name, names(getattr(self, name)))
        super().__post_init__()
        pulled(self.levers, PLANNED)
        if self.mode.lower() not in MODES:
            raise UsageError(unknown("mode", self.mode, MODES))
        from onnxprune.pruning.allocation import allocation
        from onnxprune.pruning.criteria import default_registry

        if self.allocation not in (AUTO, MEASURED):
            allocation(self.allocation)
        if isinstance(self.criterion, str) and self.criterion != "auto":
            default_registry().find(self.criterion)

    def decided(self) -> PlanOptions:
        """With what "auto" means: channels of all layers compete by what a refit cannot make good, where data tells it.

        A criterion that was asked for, and that was not made to compare layers, keeps the allocation that does not.
        """
        known = self.calibration is not None
        criterion = ("refit" if known else "l2") if self.criterion == "auto" else self.criterion
        compared = known and criterion in ("refit", "reconstruction")
        chosen = ("global" if compared else "complexity") if self.allocation == "auto" else self.allocation
        return replace(self, allocation=chosen, criterion=criterion)

    @property
    def pulled(self) -> tuple[str, ...]:
        """The levers."""
        return pulled(self.levers, PLANNED)

    @property
    def metric(self) -> Metric:
        """What the mode counts."""
        return MODES[self.mode.lower()]

    @property
    def sources(self) -> dict[Metric, MetricSource]:
        """What is measured or told, and not counted."""
        found: dict[Metric, MetricSource | None] = {"latency": self.latency, "wire": self.wire}
        return {metric: source for metric, source in found.items() if source is not None}

    @property
    def limits(self) -> dict[Metric, float]:
        """The absolute budgets that are given."""
        found = {metric: getattr(self, f"max_{metric}") for metric in LIMITED}
        return {metric: float(limit) for metric, limit in found.items() if limit is not None}

    @property
    def timed(self) -> bool:
        """Whether a latency is asked for."""
        return self.metric == "latency" or self.max_latency is not None

    def check_budget(self) -> None:
        """See that it is said, once, how much is to go. Raises UsageError."""
        budgets = self.reduce is not None or bool(self.limits)
        if self.channels is not None and budgets:
            raise UsageError(
                "give either channels, or budgets (reduce, max_params, max_flops, max_memory, max_latency)"
            )
        if self.channels is None and not budgets:
            raise UsageError("give a budget: reduce, max_params, max_flops, max_memory or max_latency, or channels")

    def settings(self) -> dict[str, Any]:
        """What a plan file records: all that it takes to make the same plan again."""
        always = [name for name, option in options_of(type(self)).items() if option.recorded]
        given = {name: value for name, value in self.given().items() if name in _ORDER}
        values = {**{name: getattr(self, name) for name in always}, **given}
        if self.channels is not None:
            del values["allocation"]
        return {name: plain(values[name]) for name in _ORDER if name in values and values[name] not in ((), {})}


_ORDER = (
    *("mode", "allocation", "criterion", "seed", "reduce", "channels", *(f"max_{metric}" for metric in LIMITED)),
    *(
        "floor",
        "round_to",
        "exact_only",
        "exact_norm",
        "floors",
        "include",
        "exclude",
        "grouped",
        "split",
        "state",
        "levers",
    ),
    "input_shapes",
)
"""The options that plan files record, as they list them."""
