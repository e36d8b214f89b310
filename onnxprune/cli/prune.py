"""``onnxprune prune``, ``apply`` and ``verify``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.errors import FAILED
from onnxprune.cli.files import Paths
from onnxprune.cli.latency import RareProviderOption, RareRuntimeOption, RareThreadsOption, RuntimeOption, timed
from onnxprune.cli.names import resolve
from onnxprune.cli.options import (
    AllJobOptions,
    AllPlanOptions,
    AllPromiseOptions,
    ExternalDataOption,
    ForceOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    Offer,
    OutputOption,
    input_shapes,
    offering,
)
from onnxprune.cli.reading import Reading, read, read_and_analyze
from onnxprune.cli.result import Task, finish, show_proof
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.timing import NoBenchOption
from onnxprune.errors import BudgetError, UsageError
from onnxprune.pruning.options import JobOptions, PlanOptions, PromiseOptions, TimesOptions

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.data.samples import Samples
    from onnxprune.ir.agreement import Agreement
    from onnxprune.ir.model import Model
    from onnxprune.pruning.sensitivity import Sensitivity

PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan (JSON).", show_default=False)]


@offering
def prune(
    *,
    model: ModelArgument,
    output: OutputOption,
    options: AllPlanOptions,
    input_shape: InputShapeOption = None,
    threads: RareThreadsOption = 1,
    provider: RareProviderOption = "CPUExecutionProvider",
    runtime: RareRuntimeOption = "onnxruntime",
    plan_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as JSON, too.", show_default=False)
    ] = None,
    job: AllJobOptions,
    promise: AllPromiseOptions,
    where: Annotated[TimesOptions, Offer(("times",))],
    no_bench: NoBenchOption = False,
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a model smaller until it meets a budget, and prove that the result is right."""
    promise.check_alone(options, job)
    terminal = Terminal(as_json)
    paths = Paths(force=force, terminal=terminal, external_data=external_data)
    paths.read_models(model)
    paths.read_data(spec_of(job))
    paths.read(None if where.times is None else Path(where.times))
    paths.write_model(output)
    paths.write(plan_out)
    reading, options = prepared(terminal, model, input_shape, options, job, promise)
    from onnxprune.ir.engine import Engine

    engine = Engine(threads, provider=provider, runtime=runtime)
    how, fit = timed(terminal, reading.analysis, engine, options, job, where.times)
    measured = not no_bench and where.times is None
    finish(terminal, Task(reading, output, plan_out, paths, how, fit, engine, measured, promise), job)


def prepared(
    terminal: Terminal,
    model: Path,
    input_shape: list[str] | None,
    options: PlanOptions,
    job: JobOptions,
    promise: PromiseOptions | None = None,
) -> tuple[Reading, PlanOptions]:
    """The analysed model, and the options of its plan with names resolved and data read.

    Raises:
        UsageError: no budget is given.
        BudgetError: nothing of the model can be removed.
    """
    promised = promise is not None and promise.max_loss is not None
    if options.channels is None and options.reduce is None and not options.limits and not promised:
        raise UsageError(
            "give a budget: --reduce, --max-params, --max-flops, --max-memory or --max-latency, or --channels, or "
            "--max-loss"
        )
    reading = read_and_analyze(terminal, model, input_shape, options.split, state=options.state)
    analysis = reading.analysis
    if not analysis.groups:
        from onnxprune.analysis.prunability import why_nothing

        raise BudgetError(f"{why_nothing(analysis)}; nothing was written")
    layers = [(layer.name, layer.op_type) for layer in analysis.layers]
    from onnxprune.pruning.pipeline import calibrated, with_proof

    data = with_proof(reading.model, job) if promised else calibrated(reading.model, job)
    options = replace(
        options,
        input_shapes=reading.shapes,
        floors={resolve(name, layers): value for name, value in (options.floors or {}).items()},
        include=[resolve(name, layers) for name in options.include],
        exclude=[resolve(name, layers) for name in options.exclude],
        calibration=None if data is None else data.fit,
    ).decided()
    if options.allocation == "global" and data is not None and _aligned(analysis, options):
        options = replace(options, sensitivity=_kept_scan(terminal, analysis, data.fit, str(options.criterion)))
    return reading, options


def _aligned(analysis: Analysis, options: PlanOptions) -> bool:
    """Whether the same channels of every group go, which is what a scan looks at."""
    from onnxprune.pruning.choosing import groupings_of

    aligned = ("aligned",)
    meant = aligned if options.grouped == "aligned" else tuple(g.value for g in groupings_of(analysis, options))
    return options.grouped in ("auto", "aligned") and meant == aligned


def spec_of(job: JobOptions) -> str | None:
    """The calibration data as it is written, if it is."""
    return job.calibration if isinstance(job.calibration, str) else None


def _kept_scan(terminal: Terminal, analysis: Analysis, samples: Samples, criterion: str) -> Sensitivity | None:
    """The scan of ``onnxprune sensitivity`` on the same data, if there is one."""
    from onnxprune.ir.caches import default_folder
    from onnxprune.pruning.sensitivity import DEFAULT_COUNT, SensitivityCache

    scan = SensitivityCache(default_folder()).read(analysis.model, samples.part(0, DEFAULT_COUNT), criterion)
    if scan is not None:
        terminal.show("The sensitivity scan of this model and data counts, too.")
    return scan


@offering
def apply(
    *,
    model: ModelArgument,
    plan: PlanArgument,
    output: OutputOption,
    input_shape: InputShapeOption = None,
    threads: RareThreadsOption = 1,
    provider: RareProviderOption = "CPUExecutionProvider",
    runtime: RareRuntimeOption = "onnxruntime",
    job: AllJobOptions,
    no_bench: NoBenchOption = False,
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove from a model what a plan names."""
    terminal = Terminal(as_json)
    paths = Paths(force=force, terminal=terminal, external_data=external_data)
    paths.read_models(model)
    paths.read(plan)
    paths.read_data(spec_of(job))
    paths.write_model(output)
    from onnxprune.pruning.plan import Plan

    chosen = Plan.load(plan)
    reading = read_and_analyze(terminal, model, input_shape, chosen.split, chosen.input_shapes, chosen.state)
    if reading.shapes:
        chosen = chosen.for_inputs(reading.shapes)
    from onnxprune.ir.engine import Engine

    engine = Engine(threads, provider=provider, runtime=runtime)
    finish(terminal, Task(reading, output, None, paths, chosen, engine=engine, timed=not no_bench), job)


@offering
def verify(
    *,
    model: ModelArgument,
    pruned: Annotated[Path, typer.Argument(metavar="PRUNED", help="The result.", show_default=False)],
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="[PLAN]", help="The plan (JSON), if not what PRUNED tells.", show_default=False),
    ] = None,
    input_shape: InputShapeOption = None,
    samples: Annotated[int, typer.Option(min=1, help="How many random inputs to compare.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest allowed difference of a tensor, over the spread of its channel.")
    ] = 3e-5,
    job: Annotated[
        JobOptions,
        Offer(
            ("accept_unwitnessed", "verify_memory"),
            helps={"accept_unwitnessed": "Exit with 0 although no input can show some faults."},
        ),
    ],
    mutations: Annotated[
        int, typer.Option(min=0, help="Put so many faults into the pruned model, and tell how many are noticed.")
    ] = 0,
    runtime: RuntimeOption = "onnxruntime",
    as_json: JsonOption = False,
) -> None:
    """Compare a pruned model with the masked original, and exit with 1 if they differ.

    With --runtime, both files run there, too, and the pruned one's outputs have to be onnxruntime's.

    Where weights have changed since (refit, training), the removal is proven with the original's values.
    """
    terminal = Terminal(as_json)
    from onnxprune.pruning.plan import Plan

    chosen = None if plan is None else Plan.load(plan)
    source, result = read(terminal, model), read(terminal, pruned)
    with terminal.step("Verifying"):
        from onnxprune.pruning.proving import prove

        proof = prove(
            source,
            result,
            chosen,
            input_shapes=input_shapes(input_shape, source),
            samples=samples,
            seed=seed,
            tolerance=tolerance,
            memory=job.verify_memory,
        )
    power, certificate = None, proof.certificate
    if mutations and proof.passed and proof.changed:
        raise UsageError("--mutations needs a model whose weights have the original's values; this one was changed")
    if mutations and proof.passed:
        from onnxprune.pruning.mutations.power import measure_power

        with terminal.step("Trying faults") as tell:
            power = measure_power(source, result, proof.plan, mutations, seed=seed, progress=tell)
    there = {}
    if runtime != "onnxruntime":
        with terminal.step(f"Running in {runtime}"):
            there = _in_runtime(runtime, {"original": source, "pruned": result}, input_shape, seed)
    answers = {which: answer.to_dict() for which, answer in there.items()}
    told = proof.to_dict() | ({"runtime": {"name": runtime, **answers}} if there else {})
    terminal.json({**told, "power": None if power is None else power.to_dict()})
    show_proof(terminal, proof)
    for line in () if power is None else power.sentences:
        terminal.show(line)
    for which, answer in there.items():
        terminal.show(f"In {runtime} the {which} model {answer}.", style="" if answer.passed else "yellow")
    if not all(answer.passed for which, answer in there.items() if which == "pruned"):
        raise typer.Exit(FAILED)
    if not proof.passed or (certificate.unwitnessed and not job.accept_unwitnessed):
        raise typer.Exit(FAILED)


def _in_runtime(
    name: str, models: Mapping[str, Model], input_shape: list[str] | None, seed: int
) -> dict[str, Agreement]:
    """What a runtime makes of models, on the same random inputs."""
    from onnxprune.analysis.binding import find_binding
    from onnxprune.ir.agreement import agreement
    from onnxprune.ir.engine import Engine
    from onnxprune.ir.session import random_inputs

    engine = Engine(runtime=name)
    first = next(iter(models.values()))
    inputs = random_inputs(first, find_binding(first, input_shapes(input_shape, first)).shapes, seed)
    return {which: agreement(model, inputs, engine) for which, model in models.items()}
