"""What ``train`` and ``compress`` share: the options of training, its progress, and its figures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError, installing

if TYPE_CHECKING:
    from onnxprune.data import Data
    from onnxprune.data.evaluation import Score
    from onnxprune.ir.model import Model
    from onnxprune.torch import Callback, Recipe, Training

_TRAINING, _MORE = "Training", "More about training"

EpochsOption = Annotated[int, typer.Option(min=1, help="Passes over the data.", rich_help_panel=_TRAINING)]
RateOption = Annotated[float, typer.Option("--lr", help="The highest learning rate.", rich_help_panel=_TRAINING)]
BatchSizeOption = Annotated[
    int, typer.Option(min=1, help="Samples per step, of all processes together.", rich_help_panel=_TRAINING)
]
OptimizerOption = Annotated[str, typer.Option(help="adamw, adam or sgd.", rich_help_panel=_TRAINING)]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Of weights, order of samples and draws.", rich_help_panel=_TRAINING)
]
AmpOption = Annotated[
    str | None,
    typer.Option(
        metavar="bfloat16|float16",
        help="Mixed precision: compute in this type where that is safe.",
        rich_help_panel=_TRAINING,
        show_default=False,
    ),
]
RestoreOption = Annotated[
    bool,
    typer.Option(
        "--restore-batchnorm",
        help="Train with a BatchNormalization after each Conv that has none, and fold it afterwards.",
        rich_help_panel=_TRAINING,
    ),
]
TeacherOption = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL", help="Follow this trained model, too.", rich_help_panel=_TRAINING, show_default=False
    ),
]
ScheduleOption = Annotated[str, typer.Option(help="cosine or constant.", rich_help_panel=_MORE, hidden=True)]
WarmUpOption = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Share of all steps over which the learning rate rises.", rich_help_panel=_MORE, hidden=True
    ),
]
WeightDecayOption = Annotated[float, typer.Option(min=0, help="Of weights.", rich_help_panel=_MORE, hidden=True)]
LossOption = Annotated[
    str, typer.Option(help="cross-entropy, mse, or auto: what the labels ask for.", rich_help_panel=_MORE, hidden=True)
]
SmoothingOption = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of the target that all classes get.", rich_help_panel=_MORE, hidden=True),
]
DistillOption = Annotated[
    float,
    typer.Option(min=0, max=1, help="Share of the loss that follows the teacher.", rich_help_panel=_MORE, hidden=True),
]
TemperatureOption = Annotated[float, typer.Option(help="Of distillation.", rich_help_panel=_MORE, hidden=True)]
ClipOption = Annotated[
    float | None,
    typer.Option(help="Largest norm of the gradient.", rich_help_panel=_MORE, hidden=True, show_default=False),
]
PatienceOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Stop after so many epochs without improvement, and keep the best.",
        rich_help_panel=_MORE,
        hidden=True,
        show_default=False,
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--train-output",
        metavar="NAME",
        help="The graph output to train on, where there are several.",
        rich_help_panel=_MORE,
        hidden=True,
        show_default=False,
    ),
]
SurrogateOption = Annotated[
    str,
    typer.Option(
        help="The gradient of thresholds, as spiking networks have: fast-sigmoid, atan, none, or auto: where weights "
        "would learn nothing.",
        rich_help_panel=_MORE,
    ),
]
SlopeOption = Annotated[
    float | None,
    typer.Option(
        help="How steep that is. [default: 25, atan 2]", rich_help_panel=_MORE, hidden=True, show_default=False
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …", rich_help_panel=_MORE)]
MetricsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write all figures as JSON, too.", show_default=False, rich_help_panel=_MORE),
]
TorchThreadsOption = Annotated[
    int,
    typer.Option("--threads", min=0, help="Of PyTorch; 0 is its choice, one per core.", rich_help_panel=_MORE),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on from the checkpoint of a training that was interrupted.")
]
DATA_HELP = (
    "What to learn from: an .npz file, a folder of images or IDX files, or module:function; "
    "SPEC?mean=0.5&std=0.2&limit=5000."
)


def require_torch(threads: int = 0) -> None:
    """Let PyTorch use so many threads (0: as many as it likes). Raises UsageError where it is not installed."""
    try:
        import onnxprune.torch  # noqa: F401

        if threads:
            import torch

            torch.set_num_threads(threads)
    except ImportError as error:
        if not is_missing_torch(error):
            raise
        raise UsageError(f"training needs PyTorch; {installing('torch')}") from error


def is_missing_torch(error: ImportError) -> bool:
    """Whether it says that PyTorch is missing, and not some other module."""
    return error.name == "torch"


@dataclass(frozen=True)
class Process:
    """This process among those that torchrun started; the first one writes and reports."""

    rank: int

    @property
    def first(self) -> bool:
        """Whether it writes and reports."""
        return self.rank == 0


def this_process() -> Process:
    """The process that the environment describes."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Process(int(os.environ.get("RANK", "0")) if several else 0)


@contextmanager
def watching(terminal: Terminal, title: str, *, quiet: bool = False) -> Iterator[list[Callback]]:
    """Callbacks that show how training goes: a bar where somebody watches, and a line per epoch."""
    if quiet:
        yield []
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from onnxprune.torch import Callback

    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)

    class Watching(Callback):
        """The bar and the lines."""

        def __init__(self) -> None:
            self._task = bar.add_task(title, total=None, figures="")

        def stepped(self, step: Any) -> None:
            figures = f"epoch {step.epoch + 1}  loss {step.loss:.4f}{_accuracy(step.accuracy)}"
            bar.update(self._task, completed=step.number, total=step.steps, figures=figures)

        def epoch_ended(self, epoch: Any) -> None:
            terminal.show(f"{title}, epoch {epoch.index + 1}: {_figures(epoch)}")

    with bar:
        yield [Watching()]


def _figures(epoch: Any) -> str:
    text = f"loss {epoch.train.loss:.4f}{_accuracy(epoch.train.accuracy)}"
    if epoch.test is not None:
        text += f"; held out: loss {epoch.test.loss:.4f}{_accuracy(epoch.test.accuracy)}"
    return f"{text}; {epoch.seconds:.1f} s"


def _accuracy(value: float | None) -> str:
    return "" if value is None else f", accuracy {100 * value:.2f} %"


def recipe(**values: Any) -> Recipe:
    """A recipe of what the command line says; its choices are checked there. Raises UsageError."""
    from onnxprune.torch import Recipe

    return Recipe(**values)


def read_teacher(terminal: Terminal, path: Path) -> Model:
    """Load the teacher. Raises ModelError."""
    from onnxprune.cli.reading import read

    return read(terminal, path)


@dataclass(frozen=True)
class Job:
    """How the models of one command are trained."""

    terminal: Terminal
    data: Data
    recipe: Recipe
    teacher: Model | None
    device: str

    def advise(self, model: Model) -> None:
        """Say so where training from scratch lacks the BatchNormalization that exporters fold away."""
        kinds = {node.op_type for node in model.graph.node}
        bare = "Conv" in kinds and not any("Normalization" in kind for kind in kinds)
        if this_process().first and bare and self.recipe.start == "from-scratch" and not self.recipe.restore_batchnorm:
            advice = "The model has no BatchNormalization: --restore-batchnorm usually trains better from scratch."
            self.terminal.show(advice, style="yellow")

    def train(
        self, title: str, model: Model, *, checkpoint: Path | None = None, resume: Path | None = None
    ) -> Training:
        """Train one model, and show how it goes."""
        from onnxprune.torch import train

        with watching(self.terminal, title, quiet=not this_process().first) as callbacks:
            result = train(
                model,
                self.data,
                self.recipe,
                teacher=self.teacher,
                checkpoint=checkpoint,
                resume=resume,
                device=self.device,
                callbacks=callbacks,
            )
        self.tell_surrogate(result)
        return result

    def tell_surrogate(self, training: Training) -> None:
        """Say what passed gradients through thresholds, and where one that was asked for by name has none to pass."""
        found, asked = training.surrogate, self.recipe.surrogate
        if not this_process().first or (found is None and asked in ("auto", "none")):
            return
        text = f"--surrogate {asked} changes nothing: the model has no threshold" if found is None else str(found)
        self.terminal.show(f"{text}.", style="yellow" if found is None or found.kind is None else "")

    def score(self, model: Model) -> Score | None:
        """Of a model on the held-out samples, in onnxruntime; None without any, and in all processes but the first."""
        if self.data.test is None or not this_process().first:
            return None
        from onnxprune.data.evaluation import evaluate

        with self.terminal.step("Evaluating"):
            return evaluate(model, self.data.test, output=self.recipe.output)


def score_line(score: Score) -> str:
    """One sentence about a score."""
    return f"loss {score.loss:.4f}{_accuracy(score.accuracy)} on {score.samples} samples"


def training_report(training: Training) -> dict[str, Any]:
    """A training as plain data."""
    return {
        "epochs": [epoch.to_dict() for epoch in training.history],
        "kept_epoch": training.kept,
        "surrogate": None if training.surrogate is None else asdict(training.surrogate),
        "seconds": training.seconds,
    }


def told(model: Model, data: str) -> Model:
    """The trained model, which tells what data it was trained with, if it tells of its training."""
    from onnxprune.ir.provenance import steps_of, with_step, without_folders

    train = "train"
    steps = steps_of(model)
    if not steps or steps[-1].get("step") != train:
        return model
    return with_step(model, train, {"data": without_folders(data)}, instead=train)
