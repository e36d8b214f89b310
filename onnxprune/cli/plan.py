"""``onnxprune plan``: choosing without removing, and how two plans differ."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.files import Paths, save_plan
from onnxprune.cli.latency import ProviderOption, RuntimeOption, ThreadsOption, timed
from onnxprune.cli.options import AllPlanOptions, ForceOption, InputShapeOption, JsonOption, Offer, offering
from onnxprune.cli.prune import prepared, spec_of
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError
from onnxprune.pruning.options import JobOptions

if TYPE_CHECKING:
    from onnxprune.pruning.plan import Difference


@offering
def plan(
    *,
    model: Annotated[Path | None, typer.Argument(metavar="MODEL", help="The model (ONNX).", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The plan (JSON).", show_default=False)
    ] = None,
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A B", help="Instead: how two plans differ; exits with 1 if they do.", show_default=False),
    ] = None,
    options: AllPlanOptions,
    input_shape: InputShapeOption = None,
    threads: ThreadsOption = 1,
    provider: ProviderOption = "CPUExecutionProvider",
    runtime: RuntimeOption = "onnxruntime",
    job: Annotated[JobOptions, Offer(("calibration", "calibration_samples"))],
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Choose what would be removed, and write that down; 'apply' removes it."""
    terminal = Terminal(as_json)
    from onnxprune.pruning.plan import Plan, differences

    if diff is not None:
        if model is not None or output is not None:
            raise UsageError("--diff compares two plans, and takes neither a model nor --output")
        found = differences(*map(Plan.load, diff))
        terminal.json({"equal": not found, "differences": [one.to_dict() for one in found]})
        for line in _told(found):
            terminal.show(line)
        if found:
            raise typer.Exit(1)
        return
    if model is None or output is None:
        raise UsageError("give a model and --output, or --diff and two plans")
    paths = Paths(force=force)
    paths.read_models(model)
    paths.read_data(spec_of(job))
    paths.write(output)
    reading, options = prepared(terminal, model, input_shape, options, job)
    from onnxprune.ir.engine import Engine
    from onnxprune.pruning.comparison import compare
    from onnxprune.pruning.pipeline import calibrated, planned

    how, _ = timed(terminal, reading.analysis, Engine(threads, provider=provider, runtime=runtime), options, job)
    if not isinstance(how, Plan):
        with terminal.step("Planning"):
            data = calibrated(reading.model, job)
            how = planned(reading.analysis, how, None if data is None else data.fit, job)
    save_plan(how, output)
    comparison = compare(reading.analysis, how)
    terminal.json({"output": str(output), "settings": dict(how.settings), **comparison.to_dict()})
    if not as_json:
        from onnxprune.cli.tables import change_table, totals_table

        terminal.show(change_table(comparison, terminal.wide), "", totals_table(comparison.before, comparison.after))
    fitted = f" --calibrate {spec_of(job)}" if how.new_layers else ""
    terminal.show(f"Wrote {output}; next: onnxprune apply {model} {output} -o OUT{fitted}.")


def _told(found: tuple[Difference, ...]) -> Iterator[str]:
    if not found:
        yield "The plans are equal."
    for one in found:
        yield f"{one.where}: {one.words}"
