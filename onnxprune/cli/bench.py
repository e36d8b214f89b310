"""``onnxprune bench``: the latency of models, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import long, seconds
from onnxprune.cli.latency import ProviderOption, RuntimeOption, ThreadsOption
from onnxprune.cli.names import Name, apart
from onnxprune.cli.options import InputShapeOption, JsonOption, shapes_for_each
from onnxprune.cli.reading import read
from onnxprune.cli.terminal import Terminal

if TYPE_CHECKING:
    from rich.table import Table

    from onnxprune.latency.bench import Bench, ModelTimes


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="ONNX files; the first is the reference.", show_default=False),
    ],
    threads: ThreadsOption = 1,
    inter_threads: Annotated[int, typer.Option(min=1, help="Operators that may run at the same time.")] = 1,
    provider: ProviderOption = "CPUExecutionProvider",
    runtime: RuntimeOption = "onnxruntime",
    input_shape: InputShapeOption = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Rounds, each model once per round; without it, 10 to 200 in about --seconds.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure, about.")] = 5.0,
    warmup: Annotated[int, typer.Option(min=1, help="Runs of each model that do not count.")] = 3,
    per_operator: Annotated[
        bool, typer.Option("--per-operator", help="Time per operator type and per node, too.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="How many nodes to show, the slowest first.")] = 10,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Do not measure peak memory.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the latency of models side by side, with its spread, and their peak memory."""
    terminal = Terminal(as_json)
    loaded = [read(terminal, path) for path in models]
    shapes = shapes_for_each(input_shape, loaded)
    with terminal.step("Measuring"):
        from onnxprune.ir.sampling import Rounds, exactly
        from onnxprune.latency.bench import bench as measure

        result = measure(
            *models,
            threads=threads,
            inter_threads=inter_threads,
            provider=provider,
            runtime=runtime,
            input_shapes=shapes,
            rounds=Rounds(warmup=warmup, seconds=seconds) if rounds is None else exactly(rounds, warmup),
            memory=not no_memory,
            per_operator=per_operator,
        )
    terminal.json(result.to_dict())
    if not as_json:
        _show(terminal, result, top)


def _show(terminal: Terminal, result: Bench, top: int) -> None:
    terminal.show(_latency_table(result, terminal.wide), "")
    for subject in result.subjects:
        if subject.nodes:
            terminal.show(subject.name, style="bold")
            terminal.show(_type_table(subject, result.engine.runtime), "", _node_table(subject, top), "")
    inputs = "; ".join(dict.fromkeys(_inputs(subject) for subject in result.subjects))
    terminal.show(
        f"{result.engine.runtime} with {result.engine}; {result.subjects[0].latency.count} rounds. Inputs: {inputs}."
    )
    if result.noise:
        terminal.show(f"{result.noise[0].upper()}{result.noise[1:]}.", style="yellow")


def _latency_table(result: Bench, wide: bool) -> Table:
    from onnxprune.cli.tables import empty_table

    table = empty_table()
    table.add_column("model")
    # What tells models apart comes first: in a narrow table, their names.
    titles = ["median", "ratio", "95 % interval", "layers"] + [
        "middle half",
        "fastest",
        "peak memory",
        "of it model",
    ] * wide
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    names = apart([subject.name for subject in result.subjects])
    for name, subject in zip(names, result.subjects, strict=True):
        time, ratio, memory = subject.latency, subject.ratio, subject.memory
        row = [
            seconds(time.median),
            "1" if ratio is None else f"{ratio.median:.3f}",
            "" if ratio is None else f"{ratio.low:.3f} to {ratio.high:.3f}",
            _layers(subject),
            f"{seconds(time.lower)} to {seconds(time.upper)}",
            seconds(time.fastest),
            "-" if memory is None else long(memory.peak, "B"),
            "-" if memory is None else long(memory.model, "B"),
        ]
        table.add_row(Name(name, among=names), *row[: len(titles)])
    return table


def _layers(subject: ModelTimes) -> str:
    """How many run in which numbers."""
    told = [f"{count} {name}" for name, count in (subject.layers or {}).items() if count]
    return ", ".join(told) or "-"


def _type_table(subject: ModelTimes, runtime: str) -> Table:
    from onnxprune.cli.tables import empty_table
    from onnxprune.ir.tracing import by_type

    table = empty_table()
    table.add_column(f"operator type, as {runtime} runs it")
    for title in ("nodes", "time", "%"):
        table.add_column(title, justify="right", no_wrap=True)
    total = sum(node.seconds for node in subject.nodes)
    for entry in by_type(subject.nodes):
        table.add_row(entry.op_type, str(entry.count), seconds(entry.seconds), _share(entry.seconds, total))
    return table


def _node_table(subject: ModelTimes, top: int) -> Table:
    from onnxprune.cli.tables import empty_table

    table = empty_table()
    table.add_column(f"slowest {min(top, len(subject.nodes))} of {len(subject.nodes)} nodes")
    table.add_column("op")
    for title in ("time", "%"):
        table.add_column(title, justify="right", no_wrap=True)
    total = sum(node.seconds for node in subject.nodes)
    names = tuple(node.name for node in subject.nodes)
    for node in sorted(subject.nodes, key=lambda node: -node.seconds)[:top]:
        table.add_row(
            Name(node.name, node.op_type, names), node.op_type, seconds(node.seconds), _share(node.seconds, total)
        )
    return table


def _share(part: float, total: float) -> str:
    return f"{100 * part / total:.1f}" if total else "-"


def _inputs(subject: ModelTimes) -> str:
    shapes = [f"{name} {'×'.join(map(str, shape)) or 'scalar'}" for name, shape in subject.inputs.items()]
    return ", ".join(shapes) or "none"
