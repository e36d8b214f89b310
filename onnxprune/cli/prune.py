"""``onnxprune prune``, ``apply`` and ``verify``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.errors import FAILED
from onnxprune.cli.files import Paths
from onnxprune.cli.latency import ProviderOption, ThreadsOption, Timing, parse_duration, planned, rounding
from onnxprune.cli.names import resolve
from onnxprune.cli.options import (
    BUDGET,
    AcceptUnwitnessedOption,
    ForceOption,
    InputShapeOption,
    JsonOption,
    MaxFlopsOption,
    MaxMemoryOption,
    MaxParamsOption,
    ModelArgument,
    NoVerifyOption,
    OutputOption,
    ReduceOption,
    SplitOption,
    StateOption,
    VerifyMemoryOption,
    carried_state,
    input_shapes,
    named_floors,
    proof,
)
from onnxprune.cli.reading import read, read_and_analyze
from onnxprune.cli.result import Calibration, Job, finish, show_certificate
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.units import parse_quantity
from onnxprune.errors import BudgetError, UsageError

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.data.samples import Samples
    from onnxprune.pruning.sensitivity import Sensitivity


_CHOICE, _LIMITS, _DATA = "How to choose", "What must stay", "Calibration data"

_SCANNED = ("global", "aligned")

CalibrateOption = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Samples, labels not needed: an .npz file, a folder, or module:function. They serve criteria, "
        "compensation and the comparison of outputs.",
        rich_help_panel=_DATA,
        show_default=False,
    ),
]
CompensateOption = Annotated[
    str | None,
    typer.Option(
        help="How the remaining weights make good what was removed: refit (least squares, layer by layer), bias, "
        "batchnorm (its statistics anew), or none. Without data only bias, from the statistics of BatchNormalization.",
        rich_help_panel=_DATA,
        show_default="refit with --calibrate",
    ),
]
SamplesOption = Annotated[
    int, typer.Option("--calibration-samples", min=1, help="How many to use.", rich_help_panel=_DATA)
]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        parser=parse_quantity,
        metavar="4GB",
        help="What compensation may take beside models and samples; layers that need more keep their weights.",
        rich_help_panel=_DATA,
        show_default="half of what is free",
    ),
]

PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan (JSON).", show_default=False)]


def prune(
    model: ModelArgument,
    output: OutputOption,
    mode: Annotated[
        str,
        typer.Option(
            help="What layers are drawn by and --reduce counts: params (pa), flops (fa; MACs), memory (ma) or "
            "latency (la; measured here).",
            rich_help_panel=BUDGET,
        ),
    ] = "flops",
    reduce: ReduceOption = None,
    max_params: MaxParamsOption = None,
    max_flops: MaxFlopsOption = None,
    max_memory: MaxMemoryOption = None,
    max_latency: Annotated[
        float | None,
        typer.Option(
            parser=parse_duration,
            metavar="5ms",
            help="Longest time of a run, measured here and met within 5 %.",
            rich_help_panel=BUDGET,
            show_default=False,
        ),
    ] = None,
    channels: Annotated[
        float | None,
        typer.Option(
            metavar="0.5",
            help="Instead of a budget: fraction of every group's channels to remove.",
            rich_help_panel=BUDGET,
            show_default=False,
        ),
    ] = None,
    allocation: Annotated[
        str,
        typer.Option(
            help="How many go from which layer: complexity, complexity-mean, uniform or global (channels of all "
            "layers compete).",
            rich_help_panel=_CHOICE,
        ),
    ] = "complexity",
    criterion: Annotated[
        str,
        typer.Option(
            help="Which channels of a layer go first: l2, l1, fpgm, lamp, bn_scale, random; with --calibrate also "
            "activation, relief, variance, reconstruction, refit, taylor.",
            rich_help_panel=_CHOICE,
        ),
    ] = "l2",
    seed: Annotated[int, typer.Option(min=0, help="Of all draws.", rich_help_panel=_CHOICE)] = 0,
    floor: Annotated[
        float,
        typer.Option(min=0, help="What every layer keeps: a fraction below 1, or channels.", rich_help_panel=_LIMITS),
    ] = 0.1,
    floors: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="The same for layers by name or glob. Repeatable.",
            rich_help_panel=_LIMITS,
            show_default=False,
        ),
    ] = None,
    round_to: Annotated[
        str,
        typer.Option(
            metavar="8|auto",
            help="Keep channel counts multiples of this; auto measures which gives the most channels for the time.",
            rich_help_panel=_LIMITS,
        ),
    ] = "1",
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Only these layers, by name or glob, lose filters. Repeatable.",
            rich_help_panel=_LIMITS,
            show_default=False,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="These layers, by name or glob, keep all filters. Repeatable.",
            rich_help_panel=_LIMITS,
            show_default=False,
        ),
    ] = None,
    exact_only: Annotated[
        bool, typer.Option("--exact-only", help="Leave approximate groups alone.", rich_help_panel=_LIMITS)
    ] = False,
    exact_norm: Annotated[
        bool,
        typer.Option(
            "--exact-norm",
            help="Normalise over removed channels as if they were there and zero: exact, at the price of some nodes.",
            rich_help_panel=_CHOICE,
        ),
    ] = False,
    grouped: Annotated[
        str,
        typer.Option(
            help="How grouped convolutions shrink: aligned (the same channels of every group), balanced (every group "
            "its own, equally many), whole (whole groups) or best (balanced or whole).",
            rich_help_panel=_CHOICE,
        ),
    ] = "aligned",
    calibrate: CalibrateOption = None,
    compensate: CompensateOption = None,
    calibration_samples: SamplesOption = 256,
    memory: MemoryOption = None,
    split: SplitOption = "finest",
    state: StateOption = None,
    input_shape: InputShapeOption = None,
    threads: ThreadsOption = 1,
    provider: ProviderOption = "CPUExecutionProvider",
    plan_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as JSON, too.", show_default=False)
    ] = None,
    no_verify: NoVerifyOption = False,
    accept_unwitnessed: AcceptUnwitnessedOption = False,
    verify_memory: VerifyMemoryOption = "1G",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a model smaller until it meets a budget, and prove that the result is right."""
    budgets = (reduce, max_params, max_flops, max_memory, max_latency)
    if channels is None and all(budget is None for budget in budgets):
        raise UsageError(
            "give a budget: --reduce, --max-params, --max-flops, --max-memory or --max-latency, or --channels"
        )
    terminal = Terminal(as_json)
    at_least, multiple = named_floors(floors), rounding(round_to)
    paths = Paths(force=force)
    paths.read_models(model)
    paths.read_data(calibrate)
    paths.write_model(output)
    paths.write(plan_out)
    reading = read_and_analyze(terminal, model, input_shape, split, state=carried_state(state))
    analysis = reading.analysis
    if not analysis.groups:
        from onnxprune.analysis.prunability import why_nothing

        raise BudgetError(f"{why_nothing(analysis)}; nothing was written")
    layers = [(layer.name, layer.op_type) for layer in analysis.layers]
    calibration = Calibration(calibrate, compensate, calibration_samples, memory)
    given = calibration.collected(reading.model)
    chosen, fit = planned(
        terminal,
        analysis,
        Timing(max_latency, threads, provider),
        mode=mode,
        reduce=reduce,
        max_params=max_params,
        max_flops=max_flops,
        max_memory=max_memory,
        channels=channels,
        allocation=allocation,
        criterion=criterion,
        calibration=None if given is None else given[0],
        sensitivity=_kept_scan(terminal, analysis, given, criterion) if (allocation, grouped) == _SCANNED else None,
        seed=seed,
        floor=floor,
        floors={resolve(name, layers): value for name, value in at_least.items()},
        round_to=multiple,
        include=[resolve(name, layers) for name in include or ()],
        exclude=[resolve(name, layers) for name in exclude or ()],
        exact_only=exact_only,
        exact_norm=exact_norm,
        grouped=grouped,
    )
    finish(
        terminal,
        Job(reading, output, plan_out, paths, proof(no_verify, verify_memory, accept_unwitnessed), calibration, fit),
        chosen,
    )


def _kept_scan(
    terminal: Terminal, analysis: Analysis, given: tuple[Samples, Samples, bool] | None, criterion: str
) -> Sensitivity | None:
    """The scan of ``onnxprune sensitivity`` on the same data, if there is one."""
    if given is None:
        return None
    from onnxprune.latency.cache import default_folder
    from onnxprune.pruning.sensitivity import DEFAULT_COUNT, SensitivityCache

    scan = SensitivityCache(default_folder()).read(analysis.model, given[0].part(0, DEFAULT_COUNT), criterion)
    if scan is not None:
        terminal.show("The sensitivity scan of this model and data counts, too.")
    return scan


def apply(
    model: ModelArgument,
    plan: PlanArgument,
    output: OutputOption,
    calibrate: CalibrateOption = None,
    compensate: CompensateOption = None,
    calibration_samples: SamplesOption = 256,
    memory: MemoryOption = None,
    input_shape: InputShapeOption = None,
    no_verify: NoVerifyOption = False,
    accept_unwitnessed: AcceptUnwitnessedOption = False,
    verify_memory: VerifyMemoryOption = "1G",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove from a model what a plan names."""
    terminal = Terminal(as_json)
    paths = Paths(force=force)
    paths.read_models(model)
    paths.read(plan)
    paths.read_data(calibrate)
    paths.write_model(output)
    from onnxprune.pruning.plan import Plan

    chosen = Plan.load(plan)
    reading = read_and_analyze(terminal, model, input_shape, chosen.split, chosen.input_shapes, chosen.state)
    if reading.shapes:
        chosen = chosen.for_inputs(reading.shapes)
    calibration = Calibration(calibrate, compensate, calibration_samples, memory)
    finish(
        terminal,
        Job(reading, output, None, paths, proof(no_verify, verify_memory, accept_unwitnessed), calibration),
        chosen,
    )


def verify(
    model: ModelArgument,
    pruned: Annotated[Path, typer.Argument(metavar="PRUNED", help="The result.", show_default=False)],
    plan: PlanArgument,
    input_shape: InputShapeOption = None,
    samples: Annotated[int, typer.Option(min=1, help="How many random inputs to compare.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest allowed difference of a tensor, over the spread of its channel.")
    ] = 3e-5,
    accept_unwitnessed: Annotated[
        bool, typer.Option("--accept-unwitnessed", help="Exit with 0 although no input can show some faults.")
    ] = False,
    verify_memory: VerifyMemoryOption = "1G",
    mutations: Annotated[
        int, typer.Option(min=0, help="Put so many faults into the pruned model, and tell how many are noticed.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare a pruned model with the masked original, and exit with 1 if they differ."""
    terminal = Terminal(as_json)
    from onnxprune.pruning.plan import Plan

    chosen = Plan.load(plan)
    source, result = read(terminal, model), read(terminal, pruned)
    with terminal.step("Verifying"):
        from onnxprune.pruning.certificate import verify as compare

        certificate = compare(
            source,
            result,
            chosen,
            input_shapes=input_shapes(input_shape, source),
            samples=samples,
            seed=seed,
            tolerance=tolerance,
            memory=int(parse_quantity(verify_memory)),
        )
    power = None
    if mutations and certificate.passed:
        from onnxprune.pruning.mutations.power import measure_power

        with terminal.step("Trying faults"):
            power = measure_power(source, result, chosen, mutations, seed=seed)
    terminal.json({**certificate.to_dict(), "power": None if power is None else power.to_dict()})
    show_certificate(terminal, certificate)
    for line in () if power is None else power.sentences:
        terminal.show(line)
    if not certificate.passed or (certificate.unwitnessed and not accept_unwitnessed):
        raise typer.Exit(FAILED)
