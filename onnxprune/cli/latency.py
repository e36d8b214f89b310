"""Latency in ``prune``: what is measured before and after planning, and how it is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxprune._display import seconds
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.latency.fitting import LatencyFit
    from onnxprune.pruning.plan import Plan

ThreadsOption = Annotated[int, typer.Option(min=0, help="Threads inside one operator; 0 leaves it to onnxruntime.")]
ProviderOption = Annotated[str, typer.Option(help="onnxruntime's execution provider.")]

_AUTO = "auto"
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_DURATION = re.compile(r"(?P<number>[0-9]+(\.[0-9]*)?|\.[0-9]+) ?(?P<unit>s|ms|us|µs)")


def parse_duration(text: str) -> float:
    """The seconds that ``5ms``, ``1.2s`` or ``800us`` stand for.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise typer.BadParameter(f"'{text}' is not a time; write it like 5ms, 1.2s or 800us")
    return float(match["number"]) * _UNITS[match["unit"]]


def rounding(text: str) -> int | str:
    """The value of ``--round-to``: a positive number, or ``auto``.

    Raises:
        UsageError: it is neither.
    """
    if text.strip().lower() == _AUTO:
        return _AUTO
    if not text.strip().isdecimal() or int(text) < 1:
        raise UsageError(f"--round-to '{text}' is neither '{_AUTO}' nor a number of at least 1")
    return int(text)


@dataclass(frozen=True)
class Timing:
    """The values of ``--max-latency``, ``--threads`` and ``--provider``."""

    max_latency: float | None = None
    threads: int = 1
    provider: str = "CPUExecutionProvider"


def planned(terminal: Terminal, analysis: Analysis, timing: Timing, **options: Any) -> tuple[Plan, LatencyFit | None]:
    """The plan for these options of :func:`onnxprune.plan`; measured and corrected where a latency is asked for.

    Raises:
        BudgetError: the budget cannot be met.
        MeasurementError: the machine is too noisy, or onnxruntime does not run the model.
    """
    from onnxprune.pruning.choosing import MODES, plan

    wanted = timing.max_latency is not None or MODES.get(str(options["mode"]).lower()) == "latency"
    if not wanted and options["round_to"] != _AUTO:
        with terminal.step("Planning"):
            return plan(analysis, **options), None
    if options.get("channels") is not None and wanted:
        raise UsageError("give either --channels, or a latency")
    from onnxprune.latency.engine import Engine
    from onnxprune.latency.fitting import meet_latency
    from onnxprune.latency.machine import LocalMachine
    from onnxprune.latency.profile import choose_multiple, profile_latency

    machine = LocalMachine(Engine(timing.threads, provider=timing.provider))
    if not wanted:
        with terminal.step("Measuring layers"):
            options["round_to"] = choose_multiple(analysis, machine=machine)
        with terminal.step("Planning"):
            return plan(analysis, **options), None
    with terminal.step("Measuring layers"):
        profile = profile_latency(analysis, machine=machine, round_to=options["round_to"])
    with terminal.step("Planning, and measuring the result"):
        fit = meet_latency(analysis, profile, machine=machine, max_latency=timing.max_latency, **options)
    return fit.plan, fit


def latency_lines(fit: LatencyFit) -> list[str]:
    """What was asked, predicted and measured."""
    from onnxprune.latency.profile import DISTURBED

    best, baseline = fit.best, fit.profile.baseline
    identity = fit.profile.identity
    lines = [
        f"Latency: asked {seconds(fit.asked)}, predicted {seconds(best.predicted)}, measured "
        f"{seconds(best.measured)}; the original takes {seconds(baseline.median)} (ratio {best.ratio.median:.3f}, "
        f"95 % interval {best.ratio.low:.3f} to {best.ratio.high:.3f}; plans measured: {len(fit.trials)}).",
        f"Measured with {identity.get('threads', '?')} thread(s) of onnxruntime {identity.get('onnxruntime', '?')}, "
        f"{identity.get('provider', '?')}, on {identity.get('processor', '?')}; "
        f"channel counts are multiples of {fit.plan.settings['round_to']}.",
    ]
    if baseline.relative > 0.2:
        lines.append(
            f"The machine was noisy: the middle half of the original's runs spreads over {100 * baseline.relative:.0f} "
            "% of the median; the ratio was measured in turns and holds, the milliseconds may not."
        )
    if fit.profile.disturbance > DISTURBED:
        lines.append(
            f"The machine was busy: operators took {fit.profile.disturbance:.1f} times as long as they need while "
            "layers were measured. The result was measured and holds, but a better plan may exist on a quiet machine."
        )
    return lines
