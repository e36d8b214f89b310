"""``onnxprune auto``: the best model that keeps all promises."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from onnxprune._display import long
from onnxprune.cli.files import Paths
from onnxprune.cli.options import ForceOption, JsonOption, ModelArgument, Offer, OutputOption, offering
from onnxprune.cli.reading import read
from onnxprune.cli.result import show_certificate
from onnxprune.cli.terminal import Terminal
from onnxprune.pruning.options import AutoOptions

if TYPE_CHECKING:
    from onnxprune.exploration.auto import Auto

_DATA = (
    "Samples, with labels or without: an .npz file, a folder, or module:function. Some are fitted to, some proven on."
)

_LOSS = "Most that may be lost, proven: the true share of changed answers (with labels: of accuracy lost)."


@offering
def auto(
    *,
    model: ModelArgument,
    output: OutputOption,
    options: Annotated[
        AutoOptions,
        Offer(
            helps={"calibration": _DATA, "max_loss": _LOSS},
            flags={"calibration": "--data --calibrate"},
            usual=("times",),
        ),
    ],
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search channels, regions, ranks, int8 and recovery for the best model that keeps all promises."""
    options.check()
    terminal = Terminal(as_json)
    paths = Paths(force=force, terminal=terminal)
    paths.read_models(model)
    paths.read_data(options.calibration if isinstance(options.calibration, str) else None)
    paths.read(None if options.times is None else Path(options.times))
    paths.write_model(output)
    source = read(terminal, model)
    from onnxprune.exploration.auto import run

    found = run(source, options, progress=terminal.step, path=lambda line: print(line, file=sys.stderr, flush=True))
    with terminal.step(f"Writing {output.name}"):
        paths.save_model(found.model, output)
    again = found.command(model, output)
    terminal.json({"model": str(model), "output": str(output), **found.to_dict(), "command": again})
    if not as_json:
        _show(terminal, found)
        how = f"To make it again: {again}" if again else "It is the original, which keeps all budgets."
        terminal.show(f"Wrote {output} ({long(found.model.file_size, 'B')}). {how}")


def _show(terminal: Terminal, found: Auto) -> None:
    if found.best.certificate is not None:
        show_certificate(terminal, found.best.certificate)
    done = found.best.quantization
    for line in () if done is None or done.certificate is None else done.certificate.sentences:
        terminal.show(line, style="green")
    terminal.show(" ".join(found.sentences))
