"""``onnxprune normalize``, ``run`` and ``passes``."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune._display import long
from onnxprune.cli.files import Paths
from onnxprune.cli.options import (
    ForceOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    input_shapes,
)
from onnxprune.cli.reading import read
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import PassError, UsageError

if TYPE_CHECKING:
    from onnxprune.ir.model import Model
    from onnxprune.passes import Pass


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
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a model into the form that the analysis works on and plans refer to."""
    terminal = Terminal(as_json)
    paths = _paths(model, output, force)
    source = read(terminal, model)
    from onnxprune.passes import NORMALIZER

    _run_and_save(terminal, source, [NORMALIZER], output, check, input_shape, paths)


def run(
    model: ModelArgument,
    output: OutputOption,
    names: Annotated[
        str,
        typer.Option("--passes", metavar="A,B,C", help="The passes to run, in order.", show_default=False),
    ],
    check: CheckOption = CheckLevel.STRUCTURE,
    input_shape: InputShapeOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run passes on a model; 'onnxprune passes' lists them."""
    terminal = Terminal(as_json)
    paths = _paths(model, output, force)
    wanted = _made([name.strip() for name in names.split(",") if name.strip()])
    source = read(terminal, model)
    _run_and_save(terminal, source, wanted, output, check, input_shape, paths)


def passes(as_json: JsonOption = False) -> None:
    """List the passes, those of other packages included."""
    terminal = Terminal(as_json)
    from onnxprune.cli.tables import empty_table
    from onnxprune.passes.registry import available_passes, required_arguments

    found = {name: cls.summary for name, cls in available_passes().items() if not required_arguments(cls)}
    terminal.json({"passes": [{"name": name, "summary": summary} for name, summary in found.items()]})
    table = empty_table()
    table.add_column("pass", no_wrap=True)
    table.add_column("what it does")
    for name, summary in found.items():
        table.add_row(name, summary)
    terminal.show(table)


def _paths(model: Path, output: Path, force: bool) -> Paths:
    paths = Paths(force=force)
    paths.read_models(model)
    paths.write_model(output)
    return paths


def _made(names: Sequence[str]) -> list[Pass]:
    """Passes by name. Raises UsageError for an unknown one, or one that a name does not suffice for."""
    from onnxprune.passes.registry import make_passes

    if not names:
        raise UsageError("--passes names none; 'onnxprune passes' lists them")
    try:
        return make_passes(names)
    except PassError as error:
        raise UsageError(str(error)) from error


def _run_and_save(
    terminal: Terminal,
    source: Model,
    wanted: Sequence[Pass],
    output: Path,
    check: CheckLevel,
    shapes: Sequence[str] | None,
    paths: Paths,
) -> None:
    from onnxprune.analysis.binding import find_binding
    from onnxprune.passes.manager import Check, PassManager

    level, given = Check(check.value), input_shapes(shapes, source)
    with terminal.step("Running passes"):
        if level in (Check.RUNTIME, Check.EQUALITY):
            given = dict(find_binding(source, given).shapes)
        manager = PassManager(wanted, level, given)
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
