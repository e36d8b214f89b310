"""``onnxprune keep``: a model that says only some of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune._display import TOTALS, long
from onnxprune.cli.files import Paths
from onnxprune.cli.options import (
    ForceOption,
    InputShapeOption,
    JsonOption,
    ModelArgument,
    OutputOption,
    input_shapes,
    offering,
)
from onnxprune.cli.reading import read
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError


@offering
def keep(
    *,
    model: ModelArgument,
    output: OutputOption,
    classes: Annotated[
        str | None,
        typer.Option(metavar="0,5,dog", help="Classes, by number, range (0-9) or name.", show_default=False),
    ] = None,
    positions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OUT[AXIS]=0,5",
            help="Instead: positions of an output's axis. Repeatable.",
            show_default=False,
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The names of all classes, one a line or JSON, if the model does not tell them.",
            show_default=False,
        ),
    ] = None,
    input_shape: InputShapeOption = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Write without proof.")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep only some classes of a classifier or detector: exact for these, smaller for the rest."""
    if not classes and not positions:
        raise UsageError("say what to keep: --classes 0,5,dog, or --positions 'OUTPUT[AXIS]=0,5'")
    terminal = Terminal(as_json)
    paths = Paths(force=force, terminal=terminal)
    paths.read_models(model)
    paths.read(names)
    paths.write_model(output)
    source = read(terminal, model)
    from onnxprune.pruning.keeping import keep as kept
    from onnxprune.pruning.labels import class_names, words_of

    known = class_names(source, names)
    with terminal.step("Keeping"):
        made = kept(
            source,
            classes=words_of(classes or "", known),
            positions=positions or (),
            names=known,
            input_shapes=input_shapes(input_shape, source),
            certify=not no_verify,
        )
    with terminal.step(f"Writing {output.name}"):
        paths.save_model(made.model, output)
    terminal.json({"model": str(model), "output": str(output), **made.to_dict()})
    for one in made.kept:
        terminal.show(f"{one.words}.", style="yellow" if one.left else "")
    for key, (title, unit) in TOTALS.items():
        if key in made.before and key in made.after:
            terminal.show(f"{title}: {long(made.before[key], unit)} → {long(made.after[key], unit)}")
    for line in () if made.certificate is None else made.certificate.sentences:
        terminal.show(line)
    if made.metadata:
        terminal.show(f"The metadata names the classes that are left ({', '.join(made.metadata)}).")
    terminal.show(f"Wrote {output} ({long(made.model.file_size, 'B')} of {long(source.file_size, 'B')}).")
