"""``onnxprune torch``: a model as PyTorch code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.options import JsonOption, ModelArgument
from onnxprune.cli.reading import read
from onnxprune.cli.terminal import Terminal
from onnxprune.cli.training import require_torch


def torch(
    *,
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="A new folder for the package.", show_default=False),
    ],
    as_json: JsonOption = False,
) -> None:
    """Write a model as PyTorch code that people read, with its weights."""
    require_torch()
    terminal = Terminal(as_json)
    from onnxprune.torch.code.writing import check_folder, to_code

    check_folder(output)
    given = read(terminal, model)
    with terminal.step("Writing and running the code"):
        to_code(given, output)
    files = sorted(str(path.relative_to(output)) for path in output.rglob("*") if path.is_file())
    terminal.json({"output": str(output), "files": files})
    terminal.show(f"Wrote {output}: {', '.join(files)}.")
