"""``onnxprune train --gates``: learn what to remove."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import TOTALS, long, percent
from onnxprune.cli import training as options
from onnxprune.cli.result import show_certificate
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis, MetricSource
    from onnxprune.ir.model import Model
    from onnxprune.pruning.gating import GatedTraining
    from onnxprune.pruning.options import PlanOptions

GATES = "Gates"
"""The panel of the help."""
GatesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Learn what to remove, by gates on channels, branches, activations (with commas) that close until the "
        "budget holds; --epochs then train what is left.",
        rich_help_panel=GATES,
        show_default=False,
    ),
]
GATE_EPOCHS = 1
"""What --gate-epochs is by default."""
GateEpochsOption = Annotated[
    int, typer.Option(min=1, help="Passes over the data in which gates learn.", rich_help_panel=GATES)
]
GateRateOption = Annotated[
    float | None,
    typer.Option(
        "--gate-lr",
        help="How fast gates move, by Adam; they close on a way of 1.",
        rich_help_panel=GATES,
        hidden=True,
        show_default="to suit the steps",
    ),
]


@dataclass(frozen=True)
class Gating:
    """What has gates, for how long and how fast they learn, and the budget."""

    gates: tuple[str, ...]
    epochs: int
    lr: float | None
    plan: PlanOptions

    @classmethod
    def asked(
        cls, gates: str | None, epochs: int, lr: float | None, options: PlanOptions, plan_out: Path | None
    ) -> Gating | None:
        """What the command line asks for; None where it has no gates.

        Raises:
            UsageError: a budget without gates, or gates without one.
        """
        if gates is None:
            own = {"gate_epochs": epochs != GATE_EPOCHS, "gate_lr": lr is not None, "plan_out": plan_out is not None}
            told = [*options.given(), *(name for name, there in own.items() if there)]
            if told:
                names = ", ".join(f"--{name.replace('_', '-')}" for name in told)
                raise UsageError(
                    f"{names}: without gates, training removes nothing; say --gates channels,branches,activations to "
                    "learn what to remove, or prune before"
                )
            return None
        if options.reduce is None:
            raise UsageError("gates close until a budget holds: give --reduce, and --mode")
        return cls(tuple(word.strip() for word in gates.split(",") if word.strip()), epochs, lr, options)

    def learn(self, job: options.Job, model: Model, state: Path, *, resume: bool) -> GatedTraining:
        """Learn with gates, remove, prove and train on; ``state`` is the checkpoint of what is left."""
        from onnxprune.pruning.gating import learn_gates
        from onnxprune.torch.gates import Learning

        with options.watching(job.terminal, "Training") as callbacks:
            return learn_gates(
                model,
                job.data,
                replace(self.plan, seed=job.recipe.seed),
                job.recipe,
                gates=self.gates,
                learning=Learning(epochs=self.epochs, lr=self.lr),
                teacher=job.teacher,
                checkpoint=state,
                resume=state if resume and state.exists() else None,
                device=job.device,
                callbacks=callbacks,
                measure=_measured,
            )


def _measured(analysis: Analysis) -> MetricSource:
    """The times of a model's layers on this machine."""
    from onnxprune.latency.profile import profile_latency

    return profile_latency(analysis)


def show_gates(terminal: Terminal, learned: GatedTraining) -> None:
    """What closed, and what that left."""
    from onnxprune.analysis.analyzing import analyze

    plan, open = learned.compression.plan, learned.learned.open
    terminal.show(f"Gates: {len(open)}, of which {int((~open).sum())} closed.")
    after = analyze(learned.model).totals
    for key, (title, unit) in TOTALS.items():
        if plan.before.get(key) and key in after:
            gone = percent(1 - after[key] / plan.before[key])
            terminal.show(f"{title}: {long(plan.before[key], unit)} → {long(after[key], unit)} (−{gone})")
    for one in plan.replaced:
        terminal.show(f"Gave way: {one}.")
    if learned.compression.certificate is not None:
        terminal.show("Before it was trained on:")
        show_certificate(terminal, learned.compression.certificate)
