"""``onnxprune quantize``: 8-bit integers where they are faster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from onnxprune._display import long
from onnxprune.cli.files import Paths
from onnxprune.cli.integers import quantization_lines
from onnxprune.cli.names import resolve
from onnxprune.cli.options import (
    ExternalDataOption,
    ForceOption,
    JsonOption,
    ModelArgument,
    Offer,
    OutputOption,
    offering,
)
from onnxprune.cli.reading import read
from onnxprune.cli.result import answer_lines
from onnxprune.cli.terminal import Terminal
from onnxprune.errors import UsageError
from onnxprune.pruning.quantization.options import QuantizeOptions

_HELP = "Samples, labels not needed: an .npz file, a folder, or module:function. Ranges of tensors follow from them."

_USUAL = ("method", "max_drop", "keep_float")


@offering
def quantize(
    *,
    model: ModelArgument,
    output: OutputOption,
    options: Annotated[QuantizeOptions, Offer(helps={"calibration": _HELP}, usual=_USUAL)],
    external_data: ExternalDataOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a model compute in 8-bit integers where that is faster, and prove and measure the result."""
    spec = options.calibration
    if not isinstance(spec, str):
        raise UsageError("give samples with --calibrate; labels are not needed")
    terminal = Terminal(as_json)
    paths = Paths(force=force, external_data=external_data)
    paths.read_models(model)
    paths.read_data(spec)
    paths.write_model(output)
    source = read(terminal, model)
    from onnxprune.data.samples import collect_both
    from onnxprune.ir.engine import Engine
    from onnxprune.pruning.calibration import sourced
    from onnxprune.pruning.history import with_answers, with_integers
    from onnxprune.pruning.quantization.quantizing import HELD_OUT, quantise_model

    layers = [(node.name, node.op_type) for node in source.graph.node if node.name]
    options = replace(options, keep_float=[resolve(name, layers) for name in options.keep_float])
    with terminal.step("Reading data"):
        fit, held_out, _ = collect_both(sourced(spec, source), source, options.calibration_samples, evaluate=HELD_OUT)
    made = quantise_model(source, fit, held_out, options, engine=Engine(options.threads), progress=terminal.step)
    with terminal.step(f"Writing {output.name}"):
        paths.save_model(with_answers(with_integers(made, options), made.fidelity), output)
    sizes = {"before": source.file_size, "after": made.model.file_size}
    terminal.json({"model": str(model), "output": str(output), "file_size": sizes, **made.to_dict()})
    if as_json:
        return
    for line, style in quantization_lines(made):
        terminal.show(line, style=style)
    for line, answers in answer_lines(made.fidelity):
        terminal.show(line, style=answers)
    terminal.show(f"Wrote {Path(output)} ({long(sizes['after'], 'B')} of {long(sizes['before'], 'B')}).")
