"""``onnxprune analyze``: what can be removed, and what everything costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import MACS, long, percent
from onnxprune.analysis.sentences import assumptions, carried, not_understood
from onnxprune.cli.files import Paths, save_plot
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, SplitOption, StateOption, carried_state
from onnxprune.cli.reading import read_and_analyze
from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.analysis.prunability import Summary


def analyze(
    model: ModelArgument,
    input_shape: InputShapeOption = None,
    split: SplitOption = "finest",
    state: StateOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Plot each layer's share of the totals, as .png, .svg or .pdf.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what every layer costs, how many of its filters may go, and what pins the others."""
    terminal = Terminal(as_json)
    if plot is not None:
        from onnxprune.report.figures import plot_format

        plot_format(plot)
        paths = Paths()
        paths.read_models(model)
        paths.write(plot)
    analysis = read_and_analyze(terminal, model, input_shape, split, state=carried_state(state)).analysis
    from onnxprune.analysis.prunability import summarize

    summary = summarize(analysis)
    from onnxprune.data.synthetic import seen_in_training

    seen = len(analysis.model.derived(seen_in_training))
    statistics = {"normalisation_statistics": seen}
    terminal.json({"model": str(model), **analysis.to_dict(), **statistics, "summary": summary.to_dict()})
    if not as_json:
        _show(terminal, analysis, summary, seen)
    if plot is not None:
        from onnxprune.report.figures import complexity

        save_plot(complexity(analysis), plot)
        terminal.show("", f"Wrote {plot}.")


def _show(terminal: Terminal, analysis: Analysis, summary: Summary, seen: int) -> None:
    from onnxprune.cli.tables import layer_table, pinned_table

    if analysis.layers:
        terminal.show(layer_table(analysis, terminal.wide), "")
    if summary.pinned:
        terminal.show(pinned_table(summary), "")
    for line in not_understood(analysis):
        terminal.show(line, style="yellow")
    approximate = [group for group in analysis.groups if group.approximate]
    if approximate:
        reasons = "; ".join(dict.fromkeys(group.approximate for group in approximate if group.approximate))
        mendable = sum(group.mendable for group in approximate)
        exact = f", {mendable} of them exact with --exact-norm" if mendable else ""
        terminal.show(f"{len(approximate)} of {len(analysis.groups)} groups are approximate{exact}: {reasons}.")
    totals = analysis.totals
    terminal.show(
        f"Total: {long(totals['params'])} parameters, {long(totals['flops'])} MACs, "
        f"{long(totals['memory'], 'B')} memory, {long(totals['peak_activations'], 'B')} peak activations."
    )
    if analysis.layers:
        terminal.show(f"Connected: {analysis.connectivity}.")
    terminal.show(assumptions(analysis), *carried(analysis), MACS)
    if seen:
        layers = "1 layer" if seen == 1 else f"{seen} layers"
        terminal.show(
            f"Batch normalisation statistics: {layers}; synthetic calibration possible (--calibrate synthetic)."
        )
    terminal.show("", _conclusion(analysis, summary))


def _conclusion(analysis: Analysis, summary: Summary) -> str:
    if not analysis.layers:
        but = " outside of what is not understood" if analysis.unknown else ""
        return f"The model has no Conv, ConvTranspose, Gemm or MatMul{but}: there is nothing to prune."
    parts = [f"{percent(summary.prunable)} of MACs are prunable"]
    parts += [f"{percent(pinned.share)} pinned by: {pinned.reason}" for pinned in summary.pinned[:3]]
    if len(summary.pinned) > 3:
        rest = sum(pinned.share for pinned in summary.pinned[3:])
        parts.append(f"{percent(rest)} pinned by {len(summary.pinned) - 3} other reasons")
    return "; ".join(parts) + "."
