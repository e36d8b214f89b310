"""``onnxprune quantize``: 8-bit integers where they are faster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from onnxprune._display import long
from onnxprune.cli.files import Paths
from onnxprune.cli.integers import conversion_lines, quantization_lines
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
from onnxprune.pruning.quantization.options import ConvertOptions, QuantizeOptions

if TYPE_CHECKING:
    from onnxprune.ir.model import Model

_HELP = "Samples, labels not needed: an .npz file, a folder, or module:function. Ranges of tensors follow from them."

_USUAL = ("method", "max_drop", "keep_float")


@offering
def quantize(
    *,
    model: ModelArgument,
    output: OutputOption,
    options: Annotated[QuantizeOptions, Offer(helps={"calibration": _HELP}, usual=_USUAL)],
    external_data: ExternalDataOption = None,
    form: Annotated[ConvertOptions, Offer(("fp16", "weights", "dynamic"))],
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a model compute in 8-bit integers where that is faster, and prove and measure the result."""
    spec = options.calibration
    if form.form is not None and (more := options.given().keys() - {"calibration", "threads"}):
        raise UsageError(f"{', '.join(sorted(more))} go with ranges from samples; {form.form} has none")
    terminal = Terminal(as_json)
    paths = Paths(force=force, terminal=terminal, external_data=external_data)
    paths.read_models(model)
    paths.read_data(spec if isinstance(spec, str) else None)
    paths.write_model(output)
    source = read(terminal, model)
    if form.form is not None or not isinstance(spec, str):
        form = replace(form, calibration=spec, threads=options.threads)
        _convert(terminal, paths, source, form, output)
        return
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


def _convert(terminal: Terminal, paths: Paths, source: Model, form: ConvertOptions, output: Path) -> None:
    """Write a form that needs no samples; where none is asked for, integers with ranges found as it runs, if faster."""
    from onnxprune.pruning.history import with_answers, with_form
    from onnxprune.pruning.quantization.converting import convert

    tried = form.form is None
    advice = "give samples with --calibrate (labels are not needed), or a form: --fp16, --weights or --dynamic"
    try:
        with terminal.step("Converting"):
            made = convert(source, **(replace(form, dynamic=True) if tried else form).given())
    except UsageError as error:
        raise UsageError(f"{error}; {advice}") if tried else error from error
    if tried and not made.faster:
        raise UsageError(f"without samples the model takes {made.ratio:.2f} of its time in integers; {advice}")
    with terminal.step(f"Writing {output.name}"):
        paths.save_model(with_answers(with_form(made, form), made.fidelity), output)
    terminal.json({"model": str(source.path), "output": str(output), **made.to_dict()})
    if terminal.as_json:
        return
    for line, style in [*conversion_lines(made), *answer_lines(made.fidelity)]:
        terminal.show(line, style=style)
    terminal.show(f"Wrote {output} ({long(made.sizes[1], 'B')} of {long(made.sizes[0], 'B')}).")
