"""The regions of a model, and those that a plan lets give way, as tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune._display import compact, long, percent, seconds, short
from onnxprune.cli.names import Name
from onnxprune.cli.tables import empty_table
from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from rich.table import Table

    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.pruning.plan import Replacement
    from onnxprune.pruning.regions.costs import RegionCost


def show_regions(
    terminal: Terminal, analysis: Analysis, plan: Path | None, *, all_of_them: bool = True, times: bool = False
) -> None:
    """List the regions of a model, those that a plan names, or both. Raises PlanError where a plan does not fit."""
    from onnxprune.pruning.plan import Plan
    from onnxprune.pruning.regions.costs import region_costs
    from onnxprune.pruning.substituting import replaced

    chosen = () if plan is None else Plan.load(plan).replaced
    replaced(analysis.model, chosen)  # refuses what does not fit
    with terminal.step("Timing regions" if times else "Finding regions"):
        found = list(region_costs(analysis, timed=times)) if all_of_them else []
    named = [{**asdict(one), "words": one.words} for one in chosen]
    terminal.json({"regions": [asdict(one) for one in found], "replaced": named})
    if all_of_them:
        terminal.show(_regions(found, times=times), "", f"{len(found)} regions.")
    if plan is not None:
        terminal.show(_replaced(chosen) if chosen else f"By {plan.name}, no region gives way: only channels go.")


def _regions(found: list[RegionCost], *, times: bool) -> Table:
    table = empty_table()
    for title in ("entry", "exit", "from → to"):
        table.add_column(title)
    for title in ("nodes", "layers", "params", "MACs", "memory", *(["time"] if times else [])):
        table.add_column(title, justify="right", no_wrap=True)
    for one in found:
        between = " → ".join("×".join(map(str, shape)) for shape in (one.reads, one.makes))
        row = [
            between,
            str(one.nodes),
            str(len(one.layers)),
            short(one.params),
            short(one.flops),
            long(one.memory, "B"),
        ]
        row += ["none alone" if one.seconds is None else seconds(one.seconds)] if times else []
        table.add_row(Name(one.entry), Name(one.exit), *row)
    return table


def _replaced(chosen: tuple[Replacement, ...]) -> Table:
    table = empty_table()
    for title in ("entry", "exit", "gives way to", "saves", "foreseen error"):
        table.add_column(title)
    for one in chosen:
        kind = str(one).rpartition(": ")[2]
        error = "" if one.error is None else f"{percent(one.error)} of the variance"
        table.add_row(Name(compact(one.entry)), Name(compact(one.exit)), kind, one.savings, error)
    return table
