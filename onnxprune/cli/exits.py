"""``onnxprune exits``: how many samples may leave at an early output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import percent, seconds, short
from onnxprune.cli.files import Paths
from onnxprune.cli.names import Name
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, Offer, offering
from onnxprune.cli.reading import read_and_analyze
from onnxprune.cli.splitting import show_proof
from onnxprune.cli.tables import empty_table
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError
from onnxprune.pruning.options import PromiseOptions

if TYPE_CHECKING:
    from rich.table import Table

    from onnxprune.splitting.exits import Exits

_DATA = "Samples, labels not needed (SPEC): the threshold is chosen by some, and proven on the others."
_LOSS = "The largest true share of samples that may get another answer than the last output's, proven."


@offering
def exits(
    *,
    model: ModelArgument,
    promise: Annotated[
        PromiseOptions,
        Offer(
            ("calibration", "max_loss", "confidence"),
            helps={"calibration": _DATA, "max_loss": _LOSS},
            usual=("confidence",),
            panel="What is promised",
        ),
    ],
    exits: Annotated[
        str | None,
        typer.Option(
            metavar="EARLY,LATE",
            help="Outputs from early to late. Else all of one shape, in the order of the graph.",
            show_default=False,
        ),
    ] = None,
    certainty: Annotated[
        str,
        typer.Option(help="How sure an output is: probability (the largest) or margin (of the two largest scores)."),
    ] = "probability",
    times: Annotated[
        Path | None,
        typer.Option(metavar="TIMES", help="Times of a machine (onnxprune profile).", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="A new folder for the parts between exits.", show_default=False
        ),
    ] = None,
    input_shape: InputShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prove how many samples may leave at an early output of a model, and what that saves."""
    if promise.max_loss is None or not isinstance(promise.calibration, str):
        raise UsageError("say what may be lost, and prove it on samples: --max-loss 1% --calibrate SPEC")
    terminal = Terminal(as_json)
    paths = Paths()
    paths.read_models(model)
    paths.read(times)
    paths.read_data(promise.calibration)
    if output is not None:
        from onnxprune.splitting.writing import check_folder

        check_folder(output)
    reading = read_and_analyze(terminal, model, input_shape)
    from onnxprune.latency.times import Times
    from onnxprune.splitting.costs import Ledger
    from onnxprune.splitting.exits import early_exits

    ledger = Ledger(reading.analysis)
    known = None if times is None else Times.load(times)
    with terminal.step("Running samples"):
        found = early_exits(
            ledger,
            promise.calibration,
            max_loss=promise.max_loss,
            confidence=promise.confidence,
            exits=None if exits is None else [name.strip() for name in exits.split(",")],
            certainty=certainty,
            times=known,
        )
    made, told = None, {}
    if output is not None:
        from onnxprune.splitting.exits import exit_cuts
        from onnxprune.splitting.splitting import split_at

        with terminal.step("Cutting and proving"):
            made = split_at(reading.model, ledger, exit_cuts(ledger, [one.output for one in found.exits]))
        told = {"output": str(output), "manifest": made.save(output, exits=found.to_dict())}
    terminal.json({"model": str(model), **found.to_dict(), **told})
    if not as_json:
        terminal.show(_table(found), "", *found.sentences)
        if made is not None:
            show_proof(terminal, made)
            terminal.show(f"Wrote {output}: a part up to each exit, manifest.json.")


def _table(found: Exits) -> Table:
    timed = found.seconds is not None
    table = empty_table()
    table.add_column("leave at")
    for title in (f"{found.certainty} ≥", "leave", "differ", "MACs", *["time"] * timed, "goes on"):
        table.add_column(title, justify="right", no_wrap=True)
    names = tuple(one.output for one in found.exits)
    for one in found.exits:
        last = one is found.exits[-1]
        table.add_row(
            Name(one.output, among=names),
            "-" if last else f"{found.threshold:.8g}",
            percent(one.share),
            "-" if last else percent(one.differ),
            short(one.macs),
            *[seconds(one.seconds or 0.0)] * timed,
            "-" if last else short(one.wire),
        )
    return table
