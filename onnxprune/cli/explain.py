"""``onnxprune explain``: why a layer can or cannot shrink."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.styled import Styled
from rich.table import Table

from onnxprune._display import compact
from onnxprune.cli.files import Paths, save_text
from onnxprune.cli.names import Name, resolve
from onnxprune.cli.options import InputShapeOption, JsonOption, ModelArgument, SplitOption, StateOption, carried_state
from onnxprune.cli.reading import read_and_analyze
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.analysis.analyzing import Analysis
    from onnxprune.analysis.explain import Bundle, Explanation, Pinning, Step

_MOST_PINS = 5


def explain(
    model: ModelArgument,
    layer: Annotated[
        str | None, typer.Argument(help="A layer's name, as 'onnxprune analyze' shows it.", show_default=False)
    ] = None,
    regions: Annotated[
        bool, typer.Option("--regions", help="List the regions that may give way, and what they cost.")
    ] = False,
    times: Annotated[bool, typer.Option("--times", help="With --regions: time each region alone, too.")] = False,
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Tell which regions give way by this plan, and why.", show_default=False),
    ] = None,
    dot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the coupling graph for Graphviz.", show_default=False),
    ] = None,
    graphml: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the coupling graph as GraphML.", show_default=False),
    ] = None,
    input_shape: InputShapeOption = None,
    split: SplitOption = "finest",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a layer's filters are coupled with, through which nodes, and what pins them.

    Without LAYER, list regions, or write the coupling graph of the whole model.
    """
    of_regions = regions or plan is not None
    named = layer is not None or dot is not None or graphml is not None
    if not named and not of_regions:
        raise UsageError(
            "give a layer ('onnxprune analyze' lists them), a file for the graph (--dot or --graphml), "
            "or ask for --regions or a --plan"
        )
    if named and of_regions:
        raise UsageError("--regions and --plan tell of the whole model; leave out the layer, --dot and --graphml")
    if times and not regions:
        raise UsageError("--times goes with --regions")
    terminal = Terminal(as_json)
    paths = Paths()
    paths.read_models(model)
    if plan is not None:
        paths.read(plan)
    paths.write(dot, graphml)
    analysis = read_and_analyze(terminal, model, input_shape, split, state=carried_state(state)).analysis
    if of_regions:
        from onnxprune.cli.regions import show_regions

        show_regions(terminal, analysis, plan, times=regions and times, all_of_them=regions)
        return
    from onnxprune.analysis.explain import explain as find_out

    if layer is not None:
        layer = resolve(layer, [(report.name, report.op_type) for report in analysis.layers])
        explanation = find_out(analysis, layer)
        terminal.json(explanation.to_dict())
        if not as_json:
            _show(terminal, analysis, explanation)
    _write_graphs(terminal, analysis, layer, dot, graphml)


def _write_graphs(
    terminal: Terminal, analysis: Analysis, layer: str | None, dot: Path | None, graphml: Path | None
) -> None:
    if dot is None and graphml is None:
        return
    from onnxprune.analysis.explain import coupling_graph
    from onnxprune.cli.graphs import to_dot, to_graphml

    network = coupling_graph(analysis, layer)
    for path, write in ((dot, to_dot), (graphml, to_graphml)):
        if path is not None:
            save_text(write(network), path)
            size = f"{network.number_of_nodes()} axes, {network.number_of_edges()} relations"
            terminal.show(f"Wrote {path} ({size}).")
    if layer is None:
        terminal.json({"axes": network.number_of_nodes(), "relations": network.number_of_edges()})


def _show(terminal: Terminal, analysis: Analysis, explanation: Explanation) -> None:
    pinned = explanation.channels - explanation.prunable
    terminal.show(explanation.layer, style="bold")
    terminal.show(
        f"{explanation.op_type}, {explanation.channels} output channels on {explanation.axis}: "
        f"{explanation.prunable} may go, {pinned} must stay."
    )
    if explanation.note is not None:
        terminal.show(f"They must stay because {explanation.note}.")
    for bundle in explanation.bundles:
        terminal.show("", _title(analysis, explanation, bundle), style="bold")
        if bundle.approximate is not None:
            exact = " (exact with --exact-norm)" if bundle.mendable else ""
            terminal.show(f"Approximate{exact}: {bundle.approximate}.", style="yellow")
        _show_pins(terminal, bundle.pins)
        _show_layers(terminal, bundle)
        terminal.show(Padding(_axis_table(bundle), (1, 0, 0, 2)))


def _title(analysis: Analysis, explanation: Explanation, bundle: Bundle) -> str:
    count = len(bundle.channels)
    which = f"All {count}" if count == explanation.channels else f"{count} of {explanation.channels}"
    channels = f"{which} channels" + ("" if count == explanation.channels else f" ({ranges(bundle.channels)})")
    if bundle.group is None:
        return f"{channels} are pinned"
    atoms = analysis.groups[bundle.group].atoms
    text = f"{channels} belong to group {bundle.group}: {atoms} atoms of {count / atoms:g} channels each"
    if bundle.together > 1:
        text += f", of which {bundle.together} go at a time, one from each run (grouped convolution)"
    return text


def ranges(positions: Sequence[int], most: int = 4) -> str:
    """Ascending positions in short: ``0-31, 40``."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return ", ".join(words[:most]) + (", …" if len(words) > most else "")


def _show_pins(terminal: Terminal, pins: Sequence[Pinning]) -> None:
    for pin in pins[:_MOST_PINS]:
        terminal.show(Padding(Styled(f"{pin.reason}: {pin.node} at {pin.axis}", "yellow"), (0, 0, 0, 2)))
        if pin.path:
            terminal.show(Padding(_via(pin.path), (0, 0, 0, 4)))
    if len(pins) > _MOST_PINS:
        terminal.show(f"  and {len(pins) - _MOST_PINS} more pins (--json has them all)")


def _show_layers(terminal: Terminal, bundle: Bundle) -> None:
    for loses in ("filters", "inputs"):
        found = [layer for layer in bundle.layers if layer.loses == loses]
        if found:
            terminal.show(f"  With them, these layers lose {loses}:")
        for layer in found:
            terminal.show(Padding(f"{layer.name} ({layer.op_type})", (0, 0, 0, 4)))
            terminal.show(Padding(_via(layer.path), (0, 0, 0, 6)))


def _via(path: Sequence[Step]) -> Styled:
    """The nodes on a path; one that makes several steps is named once."""
    nodes: list[str] = []
    for step in path:
        name = compact(step.node)
        title = name if step.op_type.lower() in name.lower() else f"{step.op_type} {name}"
        if not nodes or nodes[-1] != title:
            nodes.append(title)
    return Styled(f"through {' → '.join(nodes)}", "dim")


def _axis_table(bundle: Bundle) -> Table:
    """Every coupled axis, the node that couples it, and the row of the axis that it is coupled to."""
    from onnxprune.cli.tables import empty_table

    table = empty_table()
    table.add_column("#", justify="right", no_wrap=True)
    table.add_column("coupled axis")
    table.add_column("through")
    table.add_column("from", justify="right", no_wrap=True)
    row = {bundle.axes[0].axis: 0}
    for number, coupled in enumerate(bundle.axes):
        row[coupled.axis] = number
        if not coupled.path:
            table.add_row(str(number), Name(str(coupled.axis)), "the layer itself", "")
            continue
        last = coupled.path[-1]
        before = coupled.path[-2].axis if len(coupled.path) > 1 else bundle.axes[0].axis
        table.add_row(str(number), Name(str(coupled.axis)), Name(last.node), str(row[before]))
    return table
