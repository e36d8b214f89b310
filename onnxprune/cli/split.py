"""``onnxprune split``: where to cut a model for several machines, and the parts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import long, percent, seconds, short
from onnxprune.cli.files import Paths
from onnxprune.cli.names import Name
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, only
from onnxprune.cli.reading import Reading, read_and_analyze
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.units import parse_link
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from onnxprune.data.samples import Samples
    from onnxprune.splitting.costs import Ledger
    from onnxprune.splitting.splitting import Splitting
    from onnxprune.splitting.weighing import CutCost, Setting, Split
    from onnxprune.splitting.wire import Rounding

_SAMPLES, _JUDGED = 64, 256
_MOST_ROWS = 24
_TITLES = {"wire": "wire", "macs": "MACs of the head", "memory": "memory of the head"}
_WIRE, _COSTS = "What crosses", "What is known"


def split(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="A new folder for the parts.", show_default=False),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TENSOR[,TENSOR]", help="Cut here. Else at the best cut.", show_default=False),
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the best cut is best in: wire, macs, memory, latency or energy.",
            show_default="latency where it is known, else wire",
        ),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Tensors that may cross.", rich_help_panel=_WIRE)] = 3,
    coding: Annotated[
        str,
        typer.Option(help="How floats cross: plain, float16, int8, or packed (int8 and zlib).", rich_help_panel=_WIRE),
    ] = "plain",
    calibrate: only("calibration") = None,  # type: ignore[valid-type]
    link: Annotated[
        str | None,
        typer.Option(
            metavar="RATE/DELAY",
            help="The link, like 10Mbit/20ms; the delay is one way.",
            show_default=False,
            rich_help_panel=_COSTS,
        ),
    ] = None,
    edge: Annotated[
        Path | None,
        typer.Option(
            metavar="TIMES",
            help="Times of the head's machine (onnxprune profile).",
            show_default=False,
            rich_help_panel=_COSTS,
        ),
    ] = None,
    cloud: Annotated[
        Path | None,
        typer.Option(metavar="TIMES", help="Times of the tail's machine.", show_default=False, rich_help_panel=_COSTS),
    ] = None,
    joules: Annotated[
        str | None,
        typer.Option(
            metavar="BIT,MAC",
            help="Joules per bit sent and per MAC, like 1e-7,1e-11.",
            show_default=False,
            rich_help_panel=_COSTS,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--every", help="List every cut, not only those that no other beats.")] = False,
    input_shape: InputShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find where to cut a model for two machines, and write both parts with their proof."""
    if at is not None and output is None:
        raise UsageError("--at says where to cut; say with -o where the parts go, too")
    terminal = Terminal(as_json)
    paths = Paths()
    paths.read_models(model)
    paths.read(edge, cloud)
    paths.read_data(calibrate)
    if output is not None:
        from onnxprune.splitting.writing import check_folder

        check_folder(output)
    setting = _setting(coding, link, edge, cloud, joules)
    reading = read_and_analyze(terminal, model, input_shape)
    with terminal.step("Finding cuts"):
        from onnxprune.splitting.costs import Ledger
        from onnxprune.splitting.weighing import weigh

        ledger = Ledger(reading.analysis)
    fit, unseen = _samples(terminal, reading, calibrate)
    ranges = _ranges(terminal, reading, ledger, fit, most)
    with terminal.step("Weighing cuts"):
        packed = {name: one.packed for name, one in ranges.items()} if fit is not None else None
        found = weigh(ledger, setting, most=most, packed=packed)
    if output is None:
        terminal.json({"model": str(model), **found.to_dict()})
        if not as_json:
            _show(terminal, found, every)
        return
    chosen = found.at(at.split(",")) if at is not None else _best(found, best)
    assert chosen.cut is not None  # a cut, not all on one side
    from onnxprune.splitting.splitting import split_at

    with terminal.step("Cutting and proving"):
        made = split_at(reading.model, ledger, [chosen.cut], coding=coding, ranges=ranges, samples=unseen)
    with terminal.step(f"Writing {output.name}"):
        manifest = made.save(output)
    terminal.json({"model": str(model), "output": str(output), "cut": chosen.to_dict(), "manifest": manifest})
    if not as_json:
        _show_parts(terminal, made, found, chosen)
        terminal.show(f"Wrote {output}: {', '.join(part['file'] for part in manifest['parts'])}, manifest.json.")


def _setting(coding: str, link: str | None, edge: Path | None, cloud: Path | None, joules: str | None) -> Setting:
    """What cuts are weighed by. Raises UsageError and DataError."""
    from onnxprune.latency.times import Times
    from onnxprune.splitting.links import Energy, Link
    from onnxprune.splitting.weighing import Setting

    energy = None
    if joules is not None:
        try:
            bit, mac = (float(part) for part in joules.split(","))
        except ValueError:
            raise UsageError(f"--joules '{joules}' is not BIT,MAC; write it like 1e-7,1e-11") from None
        energy = Energy(bit, mac)
    return Setting(
        coding,
        None if link is None else Link(*parse_link(link)),
        None if edge is None else Times.load(edge),
        None if cloud is None else Times.load(cloud),
        energy,
    )


def _best(found: Split, objective: str | None) -> CutCost:
    """The cut to take where none is named. Raises UsageError."""
    objective = objective or ("latency" if "latency" in found.objectives else "wire")
    if objective not in found.objectives:
        raise UsageError(f"--best {objective} is not known here; choose one of {', '.join(found.objectives)}")
    one = found.best(objective)
    if one is None:
        raise UsageError(f"the model cannot be cut: {found.note}")
    return one


def _samples(terminal: Terminal, reading: Reading, calibrate: str | None) -> tuple[Samples | None, Samples | None]:
    """Samples that ranges follow from, and others that answers are measured on."""
    if calibrate is None:
        return None, None
    from onnxprune.data.samples import collect_both
    from onnxprune.pruning.calibration import sourced

    with terminal.step("Reading data"):
        fit, unseen, _ = collect_both(sourced(calibrate, reading.model), reading.model, _SAMPLES, evaluate=_JUDGED)
    return fit, unseen


def _ranges(
    terminal: Terminal, reading: Reading, ledger: Ledger, samples: Samples | None, most: int
) -> dict[str, Rounding]:
    """What tensors that may cross take as bytes, where there are samples."""
    if samples is None:
        return {}
    from onnxprune.splitting.cuts import find_cuts
    from onnxprune.splitting.wire import roundings

    with terminal.step("Running samples"):
        cuts = find_cuts(ledger.flow, most).found
        names = {name for cut in cuts for name in cut.tensors}.union(ledger.graph.inputs)
        return roundings(reading.analysis.model, samples, names)


def _show(terminal: Terminal, found: Split, every: bool) -> None:
    cuts = [cut for cut in found.cuts if cut.cut is not None]
    rows = [cut for cut in cuts if every or cut.best]
    shown = rows if every else rows[:_MOST_ROWS]
    terminal.show(_table(found, [*shown, *found.cuts[len(cuts) :]]), "")
    left = f" ({len(rows) - len(shown)} more: --every)" if len(rows) > len(shown) else ""
    terminal.show(
        f"{len(cuts)} cuts; {len(rows)} that no other beats are listed{left}." if not every else f"{len(cuts)} cuts."
    )
    for objective in found.objectives:
        one = found.best(objective)
        if one is not None:
            terminal.show(f"Best for {_TITLES.get(objective, objective)}: {', '.join(one.tensors)}.")
    if found.note:
        terminal.show(f"{found.note[0].upper()}{found.note[1:]}.", style="yellow")


def _show_parts(terminal: Terminal, made: Splitting, found: Split, chosen: CutCost) -> None:
    """What was cut, what it costs, and the proof."""
    terminal.show(f"Cut at {', '.join(chosen.tensors)}: {long(found.value(chosen, 'wire'), 'B')} cross.")
    for name, cost, part in zip(("Head", "Tail"), made.costs, made.parts, strict=False):
        terminal.show(
            f"{name}: {short(cost.macs)} MACs, {long(cost.weights, 'B')} of weights, {long(cost.peak, 'B')} of "
            f"activations at most, {long(part.file_size, 'B')} as a file."
        )
    if chosen.latency is not None:
        terminal.show(
            f"Predicted: {seconds(chosen.head_seconds or 0)} here, {seconds(chosen.tail_seconds or 0)} there, "
            f"{seconds(chosen.latency)} from input to answer."
        )
    terminal.show(made.certificate.sentence)
    if made.coded is not None:
        terminal.show(f"As written, with {made.coding} between them: {made.coded.sentence}")
        if made.fidelity is None:
            terminal.show(
                "What rounding leaves of the answers is not known; give samples with --calibrate.", style="yellow"
            )
        for answer in made.fidelity.answers if made.fidelity is not None else ():
            terminal.show(answer.sentence)


def _table(found: Split, rows: list[CutCost]) -> Table:
    from onnxprune.cli.tables import empty_table

    timed, energy = "latency" in found.objectives, "energy" in found.objectives
    table = empty_table()
    table.add_column("cut at")
    titles = ["wire", "head MACs", "%", "memory"] + ["head", "tail", "latency"] * timed + ["energy"] * energy
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    whole = max((row.head.macs + row.tail.macs for row in rows), default=0.0)
    places = {"edge": "(all in the head)", "cloud": "(all in the tail)"}
    names = {id(row): places.get(row.place) or ", ".join(row.tensors) for row in rows}
    for row in rows:
        cells = [
            short(found.value(row, "wire")),
            short(row.head.macs),
            percent(row.head.macs / whole).removesuffix(" %") if whole else "-",
            short(row.head.memory),
        ]
        if timed:
            cells += [
                seconds(value) if value is not None else "-"
                for value in (row.head_seconds, row.tail_seconds, row.latency)
            ]
        if energy:
            cells.append(f"{short(1e3 * (row.energy or 0.0))} mJ")
        table.add_row(Name(names[id(row)], among=tuple(names.values())), *cells)
    return table
