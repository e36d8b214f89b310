"""Tables for 80 columns and more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from onnxprune._display import TOTALS, long, percent, short, some
from onnxprune.cli.names import Name

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis, LayerReport
    from onnxprune.analysis.prunability import Summary
    from onnxprune.pruning.comparison import Comparison, LayerChange

_NARROW_OP = 9


def empty_table() -> Table:
    """A table in the style of all."""
    return Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
        collapse_padding=True,
        header_style="bold",
    )


def layer_table(analysis: Analysis, wide: bool) -> Table:
    """Every layer, what it costs, and how many of its filters may go."""
    table = empty_table()
    table.add_column("layer")
    table.add_column("op", no_wrap=True, max_width=None if wide else _NARROW_OP)
    for title in ("prunable", "params", "MACs", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
        if title == "MACs" or (wide and title != "prunable"):
            table.add_column("%", justify="right", no_wrap=True, style="dim")
    table.add_column("group", justify="right", no_wrap=True)
    names = tuple(layer.name for layer in analysis.layers)
    for layer in analysis.layers:
        table.add_row(*_layer_row(layer, wide, names))
    return table


def _layer_row(layer: LayerReport, wide: bool, names: Sequence[str]) -> list[Name | Text | str]:
    style = "" if layer.prunable == layer.channels else "yellow"
    row: list[Name | Text | str] = [
        Name(layer.name, layer.op_type, names),
        layer.op_type,
        Text(f"{layer.prunable}/{layer.channels}", style=style),
        short(layer.params),
    ]
    share = {metric: f"{100 * value:.1f}" for metric, value in layer.shares.items()}
    row += [share["params"]] if wide else []
    row += [short(layer.flops), share["flops"], short(layer.memory)]
    row += [share["memory"]] if wide else []
    return [*row, _groups(layer.groups)]


def _groups(indices: Sequence[int]) -> str:
    if len(indices) <= 2:
        return ",".join(map(str, indices)) or "-"
    return f"{len(indices)} groups"


def pinned_table(summary: Summary) -> Table:
    """Why filters must stay, and in which layers."""
    table = empty_table()
    table.add_column("pinned because")
    table.add_column("% of MACs", justify="right", no_wrap=True)
    table.add_column("layers")
    for pinned in summary.pinned:
        table.add_row(pinned.reason, f"{100 * pinned.share:.1f}", some(pinned.layers))
    return table


def change_table(comparison: Comparison, wide: bool) -> Table:
    """Every layer before and after."""
    table = empty_table()
    table.add_column("layer")
    table.add_column("op", no_wrap=True, max_width=None if wide else _NARROW_OP)
    for title in ("channels", "params", "MACs", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    names = tuple(layer.name for layer in comparison.layers)
    for layer in comparison.layers:
        table.add_row(*_change_row(layer, names))
    return table


def _change_row(layer: LayerChange, names: Sequence[str]) -> list[Name | Text | str]:
    old, new = layer.before, layer.after
    return [
        Name(layer.name, layer.op_type, names),
        layer.op_type,
        _change(str(old.channels), str(new.channels)),
        _change(short(old.params), short(new.params)),
        _change(short(old.flops), short(new.flops)),
        _change(short(old.memory), short(new.memory)),
    ]


def _change(before: str, after: str) -> Text:
    if before == after:
        return Text(before, style="dim")
    return Text.assemble((f"{before}→", "dim"), after)


def totals_table(before: Mapping[str, float], after: Mapping[str, float]) -> Table:
    """Totals before and after, and the percentage removed."""
    table = empty_table()
    table.add_column("total")
    for title in ("before", "after", "removed"):
        table.add_column(title, justify="right", no_wrap=True)
    for key, (title, unit) in TOTALS.items():
        if key in before:
            old, new = before[key], after[key]
            removed = percent(1 - new / old) if old else "-"
            table.add_row(title, long(old, unit), long(new, unit), Text(removed, style="green"))
    return table
