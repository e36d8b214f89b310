"""The options of planning, proving and repairing: name, type, default, range and help of each, defined once.

From the fields of these classes derive the keyword arguments of :func:`onnxprune.plan` and
:func:`onnxprune.compress`, the options of the command line, the settings of explorations, and those in plan files.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from onnxprune.errors import UsageError, unknown

if TYPE_CHECKING:
    from typing import Concatenate, ParamSpec

    from onnxprune.analysis.analyzing import InputShapes, MetricSource
    from onnxprune.analysis.cost import Metric
    from onnxprune.data.samples import CalibrationSource, Samples
    from onnxprune.ir.state import State
    from onnxprune.ops import Registry
    from onnxprune.pruning.allocation import LossCurves
    from onnxprune.pruning.criteria import Criterion

    _P = ParamSpec("_P")

_T = TypeVar("_T")
_M = TypeVar("_M")
_R = TypeVar("_R")

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

Kind = Literal["plain", "fraction", "share", "quantity", "duration", "names", "floors", "rounding", "state", "object"]
"""How a value is written on the command line; an ``object`` is for Python only."""
RANGE_METHODS = ("auto", "minmax", "entropy", "percentile")
"""How the range of a tensor follows from its values: ``auto`` is what keeps the outputs closest on other samples."""
BUDGET, CHOICE, LIMITS, DATA = "Budget", "How to choose", "What must stay", "Calibration data"


@dataclass(frozen=True)
class Option:
    """What is said of an option besides its name, type and default.

    ``help`` begins with one short sentence, which is all that ``--help`` shows; a ``rare`` option is shown by
    ``--help-all`` alone. ``example`` shows how a value is written; ``flag`` is the option on the command line where it
    is not the name; ``text`` the default as it is written there; a ``whole`` quantity has no fraction. ``valid`` tells
    whether a value is in range, and ``must`` what range that is. ``recorded`` says whether a plan file tells the value
    even where it is the default.
    """

    help: str
    kind: Kind = "plain"
    example: str | None = None
    panel: str | None = None
    flag: str | None = None
    text: str | None = None
    least: int | None = None
    whole: bool = False
    valid: Callable[[Any], bool] | None = None
    must: str = ""
    choices: tuple[str, ...] = ()
    recorded: bool = False
    rare: bool = False

    def check(self, name: str, value: Any) -> None:
        """See that a value is in range. Raises UsageError."""
        if self.choices and value not in self.choices:
            raise UsageError(unknown(name, value, self.choices))
        if self.least is not None and not isinstance(value, str) and not value >= self.least:
            raise UsageError(f"{name} must be at least {self.least}, not {value}")
        if self.valid is not None and value is not None and not self.valid(value):
            raise UsageError(f"{name} must {self.must}, not {value}")


def defined(default: _T, help: str, *, hash: bool = True, **said: Any) -> _T:
    return dataclasses.field(default=default, hash=hash, metadata={"option": Option(help, **said)})


def _fraction(help: str, example: str | None = "0.5") -> float | None:
    return defined(
        None,
        help,
        kind="fraction",
        example=example,
        panel=BUDGET,
        valid=lambda value: 0 < value < 1,
        must="be a fraction between 0 and 1",
    )


def _most(help: str, kind: Kind = "quantity", example: str = "5M") -> float | None:
    return defined(
        None, help, kind=kind, example=example, panel=BUDGET, valid=lambda value: value > 0, must="be positive"
    )


CHANNELS, REGIONS, RANKS = "channels", "regions", "ranks"
PLANNED = (CHANNELS, REGIONS, RANKS)
"""What may go: channels; regions of the graph, for which a fitted layer stands; ranks of layers, which become two."""
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


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    """A single name is meant as one, not as its letters."""
    return (given,) if isinstance(given, str) else tuple(given)


def _words(given: str) -> tuple[str, ...]:
    """What commas separate."""
    return tuple(dict.fromkeys(word.strip() for word in given.split(",") if word.strip()))


_FLOOR = "be a fraction below 1 or a number of channels"


def _differs(value: Any, default: Any) -> bool:
    """Whether an option is not as by default; arrays compare element by element."""
    found = value != default
    return bool(found.any()) if hasattr(found, "any") else bool(found)


@dataclass(frozen=True, kw_only=True)
class Given:
    """What planning, proving and repairing all take."""

    calibration: CalibrationSource | Samples | None = defined(
        None,
        "Samples: an .npz file, a folder, module:function, synthetic. Labels are not needed. They serve criteria, "
        "compensation and the comparison of outputs.",
        flag="--calibrate",
        example="SPEC",
        panel=DATA,
    )
    registry: Registry | None = defined(None, "The known operators, if not the default ones.", kind="object")

    def given(self) -> dict[str, Any]:
        """The options that are not as they are by default."""
        fields = dataclasses.fields(self)
        return {f.name: value for f in fields if _differs(value := getattr(self, f.name), f.default)}

    def __post_init__(self) -> None:
        for name, option in options_of(type(self)).items():
            option.check(name, getattr(self, name))


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
    reduce: float | None = _fraction("Fraction of it to remove.")
    max_params: float | None = _most("Most parameters left, like 300k.")
    max_flops: float | None = _most("Most MACs left, like 1.2G.")
    max_memory: float | None = _most(
        "Most bytes left of weights and outputs. Those are the activations that layers write."
    )
    max_latency: float | None = _most("Longest time of a run, measured here. It is met within 5 %.", "duration", "5ms")
    channels: float | None = _fraction("Instead: a fraction of every group's channels. No budget is looked at then.")
    allocation: str = defined(
        "auto",
        "How many channels go from which layer. complexity, complexity-mean, uniform or global (channels of all layers "
        "compete).",
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
    levers: str = defined(
        CHANNELS,
        "What may go: channels, regions, ranks, with commas. Regions of the graph give way to a layer that is fitted "
        "in closed form, or to nothing, and layers to two of low rank (both with --calibrate); how much of the budget "
        "these take is tried out.",
        example="NAMES",
        panel=CHOICE,
        valid=lambda value: bool(value) and set(_words(value)) <= set(PLANNED),
        must="be some of channels, regions, ranks, with commas",
        rare=True,
    )
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
            object.__setattr__(self, name, _names(getattr(self, name)))
        super().__post_init__()
        if self.mode.lower() not in MODES:
            raise UsageError(unknown("mode", self.mode, MODES))
        from onnxprune.pruning.allocation import allocation
        from onnxprune.pruning.criteria import default_registry

        if self.allocation != "auto":
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
        return _words(self.levers)

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
        return {name: _plain(values[name]) for name in _ORDER if name in values and values[name] not in ((), {})}


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


@dataclass(frozen=True, kw_only=True)
class IntegerOptions(Given):
    """What becomes 8-bit integers, and how.

    Raises:
        UsageError: a value outside its range.
    """

    method: str = defined(
        "auto",
        "How a tensor's range follows from its values in int8. minmax, entropy, percentile, or auto, which takes what "
        "keeps the outputs closest on samples held out.",
        panel=DATA,
        choices=RANGE_METHODS,
        rare=True,
    )
    max_drop: float | None = defined(
        None,
        "Most of the outputs' variance that int8 may cost. On samples held out; 0.01 is 20 dB. Layers that cost most "
        "for the time that they save stay float.",
        kind="fraction",
        example="0.01",
        panel=DATA,
        valid=lambda value: 0 < value < 1,
        must="be a fraction between 0 and 1",
        rare=True,
    )
    keep_float: str | Sequence[str] = defined(
        (),
        "These layers, by name or glob, stay float in int8. Repeatable.",
        kind="names",
        example="NAME",
        panel=DATA,
        rare=True,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep_float", _names(self.keep_float))
        super().__post_init__()


_INTEGERS = {f.name for f in dataclasses.fields(IntegerOptions)} - {f.name for f in dataclasses.fields(Given)}


@dataclass(frozen=True, kw_only=True)
class JobOptions(IntegerOptions):
    """How a result is proven and repaired.

    Raises:
        UsageError: a value outside its range.
    """

    compensate: str | None = defined(
        None,
        "How weights make good what was removed. refit (least squares, layer by layer), bias, batchnorm "
        "(its statistics anew), or none. Without data only bias, from the statistics of BatchNormalization.",
        panel=DATA,
        text="refit with --calibrate",
    )
    recover: bool = defined(
        False,
        "After that, the original teaches the result on the samples, without labels (with PyTorch).",
        panel=DATA,
    )
    minutes: float = defined(
        10.0, "The time that it takes.", panel=DATA, valid=lambda value: value > 0, must="be positive"
    )
    augment: str = defined(
        "crop,flip,mix", "What it does with images, to see more of them: any of these, or none.", panel=DATA
    )
    task: str = defined(
        "auto",
        "What the outputs say, for how much of it is left: classes, labels, detection, segmentation, text, embeddings, "
        "values, a plugin's, or auto, which looks at them.",
        panel=DATA,
        rare=True,
    )
    min_agreement: float | None = defined(
        None,
        "Write nothing if less is left of the answers. The share of the original's answers that has to be left.",
        kind="fraction",
        example="0.9",
        panel=DATA,
        valid=lambda value: 0 < value <= 1,
        must="be a share above 0, at most 1",
    )
    calibration_samples: int = defined(512, "How many to use.", panel=DATA, least=1, rare=True)
    memory: int | None = defined(
        None,
        "What compensation may take beside models and samples; layers that need more keep their weights.",
        kind="quantity",
        example="4GB",
        whole=True,
        panel=DATA,
        text="half of what is free",
        rare=True,
    )
    certify: bool = defined(
        True, "Write without proof. Neither onnx.checker nor onnxruntime see the result.", flag="--no-verify"
    )
    int8: bool = defined(
        False,
        "In the end, layers become 8-bit integers. Where that is measured to be faster, with calibration data: see "
        "onnxprune quantize.",
        panel=DATA,
    )
    provenance: bool = defined(
        True, "Do not write into the file what was done (plan, refit, versions).", flag="--no-provenance", rare=True
    )
    accept_unwitnessed: bool = defined(
        False, "Write although no input can show some faults (they are named).", rare=True
    )
    verify_memory: int = defined(
        10**9,
        "Bytes that the certificate may take for tensors.",
        kind="quantity",
        example="1G",
        whole=True,
        text="1G",
        valid=lambda value: value > 0,
        must="be positive",
        rare=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_agreement is not None and self.calibration is None:
            raise UsageError(
                "how much is left of the answers is measured with samples: min_agreement needs calibration data"
            )
        if self.recover and self.calibration is None:
            raise UsageError("recovery learns from samples: recover needs calibration data")
        if self.int8 and self.calibration is None:
            raise UsageError("the ranges of int8 follow from samples: int8 needs calibration data (--calibrate)")
        if not self.int8 and (alone := _INTEGERS & self.given().keys()):
            raise UsageError(f"{', '.join(sorted(alone))} say how layers become int8: give int8 (--int8), too")
        if self.task != "auto":
            from onnxprune.data.tasks import find_task

            find_task(self.task)

    @property
    def compensation(self) -> str | None:
        """How what was removed is made good: as asked, else a refit where there is data; None for not at all."""
        asked = self.compensate or ("none" if self.calibration is None else "refit")
        return None if asked == "none" else asked


@dataclass(frozen=True, kw_only=True)
class PromiseOptions(Given):
    """The most that a result may lose: how much is removed follows from it.

    Raises:
        UsageError: a value outside its range.
    """

    max_loss: float | None = defined(
        None,
        "Instead: as much as loses so little, proven. The true share of changed answers (with labels: of accuracy "
        "lost) is at most this, by samples that nothing was fitted to; --reduce is searched.",
        kind="share",
        example="1%",
        panel=BUDGET,
        valid=lambda value: 0 < value < 1,
        must="be a share between 0 and 1, like 1%",
    )
    confidence: float = defined(
        0.95,
        "Of that bound.",
        kind="share",
        example="95%",
        text="95%",
        panel=BUDGET,
        valid=lambda value: 0.5 <= value < 1,
        must="be a share of at least 0.5, below 1",
        rare=True,
    )

    def check_alone(self, options: PlanOptions, job: JobOptions) -> None:
        """See that nothing else says how much is to go, or cannot be had with a promise. Raises UsageError."""
        if self.max_loss is None:
            return
        if job.calibration is None:
            raise UsageError("a loss is proven on samples: max_loss needs calibration data (--calibrate)")
        if options.reduce is not None or options.channels is not None or options.limits:
            raise UsageError(
                "max_loss decides how much goes: give no reduce, channels or other budget with it (onnxprune auto "
                "takes several promises at once)"
            )
        if options.timed:
            raise UsageError("max_loss searches by params, flops or memory; onnxprune auto does by measured times")
        if job.recover:
            raise UsageError("a search makes many candidates, and recovery takes minutes for each: use onnxprune auto")
        if job.min_agreement is not None:
            raise UsageError("give either max_loss, which is proven, or min_agreement, which is only measured")


@dataclass(frozen=True, kw_only=True)
class CompressOptions(JobOptions, PlanOptions, PromiseOptions):
    """All options of the way from a model to a smaller, proven one."""


LEVERS = ("channels", "int8", "recovery")
"""What :func:`onnxprune.auto` may do."""


@dataclass(frozen=True, kw_only=True)
class AutoOptions(PromiseOptions):
    """What is promised, and what it may take to find it.

    Raises:
        UsageError: a value outside its range, a lever that is not known, no promise, or no data.
    """

    max_latency: float | None = _most("Longest time of a run, measured here.", "duration", "5ms")
    max_flash: float | None = _most("Largest file.", example="512kB")
    max_ram: float | None = _most("Most memory of activations, as an arena planner lays them out.", example="256kB")
    levers: str = defined(",".join(LEVERS), "What may be done, with commas.", panel="How to search")
    minutes: float = defined(
        20.0, "The time there is.", panel="How to search", valid=lambda value: value > 0, must="be positive"
    )
    calibration_samples: int = defined(2048, "How many to fit with, at most.", panel=DATA, least=2, rare=True)
    task: str = defined("auto", "What the outputs say, as in prune.", panel=DATA, rare=True)
    threads: int = defined(1, "Threads of onnxruntime that times are measured with.", panel="How to search", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for lever in self.pulled:
            if lever not in LEVERS:
                raise UsageError(unknown("lever", lever, LEVERS))

    @property
    def pulled(self) -> tuple[str, ...]:
        """The levers."""
        return _words(self.levers)

    def check(self) -> None:
        """See that something is promised, and that there is data to prove it. Raises UsageError."""
        if all(value is None for value in (self.max_loss, self.max_latency, self.max_flash, self.max_ram)):
            raise UsageError("promise something: max_loss, max_latency, max_flash or max_ram")
        if self.calibration is None:
            raise UsageError("auto fits, chooses and proves with samples: give data (--data SPEC)")
        if not self.pulled:
            raise UsageError(f"levers: give at least one of {', '.join(LEVERS)}")


def options_of(kind: type[Given]) -> dict[str, Option]:
    """What is said of the options of a class, by name."""
    return {f.name: f.metadata["option"] for f in dataclasses.fields(kind) if "option" in f.metadata}


def as_words(kind: type[Given], values: Mapping[str, Any]) -> list[str]:
    """Options as they are written on the command line; what only Python takes, and what is not one, is left out."""
    words: list[str] = []
    for name, option in options_of(kind).items():
        value = values.get(name)
        flag = option.flag or f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if name == "input_shapes":
            words += [w for key, s in value.items() for w in ("--input-shape", f"{key}={','.join(map(str, s))}")]
        elif option.kind == "object":
            continue
        elif isinstance(value, bool):
            words += [flag] if value != flag.startswith("--no-") else []
        elif isinstance(value, Mapping):
            words += [word for key, item in value.items() for word in (flag, f"{key}={item}")]
        elif isinstance(value, (list, tuple)):
            words += [word for item in value for word in (flag, str(item))]
        elif option.kind == "duration":
            words += [flag, f"{value}s"]
        elif option.kind == "quantity":
            words += [flag, str(int(value)) if value == int(value) else str(value)]
        else:
            words += [flag, str(value)]
    return words


def by_keyword(kind: Callable[_P, _T]) -> Callable[[Callable[[_M, _T], _R]], Callable[Concatenate[_M, _P], _R]]:
    """Make a function of a model and options one of a model and keyword arguments, which type checkers know."""

    def decorate(function: Callable[[_M, _T], _R]) -> Callable[Concatenate[_M, _P], _R]:
        @wraps(function)
        def called(model: _M, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            return function(model, kind(*args, **kwargs))

        own, parameters = inspect.signature(function), inspect.signature(kind).parameters.values()
        first = next(iter(own.parameters.values()))
        signature = own.replace(parameters=[first.replace(kind=first.POSITIONAL_ONLY), *parameters])
        vars(called)["__signature__"] = signature
        called.__doc__ = _documented(inspect.getdoc(function) or "", options_of(cast(type[Given], kind)))
        return called

    return decorate


def _documented(text: str, options: Mapping[str, Option]) -> str:
    """A docstring whose ``Args`` go on with these options."""
    lines = [f"    {name}: {option.help.replace('--calibrate', 'calibration')}" for name, option in options.items()]
    return text.replace("\n\nRaises:", "\n" + "\n".join(lines) + "\n\nRaises:", 1)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
