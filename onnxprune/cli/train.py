"""``onnxprune train``: train a model in PyTorch, and write the values back into its graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxprune._display import long
from onnxprune.cli import training as options
from onnxprune.cli.files import Paths, save_text
from onnxprune.cli.gates import GATE_EPOCHS, GATES, GateEpochsOption, GateRateOption, GatesOption, Gating, show_gates
from onnxprune.cli.options import (
    ExternalDataOption,
    ForceOption,
    JsonOption,
    ModelArgument,
    Offer,
    OutputOption,
    offering,
)
from onnxprune.cli.reading import read
from onnxprune.cli.terminal import Terminal
from onnxprune.pruning.options import PlanOptions


@offering
def train(
    *,
    model: ModelArgument,
    output: OutputOption,
    data: Annotated[str, typer.Option(metavar="SPEC", help=options.DATA_HELP, show_default=False)],
    epochs: options.EpochsOption = 10,
    lr: options.RateOption = 1e-3,
    batch_size: options.BatchSizeOption = 128,
    optimizer: options.OptimizerOption = "adamw",
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch/--fine-tune", help="Begin with fresh weights, or with those of the file."),
    ] = False,
    restore_batchnorm: options.RestoreOption = False,
    teacher: options.TeacherOption = None,
    seed: options.SeedOption = 0,
    amp: options.AmpOption = None,
    gates: GatesOption = None,
    gate_epochs: GateEpochsOption = GATE_EPOCHS,
    gate_lr: GateRateOption = None,
    plan: Annotated[
        PlanOptions,
        Offer(
            ("mode", "reduce", "floor", "round_to", "exclude"),
            panel=GATES,
            helps={"mode": "What --reduce counts: params, flops (MACs), memory or latency (measured here)."},
        ),
    ],
    plan_out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what gates removed, too.", rich_help_panel=GATES, show_default=False),
    ] = None,
    resume: options.ResumeOption = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where that is. [default: OUTPUT.checkpoint]", show_default=False),
    ] = None,
    schedule: options.ScheduleOption = "cosine",
    warm_up: options.WarmUpOption = 0.1,
    weight_decay: options.WeightDecayOption = 1e-2,
    loss: options.LossOption = "auto",
    label_smoothing: options.SmoothingOption = 0.0,
    distill: options.DistillOption = 0.5,
    temperature: options.TemperatureOption = 4.0,
    clip: options.ClipOption = None,
    patience: options.PatienceOption = None,
    train_output: options.TargetOption = None,
    surrogate: options.SurrogateOption = "auto",
    slope: options.SlopeOption = None,
    device: options.DeviceOption = "auto",
    threads: options.TorchThreadsOption = 0,
    metrics_out: options.MetricsOption = None,
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model, pruned or not, and write the values back into the same graph. Works under torchrun."""
    gating = Gating.asked(gates, gate_epochs, gate_lr, plan, plan_out)
    options.require_torch(threads)
    terminal = Terminal(as_json)
    state = checkpoint if checkpoint is not None else output.with_name(f"{output.name}.checkpoint")
    paths = Paths(force=force, external_data=external_data)
    paths.read_models(model, teacher)
    paths.read_data(data)
    paths.write_model(output)
    paths.write(state, metrics_out, plan_out)
    recipe = options.recipe(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        optimizer=optimizer,
        weight_decay=weight_decay,
        schedule=schedule,
        warm_up=warm_up,
        start="from-scratch" if from_scratch else "fine-tune",
        restore_batchnorm=restore_batchnorm,
        seed=seed,
        loss=loss,
        label_smoothing=label_smoothing,
        distill=distill,
        temperature=temperature,
        clip=clip,
        patience=patience,
        precision=amp or "float32",
        output=train_output,
        surrogate=surrogate,
        slope=slope,
    )
    from onnxprune.data import read_data

    source = read(terminal, model)
    tutor = None if teacher is None else options.read_teacher(terminal, teacher)
    with terminal.step("Reading data"):
        samples = read_data(data, source)
    job = options.Job(terminal, samples, recipe, tutor, device)
    job.advise(source)
    learned, report = None, dict[str, Any]()
    if gating is not None:
        learned = gating.learn(job, source, state, resume=resume)
        trained, report = learned.training, {"gates": learned.to_dict()}
        job.tell_surrogate(trained)
    else:
        trained = job.train("Training", source, checkpoint=state, resume=state if resume else None)
    result = trained.model if learned is None else learned.model
    if not options.this_process().first:
        return
    report |= {
        "model": str(model),
        "output": str(output),
        "data": data,
        "recipe": recipe.to_dict(),
        **options.training_report(trained),
    }
    before, after = job.score(source), job.score(result)
    if before is not None and after is not None:
        report |= {"before": before.to_dict(), "after": after.to_dict()}
        terminal.show(f"Before, in onnxruntime: {options.score_line(before)}.")
        terminal.show(f"After: {options.score_line(after)}.")
    with terminal.step(f"Writing {output.name}"):
        paths.save_model(options.told(result, data), output)
        if metrics_out is not None:
            save_text(json.dumps(report, indent=2) + "\n", metrics_out)
        if learned is not None and plan_out is not None:
            learned.compression.plan.save(plan_out)
    state.unlink(missing_ok=True)
    terminal.json(report)
    if learned is not None:
        show_gates(terminal, learned)
    terminal.show(f"Trained in {(trained if learned is None else learned).seconds:.1f} s.")
    terminal.show(f"Wrote {output} ({long(result.file_size, 'B')}).")
