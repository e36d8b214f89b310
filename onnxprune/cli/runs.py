"""Runs of an exploration as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from onnxprune._display import long, seconds, short
from onnxprune.cli.tables import empty_table

if TYPE_CHECKING:
    from onnxprune.exploration.results import Results
    from onnxprune.exploration.runs import About, Figures, Run

SCORES = {
    "accuracy": "Accuracy is the share of right answers on held-out samples.",
    "r2": "Accuracy is R²: the share of the variance of held-out values that the model explains.",
    "answers": "Accuracy is the share of the original's answers that is left, as 'prune' measures it: no labelled "
    "samples are held out (?holdout=0.2 holds some out).",
    "agreement": "Accuracy is the agreement with the original as earlier versions measured it.",
}
"""What ``accuracy`` means, by the kind of score."""


def score_words(about: About) -> str:
    """What ``accuracy`` means in a table."""
    from onnxprune.data.tasks import AUTO

    return SCORES[about.score] + (f" The answers are {about.task}." if about.task != AUTO else "")


_FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("accuracy", lambda value: f"{value:.4f}"),
    "params": ("params", short),
    "flops": ("MACs", short),
    "memory": ("memory", short),
    "latency": ("latency", seconds),
    "size": ("file", lambda value: long(value, "B")),
}


def runs_table(results: Results, runs: Sequence[Run]) -> Table:
    """The original, and these runs."""
    table = empty_table()
    table.add_column("run")
    for title, _ in _FIGURES.values():
        table.add_column(title, justify="right", no_wrap=True)
    if results.original is not None:
        table.add_row(Text("the original", style="dim"), *figures_row(results.original))
    for run in runs:
        table.add_row(run.label, *figures_row(run))
    return table


def figures_row(figures: Figures) -> list[str]:
    """Accuracy and what the model takes, one cell each."""
    values = ((getattr(figures, name), write) for name, (_, write) in _FIGURES.items())
    return ["-" if value is None else write(value) for value, write in values]


def figure_titles() -> list[str]:
    """The titles of those cells."""
    return [title for title, _ in _FIGURES.values()]
