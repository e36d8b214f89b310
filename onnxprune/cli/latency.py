"""Latency in ``prune``: what is measured before and after planning, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import seconds
from onnxprune.cli.names import with_layers
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError
from onnxprune.pruning.options import AUTO, CHANNELS, MEASURED, JobOptions

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.ir.engine import Engine
    from onnxprune.ir.model import Model
    from onnxprune.latency.fitting import LatencyFit
    from onnxprune.latency.predicting import Elsewhere, Foretold
    from onnxprune.pruning.options import PlanOptions
    from onnxprune.pruning.plan import Plan

_THREADS, _PROVIDER = "Threads inside one operator; 0 leaves it to the runtime.", "onnxruntime's execution provider."
ThreadsOption = Annotated[int, typer.Option(min=0, help=_THREADS)]
ProviderOption = Annotated[str, typer.Option(help=_PROVIDER)]
RareThreadsOption = Annotated[int, typer.Option(min=0, help=_THREADS, hidden=True)]
RareProviderOption = Annotated[str, typer.Option(help=_PROVIDER, hidden=True)]
_RUNTIME = "What runs the models: onnxruntime, openvino, tvm, iree, tract, ncnn, litert, torch, or what a package adds."
RuntimeOption = Annotated[str, typer.Option(metavar="NAME", help=_RUNTIME)]
RareRuntimeOption = Annotated[str, typer.Option(metavar="NAME", help=_RUNTIME, hidden=True)]


def timed(
    terminal: Terminal,
    analysis: Analysis,
    engine: Engine,
    options: PlanOptions,
    job: JobOptions | None = None,
    times: str | None = None,
) -> tuple[PlanOptions | Plan, LatencyFit | Elsewhere | None]:
    """The options with what had to be measured for them or is predicted from ``times``, or the plan that meets a
    latency, and how.

    Raises:
        UsageError: the times are another model's, or nothing asks for them.
        DataError: the file holds no times.
        BudgetError: the latency cannot be met.
        MeasurementError: the machine is too noisy, or the runtime does not run the model.
    """
    from onnxprune.pruning.widths import block

    if times is not None:
        from onnxprune.latency.predicting import Elsewhere

        found = Elsewhere.load(times, analysis)
        if job is not None and job.int8:
            raise UsageError("--times tell what floats take, and --int8 is decided by what is measured here: give one")
        if not options.timed:
            raise UsageError("--times predict a latency: ask for one (--max-latency, or --mode latency --reduce)")
        return replace(options, latency=found), found
    if not options.timed and options.round_to == AUTO and options.channels is None:
        return replace(options, round_to=f"{AUTO}:{block(engine.kernels)}"), None
    if not options.timed and options.round_to != MEASURED:
        return options, None
    if options.channels is not None and options.timed:
        raise UsageError("give either --channels, or a latency")
    from onnxprune.data.samples import Samples
    from onnxprune.latency.fitting import FitOptions, fit, fit_levers
    from onnxprune.latency.machine import LocalMachine
    from onnxprune.latency.profile import choose_multiple, profile_latency

    machine = LocalMachine(engine)
    if not options.timed:
        with terminal.step("Measuring layers"):
            return replace(options, round_to=choose_multiple(analysis, machine=machine)), None
    with terminal.step("Measuring layers") as tell:
        word, _, number = str(options.round_to).partition(":")
        multiple = int(number or word) if number or word.isdecimal() else word
        profile = profile_latency(analysis, machine=machine, round_to=multiple, progress=tell)
    with terminal.step("Planning, and measuring the result"):
        asked = {**options.given(), "mode": options.mode, "latency": profile, "machine": machine}
        how = FitOptions(**asked)
        if options.pulled != (CHANNELS,):
            data = options.calibration
            fitted = fit_levers(analysis, how, data if isinstance(data, Samples) else None, job or JobOptions())
        else:
            if job is not None and job.int8:
                how = replace(how, quantise=_quantiser(analysis, job, engine))
            fitted = fit(analysis, how)
    return fitted.plan, fitted


def _quantiser(analysis: Analysis, job: JobOptions, engine: Engine) -> Callable[[Model], Model]:
    """What makes integers of a pruned model, as the result's will be."""
    from onnxprune.pruning.pipeline import calibrated
    from onnxprune.pruning.quantization.quantizing import fastest_integers

    job, data = with_layers(job, analysis), calibrated(analysis.model, job)
    assert data is not None  # int8 needs it
    return lambda pruned: fastest_integers(pruned, data.fit, data.held_out, job, engine)


def _runtime(identity: Mapping[str, str]) -> str:
    """What was measured with, and its version."""
    kernels = identity.get("provider", "?")
    return (
        f"{kernels} {identity[kernels]}"
        if kernels in identity
        else f"onnxruntime {identity.get('onnxruntime', '?')}, {kernels}"
    )


def latency_lines(fit: LatencyFit | Foretold) -> list[str]:
    """What was asked, predicted and measured."""
    from onnxprune.latency.predicting import Foretold

    if isinstance(fit, Foretold):
        return fit.sentences
    from onnxprune.latency.profile import DISTURBED

    best, baseline = fit.best, fit.profile.baseline
    identity = fit.profile.identity
    kind = " in int8" if fit.precision == "int8" else ""
    lines = [
        f"Latency{kind}: asked {seconds(fit.asked)}, predicted {seconds(best.predicted)}, measured "
        f"{seconds(best.measured)}; the original takes {seconds(baseline.median)} (ratio {best.ratio.median:.3f}, 95 % "
        f"interval {best.ratio.low:.3f} to {best.ratio.high:.3f}; plans measured: {len(fit.trials)}).",
        f"Measured with {identity.get('threads', '?')} thread(s) of {_runtime(identity)}, on "
        f"{identity.get('processor', '?')}; channel counts are multiples of {fit.plan.settings['round_to']}.",
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
