"""``onnxprune sensitivity``: which groups of channels the outputs depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, SplitOption
from onnxprune.cli.reading import read_and_analyze
from onnxprune.cli.result import synthetic_lines
from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from onnxprune.pruning.sensitivity import Sensitivity


def sensitivity(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Option(
            "--calibrate",
            "--data",
            metavar="SPEC",
            help="Calibration samples, labels not needed: .npz, folder, or module:function.",
            show_default=False,
        ),
    ],
    samples: Annotated[int, typer.Option(min=1, help="How many to use.")] = 64,
    criterion: Annotated[str, typer.Option(help="Which channels of a group go first; see prune.")] = "refit",
    split: SplitOption = "finest",
    input_shape: InputShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what the outputs lose when one group of channels shrinks; kept for prune --allocation global."""
    terminal = Terminal(as_json)
    reading = read_and_analyze(terminal, model, input_shape, split)
    with terminal.step("Scanning") as tell:
        from onnxprune.data.samples import collect
        from onnxprune.ir.caches import default_folder
        from onnxprune.pruning.calibration import sourced
        from onnxprune.pruning.sensitivity import SensitivityCache, scan_sensitivity

        chosen = collect(sourced(data, reading.model), reading.model, samples)
        scan = scan_sensitivity(reading.analysis, chosen, criterion=criterion, progress=tell)
        path = SensitivityCache(default_folder()).write(reading.analysis.model, chosen, scan)
    terminal.json({"model": str(model), "kept_in": str(path), **scan.to_dict()})
    if not as_json:
        _show(terminal, scan)
        for line in synthetic_lines(chosen.made):
            terminal.show(line, style="yellow")
        terminal.show("", f"Kept in {path}.")


def _show(terminal: Terminal, scan: Sensitivity) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    table.add_column("layers")
    table.add_column("units", justify="right")
    for fraction in scan.groups[0].fractions if scan.groups else ():
        table.add_column(f"-{fraction:.0%}", justify="right")
    for group in sorted(scan.groups, key=lambda curve: -curve.damage[0]):
        more = f" and {len(group.layers) - 1} more" if len(group.layers) > 1 else ""
        table.add_row(
            f"{group.layers[0]}{more}" if group.layers else "",
            str(group.units),
            *(f"{damage:.4f}" for damage in group.damage),
        )
    terminal.show(
        table,
        "",
        f"Damage to the outputs on {scan.samples} samples, one group at a time, with the layers "
        "behind it refitted: KL divergence of classes in nats, or squared error over variance.",
    )
