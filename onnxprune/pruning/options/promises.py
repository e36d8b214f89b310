"""The options of promises, and of all of a job together."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.errors import UsageError
from onnxprune.pruning.options.definition import BUDGET, DATA, Given, defined, most
from onnxprune.pruning.options.jobs import JobOptions
from onnxprune.pruning.options.levers import (
    CHANNELS,
    INT8,
    LEVERS,
    PLANNED,
    RECOVERY,
    RESOLUTION,
    levers_option,
    pulled,
)
from onnxprune.pruning.options.planning import PlanOptions


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


@dataclass(frozen=True, kw_only=True)
class TimesOptions(Given):
    """Whose time counts."""

    times: str | None = defined(
        None,
        "Times that 'onnxprune profile' recorded of this model on another machine. Latency is predicted from them, and "
        "nothing is measured here.",
        example="TIMES",
        panel=BUDGET,
        rare=True,
    )


@dataclass(frozen=True, kw_only=True)
class AutoOptions(PromiseOptions, TimesOptions):
    """What is promised, and what it may take to find it.

    Raises:
        UsageError: a value outside its range, a lever that is not known, no promise, or no data.
    """

    max_latency: float | None = most("Longest time of a run, measured here or predicted by --times.", "duration", "5ms")
    max_flash: float | None = most("Largest file.", example="512kB")
    max_ram: float | None = most("Most memory of activations.", example="256kB")
    ram_of: str = defined(
        "arena",
        "Whose memory that is. arena: a planner's that lays tensors out in one piece, as of microcontrollers; "
        "onnxruntime: what that takes for what it makes of the model on this processor, without the inputs.",
        panel=BUDGET,
        choices=("arena", "onnxruntime"),
        rare=True,
    )
    levers: str = levers_option((CHANNELS, RESOLUTION, INT8, RECOVERY), LEVERS, panel="How to search")
    minutes: float = defined(
        20.0, "The time there is.", panel="How to search", valid=lambda value: value > 0, must="be positive"
    )
    calibration_samples: int = defined(2048, "How many to fit with, at most.", panel=DATA, least=2, rare=True)
    task: str = defined("auto", "What the outputs say, as in prune.", panel=DATA, rare=True)
    threads: int = defined(1, "Threads of onnxruntime that times are measured with.", panel="How to search", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        pulled(self.levers, LEVERS)

    @property
    def pulled(self) -> tuple[str, ...]:
        """The levers."""
        return pulled(self.levers, LEVERS)

    @property
    def planned(self) -> str:
        """Those of a plan, as they are written."""
        return ",".join(name for name in self.pulled if name in PLANNED)

    def check(self) -> None:
        """See that something is promised, and that there is data to prove it. Raises UsageError."""
        if all(value is None for value in (self.max_loss, self.max_latency, self.max_flash, self.max_ram)):
            raise UsageError("promise something: max_loss, max_latency, max_flash or max_ram")
        if self.calibration is None:
            raise UsageError("auto fits, chooses and proves with samples: give data (--data SPEC)")
