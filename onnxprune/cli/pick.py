"""``onnxprune pick``: the model of one run, by limits."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxprune.cli.errors import OutputError
from onnxprune.cli.files import Paths, save_plan
from onnxprune.cli.options import ExternalDataOption, ForceOption, JsonOption, OutputOption
from onnxprune.cli.runs import figure_titles, figures_row, score_words
from onnxprune.cli.tables import empty_table
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.units import parse_duration, parse_quantity

if TYPE_CHECKING:
    from onnxprune.exploration.picking import Picked
    from onnxprune.exploration.results import Results

_LIMITS = "Limits"


def _limit(name: str, metavar: str, text: str, parser: Any = parse_quantity) -> Any:
    return typer.Option(name, parser=parser, metavar=metavar, help=text, rich_help_panel=_LIMITS, show_default=False)


def pick(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="What 'explore' recorded.", show_default=False)],
    output: OutputOption,
    max_latency: Annotated[float | None, _limit("--max-latency", "5ms", "Longest latency.", parse_duration)] = None,
    max_params: Annotated[float | None, _limit("--max-params", "300k", "Most parameters.")] = None,
    max_flops: Annotated[float | None, _limit("--max-flops", "1.2G", "Most MACs.")] = None,
    max_memory: Annotated[
        float | None, _limit("--max-memory", "5M", "Most bytes of weights and output activations.")
    ] = None,
    max_size: Annotated[float | None, _limit("--max-size", "1M", "Most bytes on disk.")] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(metavar="0.9", help="Least accuracy.", rich_help_panel=_LIMITS, show_default=False),
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(
            help="What is best among those that keep the limits: the greatest accuracy, or the least params, flops, "
            "memory, latency or size.",
            show_default="accuracy; latency where only accuracy is limited",
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="The original, if it is not where it was.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="SPEC", help="The data, likewise.", show_default=False)] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where 'explore --keep' kept the models.", show_default=False),
    ] = None,
    plan_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the plan as JSON, too.", show_default=False)
    ] = None,
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the best model that keeps the limits, or say which comes nearest.

    The written file is run and measured again before it is handed over.
    """
    terminal = Terminal(as_json)
    paths = Paths(force=force, external_data=external_data)
    paths.read(results)
    paths.write_model(output)
    paths.write(plan_out)
    from onnxprune.errors import ModelError
    from onnxprune.exploration.picking import Limits, subject_of
    from onnxprune.exploration.picking import pick as write
    from onnxprune.exploration.results import read_results

    found = read_results(results)
    original, spec = subject_of(found, model, data)
    paths.read_models(Path(original))
    paths.read_data(spec)
    limits = Limits(max_params, max_flops, max_memory, max_latency, max_size, min_accuracy)
    with terminal.step("Making and measuring the model"):
        try:
            picked = write(found, limits, output, model=model, data=data, best=best, keep=keep, overwrite=force)
        except ModelError as error:
            raise OutputError(str(error)) if "cannot write" in str(error) else error from error
    if plan_out is not None:
        save_plan(picked.plan, plan_out)
    terminal.json(
        {
            "output": str(output),
            "origin": picked.origin,
            "recorded": asdict(picked.run),
            "checked": asdict(picked.checked),
            "passed_over": [{"run": run.key, "reason": reason} for run, reason in picked.passed_over],
        }
    )
    if not as_json:
        _show(terminal, found, picked, output)


def _show(terminal: Terminal, results: Results, picked: Picked, output: Path) -> None:
    table = empty_table()
    table.add_column("")
    for title in figure_titles():
        table.add_column(title, justify="right", no_wrap=True)
    if results.original is not None:
        table.add_row("the original", *figures_row(results.original))
    table.add_row("as recorded", *figures_row(picked.run))
    table.add_row("as written", *figures_row(picked.checked))
    for run, reason in picked.passed_over:
        terminal.show(f"Passed over {run.label}: measured again, it has {reason}.", style="yellow")
    terminal.show(f"{picked.run.label}:", "", table, "", score_words(results.about))
    origin = "the file that was kept" if picked.origin == "kept" else "made again from its plan"
    terminal.show(f"Wrote {output}: {origin}.")
