"""``onnxprune normalize``, ``run`` and ``passes``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import long
from onnxprune.cli.files import Paths
from onnxprune.cli.options import (
    ExternalDataOption,
    ForceOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    input_shapes,
)
from onnxprune.cli.reading import read
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import OnnxPruneError, PassError, UsageError

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.passes import Pass, PassResult
    from onnxprune.passes.manager import Watch
    from onnxprune.passes.pipeline import Pipeline


class CheckLevel(str, Enum):
    """What is checked after every pass; see ``onnxprune.passes.manager.Check``."""

    NONE = "none"
    STRUCTURE = "structure"
    RUNTIME = "runtime"
    EQUALITY = "equality"


CheckOption = Annotated[
    CheckLevel,
    typer.Option(
        help="What to check after every pass: nothing; onnx.checker; a run in onnxruntime; equal outputs. "
        "Each includes those before it."
    ),
]


def normalize(
    model: ModelArgument,
    output: OutputOption,
    check: CheckOption = CheckLevel.STRUCTURE,
    input_shape: InputShapeOption = None,
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a model into the form that the analysis works on and plans refer to."""
    terminal = Terminal(as_json)
    paths = _paths(terminal, model, output, force, external_data)
    source = read(terminal, model)
    from onnxprune.passes import NORMALIZER

    _run_and_save(terminal, source, [NORMALIZER], output, check, input_shape, paths)


def run(
    model: ModelArgument,
    output: OutputOption,
    pipeline: Annotated[
        str,
        typer.Option(
            "--pipeline",
            "--passes",
            metavar="TEXT|FILE.toml",
            help="Passes in order, with options in braces: 'normalize, prune{mode=flops reduce=0.5}'.",
            show_default=False,
        ),
    ],
    check: CheckOption = CheckLevel.STRUCTURE,
    verify_each: Annotated[bool, typer.Option("--verify-each", help="The same as --check equality.")] = False,
    print_ir_after: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Print the graph after this pass (all: after every one). Repeatable."),
    ] = None,
    time_passes: Annotated[bool, typer.Option("--time-passes", help="Tell what every pass took.")] = False,
    statistics: Annotated[bool, typer.Option("--statistics", help="Tell nodes and weights after every pass.")] = False,
    reproducer: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where a pass fails, write the part of the model that it fails on, and the pipeline, there.",
            show_default=False,
        ),
    ] = None,
    input_shape: InputShapeOption = None,
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run passes on a model; 'onnxprune passes' lists them."""
    terminal = Terminal(as_json)
    paths = _paths(terminal, model, output, force, external_data)
    from onnxprune.passes.pipeline import Pipeline

    planned = Pipeline.load(pipeline) if pipeline.endswith(".toml") else Pipeline.parse(pipeline)
    steps = planned.make()
    unknown = {name for name in print_ir_after or () if name != "all"} - {step.name for step in steps}
    if unknown:
        raise UsageError(f"--print-ir-after: the pipeline has no pass {', '.join(sorted(unknown))}")
    source = read(terminal, model)
    level = CheckLevel.EQUALITY if verify_each else check
    looking = Looking(terminal, tuple(print_ir_after or ()))
    try:
        _run_and_save(terminal, source, steps, output, level, input_shape, paths, looking)
    except OnnxPruneError as error:
        if reproducer is None or looking.at is None:
            raise
        with terminal.step("Cutting down the model"):
            where = _reproduced(looking, planned, steps, level, reproducer)
        raise type(error)(f"{error}; {where} reproduces it") from error
    finally:
        for line in looking.lines(times=time_passes, sizes=statistics):
            terminal.show(line)


def passes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A pass, to see its options.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the passes, those of other packages included, or the options of one."""
    terminal = Terminal(as_json)
    from onnxprune.cli.tables import empty_table
    from onnxprune.passes.pipeline import options_of, writable
    from onnxprune.passes.registry import available_passes, find_pass

    if name is not None:
        try:
            cls = find_pass(name)
        except PassError as error:
            raise UsageError(str(error)) from error
        options = options_of(cls)
        terminal.json({"name": name, "summary": cls.summary, "options": [option.to_dict() for option in options]})
        terminal.show(f"{name}: {cls.summary}")
        table = empty_table()
        for title in ("option", "type", "default", "what it does"):
            table.add_column(title, no_wrap=title == "option")
        for option in options:
            default = "required" if option.required else str(option.default)
            table.add_row(option.name, option.type, default, option.help)
        terminal.show(table if options else "It has no options.")
        return
    found = {each: cls.summary for each, cls in available_passes().items() if writable(cls)}
    terminal.json({"passes": [{"name": each, "summary": summary} for each, summary in found.items()]})
    table = empty_table()
    table.add_column("pass", no_wrap=True)
    table.add_column("what it does")
    for each, summary in found.items():
        table.add_row(each, summary)
    terminal.show(table)


@dataclass
class Looking:
    """Looks on while passes run: prints graphs, and remembers times, sizes and the model before the last pass."""

    terminal: Terminal
    printed: tuple[str, ...]
    at: int | None = None
    before: Model | None = None
    steps: list[tuple[str, float, int, int, bool]] = field(default_factory=list)

    @contextmanager
    def __call__(self, step: Pass, model: Model) -> Iterator[Callable[[PassResult], None]]:
        """Around one pass."""
        self.at = 0 if self.at is None else self.at + 1
        self.before, begin = model, time.perf_counter()
        results: list[PassResult] = []
        yield results.append
        after = results[0].model
        weights = sum(weight.nbytes for weight in after.weights.values())
        seconds = time.perf_counter() - begin
        self.steps.append((step.name, seconds, len(after.graph.node), weights, results[0].modified))
        if step.name in self.printed or "all" in self.printed:
            import onnx

            self.terminal.show(f"// after {step.name}", onnx.printer.to_text(after.skeleton))

    def lines(self, *, times: bool, sizes: bool) -> Iterator[str]:
        """A line per pass about what was asked for."""
        width = max((len(name) for name, *_ in self.steps), default=0)
        for name, seconds, nodes, weights, modified in self.steps if times or sizes else ():
            told = [f"{1e3 * seconds:9.1f} ms"] if times else []
            told += [f"{nodes:6} nodes, {long(weights, 'B')} of weights"] if sizes else []
            yield f"{name:{width}}  {'  '.join(told)}{'' if modified else '  (nothing to do)'}"


def _reproduced(looking: Looking, planned: Pipeline, steps: Sequence[Pass], level: CheckLevel, folder: Path) -> str:
    """Write what reproduces the failure of the last pass; returns the command."""
    from onnxprune.passes.manager import Check
    from onnxprune.passes.pipeline import Pipeline as Part
    from onnxprune.passes.reproducer import reduced, write

    assert looking.before is not None
    assert looking.at is not None
    small = reduced(looking.before, steps[looking.at], Check(level.value))
    model, _ = write(small, str(Part((planned.steps[looking.at],))), folder)
    return f"onnxprune run {model} -o OUT --check {level.value} --pipeline '{planned.steps[looking.at]}'"


def _paths(terminal: Terminal, model: Path, output: Path, force: bool, external_data: str | None) -> Paths:
    paths = Paths(force=force, terminal=terminal, external_data=external_data)
    paths.read_models(model)
    paths.write_model(output)
    return paths


def _run_and_save(
    terminal: Terminal,
    source: Model,
    wanted: Sequence[Pass],
    output: Path,
    check: CheckLevel,
    shapes: Sequence[str] | None,
    paths: Paths,
    watch: Watch | None = None,
) -> None:
    from onnxprune.analysis.binding import find_binding
    from onnxprune.passes.manager import Check, PassManager

    level, given = Check(check.value), input_shapes(shapes, source)
    with terminal.step("Running passes"):
        if level in (Check.RUNTIME, Check.EQUALITY):
            given = dict(find_binding(source, given).shapes)
        manager = PassManager(wanted, level, given, watch=watch)
        result = manager.run(source)
    with terminal.step(f"Writing {output.name}"):
        paths.save_model(result.model, output)
    nodes = (len(source.graph.node), len(result.model.graph.node))
    terminal.json(
        {
            "model": str(source.path),
            "output": str(output),
            "passes": [step.name for step in wanted],
            "modified": result.modified,
            "nodes": {"before": nodes[0], "after": nodes[1]},
            "file_size": {"before": source.file_size, "after": result.model.file_size},
        }
    )
    changed = f"{nodes[0]} → {nodes[1]} nodes" if result.modified else "nothing to change"
    terminal.show(f"Wrote {output} ({long(result.model.file_size, 'B')}; {changed}).")
