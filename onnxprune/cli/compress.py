"""``onnxprune compress``: the paper's pipeline, prune at initialisation and train directly."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from onnxprune._display import MACS, TOTALS, long, percent
from onnxprune.analysis.sentences import assumptions
from onnxprune.cli import training as options
from onnxprune.cli.files import Paths, save_text
from onnxprune.cli.options import (
    ExternalDataOption,
    ForceOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    Offer,
    OutputOption,
    offering,
)
from onnxprune.cli.reading import read_and_analyze
from onnxprune.cli.result import show_certificate
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError
from onnxprune.pruning.options import BUDGET, PlanOptions

if TYPE_CHECKING:
    from onnxprune.data.evaluation import Score
    from onnxprune.ir.model import Model
    from onnxprune.torch import Training


@offering
def compress(
    *,
    model: ModelArgument,
    output: OutputOption,
    train: Annotated[str, typer.Option(metavar="SPEC", help=options.DATA_HELP, show_default=False)],
    plan: Annotated[
        PlanOptions,
        Offer(
            (*("mode", "reduce", "max_params", "max_flops", "max_memory"), *("allocation", "criterion", "round_to")),
            panel=BUDGET,
            helps={
                "mode": "What layers are drawn by and --reduce counts: params (pa), flops (fa; MACs) or memory (ma).",
                "allocation": "How many channels go from which layer: complexity, complexity-mean or uniform.",
                "criterion": "Which go first; before training there is nothing to rank.",
            },
            defaults={"criterion": "random"},
        ),
    ],
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Train the unpruned model in the same way, and show both.")
    ] = False,
    epochs: options.EpochsOption = 10,
    lr: options.RateOption = 1e-3,
    batch_size: options.BatchSizeOption = 128,
    optimizer: options.OptimizerOption = "adamw",
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch/--fine-tune", help="Begin with fresh weights, or with those of the file.")
    ] = True,
    restore_batchnorm: options.RestoreOption = False,
    teacher: options.TeacherOption = None,
    seed: options.SeedOption = 0,
    amp: options.AmpOption = None,
    resume: options.ResumeOption = False,
    warm_up: options.WarmUpOption = 0.1,
    weight_decay: options.WeightDecayOption = 1e-2,
    patience: options.PatienceOption = None,
    device: options.DeviceOption = "auto",
    threads: options.TorchThreadsOption = 0,
    input_shape: InputShapeOption = None,
    metrics_out: options.MetricsOption = None,
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Prune a model at initialisation, train it directly, and report what that saved. Works under torchrun."""
    if plan.reduce is None and not plan.limits:
        raise UsageError("give a budget: --reduce, --max-params, --max-flops or --max-memory")
    options.require_torch(threads)
    terminal = Terminal(as_json)
    states = [output.with_name(f"{output.name}.{kind}") for kind in ("checkpoint", "baseline.checkpoint")]
    paths = Paths(force=force, external_data=external_data)
    paths.read_models(model, teacher)
    paths.read_data(train)
    paths.write_model(output)
    paths.write(*states, metrics_out)
    recipe = options.recipe(
        epochs=epochs,
        lr=lr,
        batch_size=batch_size,
        optimizer=optimizer,
        start="from-scratch" if from_scratch else "fine-tune",
        restore_batchnorm=restore_batchnorm,
        seed=seed,
        precision=amp or "float32",
        warm_up=warm_up,
        weight_decay=weight_decay,
        patience=patience,
    )
    from onnxprune.data import read_data
    from onnxprune.pruning.pipeline import run as prune

    reading = read_and_analyze(terminal, model, input_shape)
    tutor = None if teacher is None else options.read_teacher(terminal, teacher)
    with terminal.step("Reading data"):
        data = read_data(train, reading.model)
    with terminal.step("Pruning"):
        pruned = prune(reading.model, replace(plan, input_shapes=reading.shapes, seed=seed))
    job = options.Job(terminal, data, recipe, tutor, device)
    job.advise(pruned.model)
    results = [_run(job, "Pruned", pruned.model, pruned.plan.after, states[0], states[0] if resume else None)]
    if baseline:
        # The baseline comes second: what was interrupted may not have reached it.
        begun = states[1] if resume and states[1].exists() else None
        results.insert(0, _run(job, "Unpruned", reading.model, reading.analysis.totals, states[1], begun))
    if not options.this_process().first:
        return
    costs = {**reading.analysis.totals, "file_size": reading.model.file_size}
    report = {
        "model": str(model),
        "output": str(output),
        "data": train,
        "plan": dict(pruned.plan.settings),
        "recipe": recipe.to_dict(),
        "unpruned": {"costs": costs, **(results[0].to_dict() if baseline else {})},
        "pruned": results[-1].to_dict(),
        "certificate": None if pruned.certificate is None else pruned.certificate.to_dict(),
    }
    with terminal.step(f"Writing {output.name}"):
        paths.save_model(options.told(results[-1].model, train), output)
        if metrics_out is not None:
            save_text(json.dumps(report, indent=2) + "\n", metrics_out)
    for state in states:
        state.unlink(missing_ok=True)
    terminal.json(report)
    terminal.show("", _table(results[0] if baseline else None, costs, results[-1]), "")
    terminal.show(assumptions(reading.analysis), MACS)
    if pruned.certificate is not None:
        terminal.show("Before training:")
        show_certificate(terminal, pruned.certificate)
    terminal.show(f"Wrote {output} ({long(results[-1].model.file_size, 'B')}).")


@dataclass(frozen=True)
class _Result:
    """A trained model: what it costs, how long it took, and its score on the held-out samples, if there are any."""

    model: Model
    training: Training
    costs: dict[str, float]
    score: Score | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        score = None if self.score is None else self.score.to_dict()
        return {"costs": self.costs, "test": score, **options.training_report(self.training)}


def _run(job: options.Job, title: str, model: Model, costs: Any, state: Path, begun: Path | None) -> _Result:
    training = job.train(title, model, checkpoint=state, resume=begun)
    trained = training.model
    return _Result(trained, training, {**costs, "file_size": trained.file_size}, job.score(trained))


def _table(unpruned: _Result | None, costs: dict[str, float], pruned: _Result) -> Table:
    from onnxprune.cli.tables import empty_table

    table = empty_table()
    table.add_column("")
    for title in ("unpruned", "pruned", "saved"):
        table.add_column(title, justify="right", no_wrap=True)
    for key, (title, unit) in TOTALS.items():
        if key in pruned.costs:
            old, new = costs[key], pruned.costs[key]
            table.add_row(title, long(old, unit), long(new, unit), percent(1 - new / old) if old else "-")
    before = unpruned.training.seconds if unpruned is not None else None
    after = pruned.training.seconds
    saved = "-" if before is None else percent(1 - after / before)
    table.add_row("training time", "-" if before is None else f"{before:.1f} s", f"{after:.1f} s", saved)
    _add_scores(table, unpruned.score if unpruned is not None else None, pruned.score)
    return table


def _add_scores(table: Table, before: Score | None, after: Score | None) -> None:
    if after is None:
        return
    table.add_row("held-out loss", "-" if before is None else f"{before.loss:.4f}", f"{after.loss:.4f}", "")
    if after.accuracy is None:
        return
    if before is None or before.accuracy is None:
        table.add_row("held-out accuracy", "-", percent(after.accuracy), "")
    else:
        gap = f"{100 * (after.accuracy - before.accuracy):+.2f} points"
        table.add_row("held-out accuracy", percent(before.accuracy), percent(after.accuracy), gap)
