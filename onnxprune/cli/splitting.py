"""What ``split`` shows: tables of cuts and parts, and proofs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from onnxprune._display import long, percent, seconds, short
from onnxprune.cli.names import Name
from onnxprune.cli.tables import empty_table
from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from rich.table import Table

    from onnxprune.splitting.costs import PartCost
    from onnxprune.splitting.cuts import Cut
    from onnxprune.splitting.splitting import Splitting
    from onnxprune.splitting.weighing import CutCost, Weighing

_MOST_ROWS = 24
_UNKNOWN = "unknown"
_TITLES = {"wire": "wire", "macs": "MACs of the head", "memory": "memory of the head"}


def show_cuts(terminal: Terminal, found: Weighing, every: bool) -> None:
    """The cuts that no other beats, or all, and the best for each objective."""
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


def show_parts(terminal: Terminal, made: Splitting, found: Weighing, chosen: CutCost) -> None:
    """What was cut, what it costs, and the proof."""
    terminal.show(f"Cut at {', '.join(chosen.tensors)}: {_bytes(found.value(chosen, 'wire'))} cross.")
    for name, cost, part in zip(("Head", "Tail"), made.costs, made.parts, strict=False):
        terminal.show(
            f"{name}: {short(cost.macs)} MACs, {long(cost.weights, 'B')} of weights, {_bytes(cost.peak)} of "
            f"activations at most, {long(part.file_size, 'B')} as a file."
        )
    if chosen.latency is not None:
        terminal.show(
            f"Predicted: {seconds(chosen.head_seconds or 0)} here, {seconds(chosen.tail_seconds or 0)} there, "
            f"{_known(chosen.latency, seconds)} from input to answer; the machines' peaks allow "
            f"{seconds(chosen.head_bound or 0)} and {seconds(chosen.tail_bound or 0)} for the parts."
        )
    show_proof(terminal, made)


def show_proof(terminal: Terminal, made: Splitting) -> None:
    """The certificate, and what is left of the answers."""
    terminal.show(made.certificate.sentence)
    if made.coded is not None:
        terminal.show(f"As written, with {made.coding} between them: {made.coded.sentence}")
        if made.fidelity is None:
            terminal.show(
                "What rounding leaves of the answers is not known; give samples with --calibrate.", style="yellow"
            )
        for answer in made.fidelity.answers if made.fidelity is not None else ():
            terminal.show(answer.sentence)


def _table(found: Weighing, rows: list[CutCost]) -> Table:
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
            _known(found.value(row, "wire")),
            short(row.head.macs),
            percent(row.head.macs / whole).removesuffix(" %") if whole else "-",
            _known(row.head.memory),
        ]
        if timed:
            cells += [
                _known(value, seconds) if value is not None else "-"
                for value in (row.head_seconds, row.tail_seconds, row.latency)
            ]
        if energy:
            cells.append(_known(row.energy or 0.0, lambda joules: f"{short(1e3 * joules)} mJ"))
        table.add_row(Name(names[id(row)], among=tuple(names.values())), *cells)
    return table


def _known(value: float, said: Callable[[float], str] = short) -> str:
    return said(value) if math.isfinite(value) else _UNKNOWN


def _bytes(value: float) -> str:
    return _known(value, lambda known: long(known, "B")) if math.isfinite(value) else "an unknown number of bytes"


def chain_table(costs: Sequence[PartCost], cuts: Sequence[Cut], wires: Sequence[float]) -> Table:
    """The parts of a chain."""
    table = empty_table()
    table.add_column("part", no_wrap=True)
    for title in ("MACs", "weights", "activations", "memory", "sends"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("up to")
    names = [", ".join(cut.tensors) for cut in cuts]
    for at, cost in enumerate(costs):
        figures = [short(value) for value in (cost.macs, cost.weights, cost.peak, cost.memory)]
        sends = short(wires[at]) if at < len(wires) else "-"
        table.add_row(str(at + 1), *figures, sends, Name([*names, "the end"][at], among=tuple(names)))
    return table
