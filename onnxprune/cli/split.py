"""``onnxprune split``: where to cut a model for several machines, and the parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.files import Paths, save_plot
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, only
from onnxprune.cli.reading import Reading, read_and_analyze
from onnxprune.cli.result import show_certificate
from onnxprune.cli.splitting import chain_table, show_cuts, show_parts, show_proof
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.units import parse_link, parse_quantity
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples
    from onnxprune.ir.model import Model
    from onnxprune.pruning.pipeline import Compression
    from onnxprune.splitting.costs import Ledger
    from onnxprune.splitting.cuts import Cut
    from onnxprune.splitting.weighing import CutCost, Setting, Weighing
    from onnxprune.splitting.wire import Rounding

_SAMPLES, _JUDGED = 64, 256
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
    budgets: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES,BYTES",
            help="Instead: parts for these memories, weights and activations, like 256kB,512kB.",
            show_default=False,
        ),
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(min=2, help="Or so many parts, the largest as small as can be.", show_default=False),
    ] = None,
    max_wire: Annotated[
        float | None,
        typer.Option(
            parser=parse_quantity,
            metavar="BYTES",
            help="Remove channels until no more cross, like 20kB; with --calibrate, what is left is fitted anew.",
            show_default=False,
            rich_help_panel=_WIRE,
        ),
    ] = None,
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
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot the cuts: bytes on the wire and latency, or the head's MACs; as .png, .svg or .pdf.",
            show_default=False,
        ),
    ] = None,
    input_shape: InputShapeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find where to cut a model for several machines, and write the parts with their proof."""
    if output is None and (at is not None or max_wire is not None):
        raise UsageError("--at and --max-wire are about parts that are written; say with -o where they go")
    chained = budgets is not None or parts is not None
    if chained and (at is not None or max_wire is not None or best is not None or (budgets and parts)):
        raise UsageError("--budgets or --parts choose the cuts by themselves; give one of them alone")
    if max_wire is not None and coding == "packed":
        raise UsageError("--max-wire counts bytes that are known beforehand; give --coding plain, float16 or int8")
    if plot is not None:
        from onnxprune.report.figures import plot_format

        plot_format(plot)
    terminal = Terminal(as_json)
    paths = Paths()
    paths.read_models(model)
    paths.read(edge, cloud)
    paths.read_data(calibrate)
    if plot is not None:
        paths.write(plot)
    if output is not None:
        from onnxprune.splitting.writing import check_folder

        check_folder(output)
    setting = _setting(coding, link, edge, cloud, joules)
    if best is not None and best not in setting.objectives:
        raise UsageError(f"--best {best} is not known here; choose one of {', '.join(setting.objectives)}")
    reading = read_and_analyze(terminal, model, input_shape)
    with terminal.step("Finding cuts"):
        from onnxprune.splitting.costs import Ledger
        from onnxprune.splitting.weighing import weigh

        ledger = Ledger(reading.analysis)
    named = None if at is None else [name.strip() for name in at.split(",")]
    fit, unseen = _samples(terminal, reading, calibrate)
    ranges = _ranges(terminal, reading, ledger, fit, most, named)
    with terminal.step("Weighing cuts"):
        packed = {name: one.packed for name, one in ranges.items()} if fit is not None else None
        found = weigh(ledger, setting, most=most, packed=packed, at=named)
    if plot is not None:
        from onnxprune.report.figures import cuts as drawn

        save_plot(drawn(found), plot)
        terminal.show(f"Wrote {plot}.", "")
    if chained:
        with terminal.step("Finding a chain"):
            cuts = _chain(ledger, budgets, parts, most, coding)
        job = _Job(reading.model, output, coding, ranges, unseen)
        _write_chain(terminal, job, ledger, cuts, model)
        return
    if output is None:
        terminal.json({"model": str(model), **found.to_dict()})
        if not as_json:
            show_cuts(terminal, found, every)
        return
    chosen = found.at(named) if named is not None else _best(found, best)
    from onnxprune.splitting.splitting import split_at

    source, pruned = reading.model, None
    if max_wire is not None and not found.value(chosen, "wire") <= max_wire:  # unknown is too much
        pruned = _narrowed(terminal, reading, chosen, max_wire, coding, calibrate)
        source = pruned.model
        ledger, chosen, ranges = _again(terminal, source, reading, setting, chosen, fit, most)
    assert chosen.cut is not None  # a cut, not all on one side
    with terminal.step("Cutting and proving"):
        made = split_at(
            source, ledger, [chosen.cut], coding=coding, ranges=ranges, samples=unseen, reference=reading.model
        )
    with terminal.step(f"Writing {output.name}"):
        manifest = made.save(output)
    told = {} if pruned is None else {"plan": pruned.plan.to_dict(), "costs": dict(pruned.plan.after)}
    terminal.json({"model": str(model), "output": str(output), "cut": chosen.to_dict(), "manifest": manifest, **told})
    if not as_json:
        if pruned is not None and pruned.certificate is not None:
            show_certificate(terminal, pruned.certificate)
        show_parts(terminal, made, found, chosen)
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


def _best(found: Weighing, objective: str | None) -> CutCost:
    """The cut to take where none is named. Raises UsageError."""
    objective = objective or ("latency" if "latency" in found.objectives else "wire")
    one = found.best(objective)
    if one is None and any(cut.cut is not None for cut in found.cuts):
        raise UsageError(f"--best {objective}: of no cut it is known, sizes follow from the data; name a cut with --at")
    if one is None:
        raise UsageError(f"the model cannot be cut: {found.note}")
    return one


def _chain(ledger: Ledger, budgets: str | None, parts: int | None, most: int, coding: str) -> tuple[Cut, ...]:
    """The cuts for memories, or into so many parts. Raises BudgetError."""
    from onnxprune.splitting.chain import chain_within, even_chain

    if budgets is None:
        return even_chain(ledger, parts or 2, most=most, coding=coding)
    return chain_within(ledger, [parse_quantity(text) for text in budgets.split(",")], most=most, coding=coding)


@dataclass(frozen=True)
class _Job:
    """What becomes of a chain."""

    source: Model
    output: Path | None
    coding: str
    ranges: Mapping[str, Rounding]
    samples: Samples | None


def _write_chain(terminal: Terminal, job: _Job, ledger: Ledger, cuts: Sequence[Cut], model: Path) -> None:
    """Show the parts of a chain, and write them if they are asked for."""
    from onnxprune.splitting.chain import costs_of
    from onnxprune.splitting.splitting import split_at

    costs = costs_of(ledger, cuts)
    wires = [sum(ledger.bytes_of(name, job.coding) for name in cut.tensors) for cut in cuts]
    data = {"parts": [cost.to_dict() for cost in costs], "wire": wires, "cuts": [list(cut.tensors) for cut in cuts]}
    terminal.show(chain_table(costs, cuts, wires), "")
    if job.output is None:
        terminal.json({"model": str(model), **data})
        return
    with terminal.step("Cutting and proving"):
        made = split_at(
            job.source, ledger, cuts, coding=job.coding, ranges=job.ranges, samples=job.samples, reference=job.source
        )
    with terminal.step(f"Writing {job.output.name}"):
        manifest = made.save(job.output)
    terminal.json({"model": str(model), "output": str(job.output), **data, "manifest": manifest})
    show_proof(terminal, made)
    terminal.show(f"Wrote {job.output}: {', '.join(part['file'] for part in manifest['parts'])}, manifest.json.")


def _narrowed(
    terminal: Terminal, reading: Reading, chosen: CutCost, most: float, coding: str, calibrate: str | None
) -> Compression:
    """The model with fewer channels across a cut. Raises BudgetError."""
    from onnxprune.pruning.options import JobOptions, PlanOptions
    from onnxprune.splitting.narrowing import WireSize, narrowed

    wire = WireSize(chosen.tensors, coding)
    with terminal.step("Removing channels"):
        options = PlanOptions(round_to=1, input_shapes=reading.shapes)
        return narrowed(reading.model, wire, most, options, JobOptions(calibration=calibrate))


def _again(
    terminal: Terminal,
    source: Model,
    reading: Reading,
    setting: Setting,
    chosen: CutCost,
    samples: Samples | None,
    most: int,
) -> tuple[Ledger, CutCost, dict[str, Rounding]]:
    """The same cut of a model with fewer channels; times are not known of it."""
    from onnxprune.analysis.analyzing import analyze
    from onnxprune.splitting.costs import Ledger
    from onnxprune.splitting.weighing import Setting as Weighed
    from onnxprune.splitting.weighing import weigh
    from onnxprune.splitting.wire import roundings

    ledger = Ledger(analyze(source, reading.shapes))
    found = weigh(ledger, Weighed(setting.coding, energy=setting.energy), most=most, at=chosen.tensors).at(
        chosen.tensors
    )
    if samples is None:
        return ledger, found, {}
    with terminal.step("Running samples"):
        return ledger, found, roundings(ledger.analysis.model, samples, found.tensors)


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
    terminal: Terminal, reading: Reading, ledger: Ledger, samples: Samples | None, most: int, named: list[str] | None
) -> dict[str, Rounding]:
    """What tensors that may cross take as bytes, where there are samples."""
    if samples is None:
        return {}
    from onnxprune.splitting.cuts import find_cuts
    from onnxprune.splitting.wire import roundings

    with terminal.step("Running samples"):
        cuts = find_cuts(ledger.flow, most).found
        names = {name for cut in cuts for name in cut.tensors}.union(ledger.graph.inputs, named or ())
        return roundings(reading.analysis.model, samples, names)
